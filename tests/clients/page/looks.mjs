// Every designed state of the page, light and dark, wide and on a phone: axe finds nothing, no text is cut by the page's edge.
// With `pictures` in the options, a folder, each state is also saved as a picture.
import assert from 'node:assert/strict';
import { join } from 'node:path';

import { ask } from './ask.mjs';

export default async function looks(browser, { url, closed, key, pictures }) {
  const found = [];
  for (const scheme of ['light', 'dark']) {
    for (const [device, width, height] of [['desktop', 1360, 860], ['phone', 390, 844]]) {
      // a phone in the dark has the colours and the layout of the others
      if (scheme === 'dark' && device === 'phone' && !pictures) continue;
      const look = async (page, name) => {
        const where = `${name}, ${scheme}, ${device}`;
        if (pictures) await page.screenshot(join(pictures, `${name}-${scheme}-${device}.png`));
        found.push(...(await page.violations()).map((line) => `${where}: ${line}`));
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        if (wide > 0) found.push(`${where}: the page is ${wide} pixels wider than the screen`);
      };
      const open = () => browser.open({ scheme, width, height, reducedMotion: 'reduce' });
      await withJobs(await open(), url, look);
      await withoutConnection(await open(), url, look);
      await withSignIn(await open(), closed, key, look);
    }
  }
  assert.deepEqual(found, []);
}

async function withJobs(page, url, look) {
  await page.goto(url);
  await page.shows('#rows', 'sales');
  await page.shows('#count', 'jobs');
  await look(page, 'jobs');
  await page.goto(`${url}?job=metrics/sales`);
  await page.shows('#details', 'Supermetrics fields');
  await page.clickText('#details', 'Show the first 10 rows');
  await page.until('rows', () => Boolean(document.querySelector('#details-rows')));
  await page.clickText('#details', 'curl');
  await look(page, 'details');
  await page.goto(`${url}?job=mind/broken`);
  await page.shows('#details', 'MindBridge fields');
  await look(page, 'failed');
  await page.goto(`${url}?q=mind/nothing`);
  await page.shows('#no-match', 'Look up mind/nothing');
  await look(page, 'no-match');
  await page.close();
}

async function withoutConnection(page, url, look) {
  let mode = 'silent';
  const live = [];
  await page.raw.routeWebSocket(/graphql/, (socket) => {
    if (mode === 'dead') socket.close({ code: 1012 });
    if (mode === 'live') live.push(socket.connectToServer());
    if (mode === 'live') live.push(socket);
  });
  await page.goto(url);
  await page.until('a table that is loading', () => document.querySelector('#skeleton').checkVisibility());
  await look(page, 'loading');
  mode = 'live';
  await page.goto(url);
  await page.shows('#rows', 'sales');
  mode = 'dead';
  for (const socket of live) await socket.close({ code: 1012 });
  await page.shows('#dead', 'Next attempt in');
  await look(page, 'dead');
  mode = 'live';
  // the page may be faster
  await page.evaluate(() => document.querySelector('#retry').click());
  await page.until('live', () => document.body.dataset.connection === 'live');
  await page.close();
}

async function withSignIn(page, url, key, look) {
  const enter = async (token) => {
    await page.fill('#token', token);
    await page.press('Enter');
  };
  await page.goto(url);
  await page.shows('#entry', 'Sign in');
  await look(page, 'sign-in');
  await enter('jg_wrong');
  await page.shows('#entry-reason', 'does not accept');
  await look(page, 'wrong-key');
  await enter(key);
  await page.shows('#empty', 'No jobs yet');
  await look(page, 'empty');
  await page.click('#sign-out');
  await enter(await ask('watch token', 8));
  await page.shows('#entry-title', 'Your session has ended');
  await look(page, 'expired');
  await page.close();
}
