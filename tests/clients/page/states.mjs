// The designed states of the page, and how each is reached. `looks.mjs` examines them, `pictures.mjs` saves them.

/** Desktop and phone: name, width, height. */
export const DEVICES = [['desktop', 1360, 860], ['phone', 390, 844]];

/**
 * Shows each state, and calls `see(page, name)`. `open()` makes a page. The world:
 * `url` a gateway with jobs that needs no key, `closed` one without jobs that needs `key`; `succeeded`, `failed` and
 * `running` references of jobs at the first; `token()` makes a watch token of the second that expires soon; `outage()`
 * and `recover()` end and restore the upstream of the running job.
 */
export async function eachState(open, world, see) {
  await withJobs(await open(), world, see);
  await withOutage(await open(), world, see);
  await withoutConnection(await open(), world, see);
  await withSignIn(await open(), world, see);
}

const idOf = (reference) => reference.slice(reference.indexOf('/') + 1);
const sourceOf = (reference) => reference.slice(0, reference.indexOf('/'));

async function withJobs(page, { url, succeeded, failed, running }, see) {
  await page.goto(url);
  await page.until('jobs', () => document.querySelectorAll('#rows .row').length > 3);
  await page.until('counts', () => document.querySelector('#states .amount').textContent);
  await page.shows('#count', 'jobs');
  await see(page, 'jobs');
  await page.goto(`${url}?job=${running}`);
  await page.shows('#details', 'last read');
  await page.shows('#details', 'Running');
  await see(page, 'running');
  await page.goto(`${url}?job=${succeeded}`);
  await page.shows('#details', 'Supermetrics fields');
  await page.clickText('#details', 'Show the first 10 rows');
  await page.until('rows', () => Boolean(document.querySelector('#details-rows')));
  await page.clickText('#details', 'curl');
  await see(page, 'succeeded');
  await page.goto(`${url}?state=failed&job=${failed}`);
  await page.shows('#details', 'MindBridge fields');
  await see(page, 'failed');
  await page.goto(`${url}?q=${sourceOf(failed)}/nothing`);
  await page.shows('#no-match', `Look up ${sourceOf(failed)}/nothing`);
  await see(page, 'no-match');
  await page.close();
}

async function withOutage(page, { url, running, outage, recover }, see) {
  // the jobs of the other source stay as they are
  await page.goto(`${url}?state=queued,running`);
  await page.shows('#rows', idOf(running));
  await outage();
  // on a phone the sources are folded
  await page.evaluate(() => { document.querySelector('#sources').open = true; });
  await page.shows('#source-cards', 'unavailable');
  await page.until('a stale row', () => document.querySelector('#rows .row.stale'));
  await see(page, 'outage');
  await recover();
  await page.shows('#source-cards', 'healthy');
  await page.close();
}

async function withoutConnection(page, { url }, see) {
  let mode = 'silent';
  const live = [];
  await page.raw.routeWebSocket(/graphql/, (socket) => {
    if (mode === 'dead') socket.close({ code: 1012 });
    if (mode === 'live') live.push(socket.connectToServer());
    if (mode === 'live') live.push(socket);
  });
  await page.goto(url);
  await page.until('a table that is loading', () => document.querySelector('#skeleton').checkVisibility());
  await see(page, 'loading');
  mode = 'live';
  await page.goto(url);
  await page.until('jobs', () => document.querySelectorAll('#rows .row').length > 3);
  mode = 'dead';
  for (const socket of live) await socket.close({ code: 1012 });
  await page.shows('#dead', 'Next attempt in');
  await page.until('a dimmed table', () => Number(getComputedStyle(document.querySelector('#desk')).opacity) < 1);
  await see(page, 'dead');
  mode = 'live';
  // the page may be faster
  await page.evaluate(() => document.querySelector('#retry').click());
  await page.until('live', () => document.body.dataset.connection === 'live');
  await page.close();
}

async function withSignIn(page, { closed, key, token }, see) {
  const enter = async (credential) => {
    await page.fill('#token', credential);
    await page.press('Enter');
  };
  await page.goto(closed);
  await page.shows('#entry', 'Sign in');
  await see(page, 'sign-in');
  await enter('jg_wrong');
  await page.shows('#entry-reason', 'does not accept');
  await see(page, 'wrong-key');
  await enter(key);
  await page.shows('#empty', 'No jobs yet');
  await see(page, 'empty');
  await page.click('#sign-out');
  await enter(await token());
  await page.shows('#entry-title', 'Your session has ended');
  await see(page, 'expired');
  await page.close();
}
