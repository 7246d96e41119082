// An outage of an upstream shows on each of its running rows, and on no other; it goes when the outage is over.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';

const WITHIN_MS = 10_000;

/** Whether exactly these rows are marked stale. */
const areStale = (wanted) => [...document.querySelectorAll('#rows .row')].filter((row) => row.classList.contains('stale'))
  .map((row) => row.querySelector('.id').textContent).sort().join() === [...wanted].sort().join();

export default async function outage(browser, { url, affected }) {
  // so high that each row is in view
  const page = await browser.open({ height: 2400 });
  await page.goto(url);
  await page.shows('#rows', affected[0]);
  await page.until('only current rows', () => !document.querySelector('#rows .row.stale'));
  await ask('outage');
  const began = Date.now();
  await page.until(`stale: ${affected}`, areStale, affected, WITHIN_MS);
  const shown = Date.now() - began;
  await page.shows('#source-cards', 'unavailable');
  await ask('recover');
  const over = Date.now();
  await page.until('no stale row', areStale, []);
  const gone = Date.now() - over;
  await page.shows('#source-cards', 'healthy');
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
  return { shown, gone };
}
