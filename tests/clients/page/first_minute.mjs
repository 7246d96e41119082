// From the start of `jobgate demo` to the first live job on the screen of a person whose browser is open.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';

/** What README promises. */
const PROMISED_MS = 60_000;

export default async function firstMinute(browser) {
  const page = await browser.open();
  const began = Date.now();
  const url = await ask('start');
  const started = Date.now() - began;
  await page.goto(url);
  await page.until('a running job, live', () => document.body.dataset.connection === 'live'
    && document.querySelector('#rows .row[data-state="RUNNING"]:not(.stale)')?.checkVisibility());
  const shown = Date.now() - began;
  // it lives: a job that starts or ends appears by itself
  const before = await page.evaluate(() => [...document.querySelectorAll('#rows .row')].map((row) => row.dataset.state).join());
  await page.until('another state', (old) => [...document.querySelectorAll('#rows .row')].map((row) => row.dataset.state).join() !== old, before);
  assert.ok(shown < PROMISED_MS, `${shown} ms to the first live job`);
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
  return { started, shown };
}
