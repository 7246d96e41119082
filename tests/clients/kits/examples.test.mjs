// The examples, and the samples that the documents print, against the real gateway: each follows a job to its end, most of
// them through a restart of the gateway.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import babel from '@babel/core';
import { build } from 'esbuild';
import { parse } from 'yaml';
import { start as startBrowser } from '../page/browser.mjs';
import { Pages } from './pages.mjs';
import { Stage } from './stage.mjs';

const timeout = 900_000;
const root = fileURLToPath(new URL('../../../', import.meta.url));
const modules = join(root, 'tests/clients/node_modules');
const read = (path) => readFileSync(join(root, path), 'utf8');
const QUERY = 'demo_sales_2026';
const JOB = '65f0c0ffee00000000000001';

/** The examples as somebody has them who installed their packages: the kit is the packed one. */
let folder, examples;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'jobgate-examples-'));
  examples = join(folder, 'examples');
  cpSync(join(root, 'examples'), examples, { recursive: true });
  cpSync(join(root, 'schema'), join(folder, 'schema'), { recursive: true });
  symlinkSync(modules, join(folder, 'node_modules'));
  const run = promisify(execFile);
  await run('npm', ['pack', join(root, 'clients/typescript'), '--pack-destination', folder, '--silent']);
  const [packed] = readdirSync(folder).filter((name) => name.endsWith('.tgz'));
  await run('tar', ['xzf', join(folder, packed), '-C', folder]);
  mkdirSync(join(examples, 'node_modules/@jobgate'), { recursive: true });
  renameSync(join(folder, 'package'), join(examples, 'node_modules/@jobgate/client'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

let stage;
/** A gateway with the sources and the jobs of the demo, and a client key. */
async function start(more = {}) {
  stage = await Stage.start({ clients: true, names: { mind: 'audit', metrics: 'marketing' }, jobs: { mind: [JOB], metrics: [QUERY] }, ...more });
}
afterEach(async () => {
  await stage?.close();
  stage = null;
});

/** Lets both jobs end. */
async function finish(status = 'SUCCESS') {
  await stage.set(JOB, 'COMPLETE');
  await stage.setQuery(QUERY, status, { ready: 3, total: 3 });
}

/** Runs a program; `line` resolves when one matches. */
function run(program, args, env = {}) {
  const child = spawn(program, args, { cwd: examples, env: { PATH: process.env.PATH, JOBGATE_URL: stage.url, JOBGATE_KEY: stage.key, ...env } });
  let output = '';
  let wake = () => {};
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
      wake();
    });
  }
  const ended = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      wake();
      resolve(code);
    });
  });
  const line = async (pattern) => {
    while (!pattern.test(output)) {
      assert.equal(child.exitCode, null, `it ended before ${pattern}:\n${output}`);
      await new Promise((resolve) => (wake = resolve));
    }
  };
  return { ended, line, output: () => output };
}

/** Runs a program that follows the query, through a restart if it can, and returns its lines. */
async function follow(program, args, { env = {}, restart = true, begins = /RUNNING/ } = {}) {
  await start();
  const running = run(program, args, env);
  await running.line(begins);
  if (restart) {
    await stage.killGateway();
    await stage.startGateway();
  }
  await finish();
  assert.equal(await running.ended, 0, running.output());
  return running.output().trim().split('\n');
}

/** The first lines of an example that follows both jobs. */
const BOTH = /^(audit|marketing)\S* RUNNING[^]*^(audit|marketing)\S* RUNNING/m;

/** Without what a client repeats after a restart. */
const distinct = (lines) => [...new Set(lines)];

// the WebSocket of Node.js 22 and later, in version 20
const NODE = process.versions.node.startsWith('20.') ? ['--experimental-websocket'] : [];
const PYTHON = join(root, 'target/tools/clients/bin/python');
const WITH_KIT = { PYTHONPATH: join(root, 'clients/python') };

/** Compiles TypeScript or JSX of the examples into a file beside it. */
async function bundle(path, more = {}) {
  const outfile = join(examples, path.replace(/\.\w+$/, '.out.mjs'));
  await build({ entryPoints: [join(examples, path)], outfile, bundle: true, format: 'esm', platform: 'node', logLevel: 'error', ...more });
  return outfile;
}

describe('examples', { timeout }, () => {
  test('typescript', async () => {
    const lines = await follow('node', [...NODE, await bundle('typescript/watch.ts')], { begins: BOTH });
    assert.deepEqual(lines.filter((line) => line.startsWith('marketing')), [`marketing/${QUERY} RUNNING 1/3`, `marketing/${QUERY} SUCCEEDED 3/3`]);
    assert.deepEqual(lines.filter((line) => line.startsWith('audit')), [`audit/${JOB} RUNNING`, `audit/${JOB} SUCCEEDED`]);
  });

  test('typescript is free of type errors', async () => {
    writeFileSync(join(examples, 'tsconfig.json'), JSON.stringify({
      compilerOptions: { strict: true, noEmit: true, module: 'nodenext', target: 'es2022', skipLibCheck: true, types: ['node'], typeRoots: [join(modules, '@types')] },
      include: ['typescript/watch.ts'],
    }));
    await promisify(execFile)(join(modules, '.bin/tsc'), ['-p', examples]).catch(({ stdout }) => assert.fail(stdout));
  });

  test('apollo', async () => {
    assert.deepEqual(distinct(await follow('node', [...NODE, 'apollo/watch.mjs'])), ['RUNNING', 'SUCCEEDED']);
  });

  test('urql', async () => {
    assert.deepEqual(distinct(await follow('node', [...NODE, 'urql/watch.mjs'])), ['RUNNING', 'SUCCEEDED']);
  });

  test('relay', async () => {
    const relay = join(examples, 'relay');
    await promisify(execFile)(join(modules, '.bin/relay-compiler'), [], { cwd: relay });
    const plugin = ['babel-plugin-relay', { eagerEsModules: true }];
    const { code } = babel.transformFileSync(join(relay, 'watch.js'), { plugins: [plugin], cwd: join(root, 'tests/clients'), configFile: false, babelrc: false });
    writeFileSync(join(relay, 'watch.out.mjs'), code.replace('watchSubscription.graphql"', 'watchSubscription.graphql.js"'));
    assert.deepEqual(distinct(await follow('node', [...NODE, 'relay/watch.out.mjs'])), ['RUNNING', 'SUCCEEDED']);
  });

  test('python with the kit', async () => {
    const lines = await follow(PYTHON, ['python/watch.py'], { env: WITH_KIT, begins: BOTH });
    assert.deepEqual(lines.filter((line) => line.startsWith('marketing')).map((line) => line.trim()), [`marketing/${QUERY} RUNNING 1/3`, `marketing/${QUERY} SUCCEEDED 3/3`]);
  });

  test('python with gql alone', async () => {
    assert.deepEqual(await follow(PYTHON, ['python/gql_watch.py'], { restart: false }), ['RUNNING', 'SUCCEEDED']);
  });

  test('react in a browser', async () => {
    const browser = await startBrowser('chromium', { names: ['pages.example'] });
    const pages = new Pages();
    await pages.listen();
    const origin = `http://pages.example:${pages.port}`;
    await start({ origins: [origin] });
    pages.made.set('/index.html', read('examples/react/index.html'));
    const outfile = await bundle('react/page.jsx', { jsx: 'automatic', platform: 'browser', define: { 'process.env.NODE_ENV': '"production"' } });
    pages.made.set('/page.js', readFileSync(outfile, 'utf8'));
    pages.made.set('/watch-token', async () => {
      const query = 'mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token } }';
      const refs = [{ external: { source: 'marketing', externalId: QUERY } }, { external: { source: 'audit', externalId: JOB } }];
      const response = await fetch(`${stage.url}/graphql`, {
        method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${stage.key}` }, body: JSON.stringify({ query, variables: { input: { refs } } }),
      });
      return (await response.json()).data.createWatchToken.token;
    });
    const { raw: page } = await browser.open();
    page.setDefaultTimeout(timeout);
    await page.goto(`${origin}/index.html?login&gateway=${encodeURIComponent(stage.url)}`);
    await page.getByRole('status').filter({ hasText: 'live' }).waitFor();
    await page.getByRole('row', { name: `marketing/${QUERY} RUNNING` }).waitFor();
    await stage.killGateway();
    await page.getByRole('status').filter({ hasText: 'reconnecting' }).waitFor();
    await stage.startGateway();
    await finish();
    await page.getByRole('row', { name: `marketing/${QUERY} SUCCEEDED` }).waitFor();
    await page.getByRole('row', { name: `audit/${JOB} SUCCEEDED` }).waitFor();
    await page.getByRole('status').filter({ hasText: 'ended' }).waitFor();
    await browser.close();
    pages.close();
  });

  test('the versions of the packages are those that are tested', () => {
    const { dependencies, devDependencies } = JSON.parse(read('examples/package.json'));
    const tested = JSON.parse(read('tests/clients/package.json')).dependencies;
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies })) {
      assert.equal(version, name === '@jobgate/client' ? 'file:../clients/typescript' : tested[name], name);
    }
  });
});

describe('shell', { timeout }, () => {
  const script = () => join(examples, 'shell/await-job.sh');

  test('the script waits through a restart, and its exit code is 0', async () => {
    await start();
    const running = run('bash', [script(), `marketing/${QUERY}`]);
    await until(() => stage.seen().request >= 1);
    await stage.killGateway();
    await running.line(/no answer/);
    await stage.startGateway();
    await finish();
    assert.equal(await running.ended, 0, running.output());
    assert.match(running.output(), /"state":"SUCCEEDED"/);
  });

  test('the exit code is 1 for a failed job, and 2 for an unknown result', async () => {
    await start();
    await finish('FAILURE');
    assert.equal(await run('bash', [script(), `marketing/${QUERY}`]).ended, 1);
    assert.equal(await run('bash', [script(), 'audit/never']).ended, 2);
    assert.equal(await run('bash', [script(), `marketing/${QUERY}`], { JOBGATE_KEY: 'jg_unknown' }).ended, 2);
    assert.equal(await run('bash', [script(), `marketing/${QUERY}`, '0']).ended, 2);
  });
});

describe('GitHub Actions', { timeout }, () => {
  /** Runs the step as a runner does: its script in bash, with what the expressions become. */
  function step() {
    const [{ run: script, env, shell }] = parse(read('examples/github-actions/await-job.yml')).jobs.report.steps;
    assert.equal(shell, 'bash');
    const values = { '${{ vars.JOBGATE_URL }}': stage.url, '${{ secrets.JOBGATE_KEY }}': stage.key };
    const resolved = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, values[value] ?? value]));
    const summary = join(folder, 'summary');
    writeFileSync(summary, '');
    const file = join(folder, 'step.sh');
    writeFileSync(file, script);
    const running = run('bash', ['--noprofile', '--norc', '-eo', 'pipefail', file], { ...resolved, GITHUB_STEP_SUMMARY: summary, RUNNER_TEMP: folder });
    return { ...running, summary: () => readFileSync(summary, 'utf8') };
  }

  test('the step waits through a restart for the end of the job', async () => {
    await start();
    const running = step();
    await until(() => stage.seen().request >= 1);
    await stage.killGateway();
    await stage.startGateway();
    await finish();
    assert.equal(await running.ended, 0, running.output());
    assert.equal(running.summary(), `marketing/${QUERY}: SUCCEEDED\n`);
  });

  test('the step fails with the job, and with the key', async () => {
    await start();
    await finish('FAILURE');
    const failed = step();
    assert.equal(await failed.ended, 1);
    assert.match(failed.output(), /::error::marketing\/demo_sales_2026: FAILED/);
    stage.key = 'jg_unknown';
    const rejected = step();
    assert.equal(await rejected.ended, 1);
    assert.match(rejected.output(), /::error::.*HTTP 401 unknown client key/);
  });
});

describe('documents', { timeout }, () => {
  /** The code blocks of a document below a heading, by language. */
  function blocks(path, heading, language) {
    const text = read(path);
    const from = text.indexOf(heading);
    assert.ok(from >= 0, `${path} has no ${heading}`);
    return [...text.slice(from).matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].filter(([, name]) => name === language).map(([, , code]) => code);
  }

  test('docs/clients.md prints the examples that are run', () => {
    const printed = blocks('docs/clients.md', '## Stock clients', 'js').concat(blocks('docs/clients.md', '## Stock clients', 'python'));
    const files = ['apollo/watch.mjs', 'urql/watch.mjs', 'relay/watch.js', 'python/gql_watch.py'];
    // without the comment at the head
    const code = files.map((file) => read(`examples/${file}`).replace(/^(\/\/.*\n|""".*"""\n\n)/, ''));
    assert.deepEqual(printed, code);
  });

  test('docs/guide.md has a cure for each error code', () => {
    const guide = read('docs/guide.md');
    const codes = [...read('src/inbound/http/error.rs').matchAll(/\(S::\w+, "([A-Z_]+)", Level/g)].map(([, code]) => code);
    const [, problems] = /enum JobProblemCode \{([^}]*)\}/.exec(read('schema/schema.graphql'));
    codes.push(...problems.replaceAll(/"""[^]*?"""/g, '').match(/\w+/g));
    assert.ok(codes.length > 35, 'the codes were read');
    assert.deepEqual(codes.filter((code) => !guide.includes(`| \`${code}\` |`)), []);
  });

  test('the sample of the hooks compiles', async () => {
    const [code] = blocks('clients/typescript/README.md', '## React', 'jsx');
    writeFileSync(join(examples, 'hooks.jsx'), code);
    assert.match(readFileSync(await bundle('hooks.jsx', { jsx: 'automatic' }), 'utf8'), /useSyncExternalStore/);
  });

  test('the samples of the kits and of the guide run as printed', async () => {
    const samples = [
      ['clients/typescript/README.md', '```js', 'js', 'sample.mjs'],
      ['clients/python/README.md', '```python', 'python', 'sample.py'],
      ['docs/guide.md', '```js', 'js', 'guide.mjs'],
      ['docs/guide.md', '```python', 'python', 'guide.py'],
    ];
    for (const [path, from, language, name] of samples) {
      await start();
      await finish();
      const [code] = blocks(path, from, language);
      writeFileSync(join(examples, name), code.replaceAll('http://127.0.0.1:8080', stage.url).replaceAll('jg_…', stage.key));
      const running = language === 'js' ? run('node', [...NODE, name]) : run(PYTHON, [name], WITH_KIT);
      assert.equal(await running.ended, 0, `${path}:\n${running.output()}`);
      assert.match(running.output(), /SUCCEEDED/, path);
      await stage.close();
    }
  });
});

/** Waits until this is true. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}
