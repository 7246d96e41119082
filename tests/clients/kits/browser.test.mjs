// clients/typescript in a real browser: as plain ES modules from another origin, and as React hooks. `KITS_BROWSER` is
// `chromium` or `firefox`.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { start } from '../page/browser.mjs';
import { Pages } from './pages.mjs';
import { Stage } from './stage.mjs';

const timeout = 900_000;
const kind = process.env.KITS_BROWSER ?? 'chromium';
const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../../../', import.meta.url));

/** The page that uses the kit without a build step; `watch` is called by the tests. */
const PLAIN = `<!doctype html><title>Kit</title><script type="module">
  import { JobgateClient } from '/clients/typescript/index.js';
  window.client = (url, more = {}) => new JobgateClient({
    url, token: () => fetch('/token').then((response) => response.text()), maxPauseMs: 200, ...more });
  window.records = [];
  window.watch = (jobgate, refs) => {
    const record = { states: [], statuses: [], stale: [], ended: false, error: null };
    record.stop = jobgate.watchJobs(refs, {
      onUpdate: ({ job, problem }) => {
        record.states.push(job?.state ?? problem.code);
        record.stale.push(job?.freshness.staleReason ?? null);
      },
      onStatus: ({ state, transport, error }) => record.statuses.push([state, transport ?? error?.code ?? null]),
      onError: ({ code }) => (record.error = code),
      onEnd: () => (record.ended = true),
    });
    window.records.push(record);
    return record;
  };
  window.ready = true;
</script>`;

let browser, stage, pages, origin;
/** Further jobs that the page may read. */
let many = [];
before(async () => {
  pages = new Pages();
  await pages.listen();
  origin = `http://pages.example:${pages.port}`;
  stage = await Stage.start({ clients: true, origins: [origin] });
  pages.made.set('/plain.html', PLAIN);
  pages.made.set('/token', () => stage.watchToken([a, b, ...many], '1h'));
  const bundled = await build({
    entryPoints: [`${here}react-page.jsx`], bundle: true, write: false, format: 'esm', jsx: 'automatic', logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"development"' }, nodePaths: [`${root}tests/clients/node_modules`],
    alias: { '@jobgate/client': `${root}clients/typescript/index.js`, '@jobgate/client/react': `${root}clients/typescript/react/index.js` },
  });
  pages.made.set('/react.js', bundled.outputFiles[0].text);
  pages.made.set('/react.html', '<!doctype html><title>React</title><div id="root"></div><script type="module" src="/react.js"></script>');
  browser = await start(kind, { names: ['pages.example', 'other.example'] });
});
after(async () => {
  await browser?.close();
  pages?.close();
  await stage?.close();
});
/** Two jobs of each test. */
let a, b;
beforeEach(async () => {
  stage.block();
  [a, b] = await stage.newJobs(2);
});

async function open(url) {
  const page = await browser.open();
  await page.goto(url);
  return page;
}

/** Opens the plain page, and watches jobs on it. */
async function watching(refs = [`mind/${a}`], more = {}) {
  const page = await open(`${more.page ?? origin}/plain.html`);
  await page.until('the kit', () => window.ready);
  await page.evaluate(([url, refs, more]) => {
    window.watch(window.client(url, more), refs);
  }, [stage.url, refs, more.options ?? {}]);
  const until = (condition) => page.until(condition, `(({ states, statuses, stale, ended, error }) => ${condition})(window.records[0])`);
  const record = () => page.evaluate(() => JSON.parse(JSON.stringify(window.records[0])));
  return { page, until, record };
}

describe('plain ES modules', { timeout }, () => {
  test('a job is followed to its end over WebSocket', async () => {
    const { page, until, record } = await watching();
    await until('states.length === 1');
    await stage.set(a, 'COMPLETE');
    await until('ended');
    assert.deepEqual((await record()).states, ['RUNNING', 'SUCCEEDED']);
    assert.deepEqual((await record()).statuses, [['connecting', null], ['live', 'websocket'], ['ended', null]]);
    assert.deepEqual(page.console, []);
    await page.close();
  });

  test('a killed gateway that returns repeats nothing and loses nothing', async () => {
    const { page, until, record } = await watching([`mind/${a}`, `mind/${b}`]);
    await until('states.length === 2');
    await stage.killGateway();
    await until('statuses.filter(([state]) => state === "reconnecting").length >= 2');
    await stage.set(a, 'COMPLETE');
    await stage.startGateway();
    await until('states.length === 3');
    await stage.set(b, 'ERROR');
    await until('ended');
    assert.deepEqual((await record()).states, ['RUNNING', 'RUNNING', 'SUCCEEDED', 'FAILED']);
    await page.close();
  });

  test('a gateway that was away for long is noticed within seconds', async () => {
    const { page, until } = await watching(undefined, { options: { transports: ['websocket'] } });
    await until('states.length === 1');
    await stage.killGateway();
    await until('statuses.filter(([state]) => state === "reconnecting").length >= 15');
    await stage.startGateway();
    const back = Date.now();
    await until('statuses.filter(([state]) => state === "live").length === 2');
    const took = Date.now() - back;
    assert.ok(took < 5000, `${took} ms`);
    await page.close();
  });

  test('an expired watch token is renewed', async () => {
    let calls = 0;
    const before = pages.made.get('/token');
    pages.made.set('/token', () => {
      calls += 1;
      return stage.watchToken([a], '2s');
    });
    const { page, until, record } = await watching();
    await until('statuses.filter(([state]) => state === "live").length >= 2');
    await stage.set(a, 'COMPLETE');
    await until('ended');
    assert.deepEqual((await record()).states, ['RUNNING', 'SUCCEEDED']);
    assert.ok(calls >= 2, `${calls}`);
    pages.made.set('/token', before);
    await page.close();
  });

  test('an upstream outage is an update, and ends no watch', async () => {
    const { page, until, record } = await watching();
    await until('states.length === 1');
    await stage.outage();
    await until('stale.at(-1) === "UNAVAILABLE"');
    await stage.endOutage();
    await stage.set(a, 'COMPLETE');
    await until('ended');
    assert.equal((await record()).states.at(-1), 'SUCCEEDED');
    assert.equal((await record()).statuses.some(([state]) => state === 'reconnecting'), false);
    await page.close();
  });

  for (const [blocked, transport] of [[['webSockets'], 'sse'], [['webSockets', 'streams'], 'wait']]) {
    test(`with ${blocked.join(' and ')} blocked a job is followed by ${transport}`, async () => {
      stage.block(...blocked);
      const { page, until, record } = await watching();
      await until('states.length === 1');
      await stage.set(a, 'COMPLETE');
      await until('ended');
      assert.deepEqual((await record()).states, ['RUNNING', 'SUCCEEDED']);
      assert.deepEqual((await record()).statuses, [['connecting', null], ['live', transport], ['ended', null]]);
      await page.close();
    });
  }

  test('ten watches over server-sent events leave connections for a query', async () => {
    many = await stage.newJobs(10);
    const { page, until } = await watching(undefined, { options: { transports: ['sse'] } });
    await until('states.length === 1');
    const states = await page.evaluate(async ([url, ids]) => {
      const jobgate = window.client(url, { transports: ['sse'] });
      for (const id of ids) {
        const record = window.watch(jobgate, [`mind/${id}`]);
        while (record.states.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return (await jobgate.jobs(ids.map((id) => `mind/${id}`))).map(({ state }) => state);
    }, [stage.url, many]);
    assert.deepEqual(states, many.map(() => 'RUNNING'));
    await page.close();
  });

  test('a page of an origin that is not allowed gets nothing but a reason', async () => {
    const { page, until, record } = await watching(undefined, { page: `http://other.example:${pages.port}` });
    await until('statuses.filter(([state]) => state === "reconnecting").length >= 2');
    assert.deepEqual((await record()).states, []);
    assert.ok((await record()).statuses.slice(1).every(([state, code]) => state === 'reconnecting' && code === 'UNREACHABLE'));
    await page.close();
  });
});

describe('React hooks', { timeout }, () => {
  const address = (...ids) => `${origin}/react.html?${new URLSearchParams([['gateway', stage.url], ...ids.map((id) => ['job', `mind/${id}`])])}`;

  test('components show a job to its end, and share its subscription', async () => {
    const page = await open(address(a, b));
    await page.shows('#first', 'RUNNING');
    await page.shows('#second', 'RUNNING');
    assert.equal(stage.front.open.websocket, 1);
    await page.click('#again');
    await stage.set(a, 'COMPLETE');
    await page.shows('#first[data-final=true]', 'SUCCEEDED');
    await page.shows('#second[data-final=true]', 'SUCCEEDED');
    await page.shows('#list', `mind/${a} SUCCEEDED`);
    await page.shows('#list', `mind/${b} RUNNING`);
    await page.shows('#none', 'none');
    assert.deepEqual(page.console, []);
    await page.close();
  });

  test('a restart shows, and what follows it is true', async () => {
    const page = await open(address(a));
    await page.shows('#first[data-status=live]', 'RUNNING');
    await stage.killGateway();
    await page.shows('#first[data-status=reconnecting]', 'RUNNING');
    await stage.startGateway();
    await page.shows('#first[data-status=live]', 'RUNNING');
    await stage.set(a, 'COMPLETE');
    await page.shows('#first[data-status=ended]', 'SUCCEEDED');
    await page.close();
  });

  test('an unmounted component watches nothing, and a mounted one again', async () => {
    const page = await open(address(a));
    await page.shows('#first[data-status=live]', 'RUNNING');
    await page.click('#toggle');
    while (stage.front.open.websocket > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    await stage.set(a, 'COMPLETE');
    await page.click('#toggle');
    await page.shows('#first', 'SUCCEEDED');
    await page.close();
  });
});
