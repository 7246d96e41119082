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
  // it lives: the part that is done next appears by itself
  const done = () => page.evaluate(() => document.querySelector('#rows .row:has([title="demo_always_running"]) .bar')?.innerText ?? '');
  await page.until('the job that is always running', () => document.querySelector('#rows .row[data-state="RUNNING"] [title="demo_always_running"]'));
  const before = await done();
  await page.until('progress', (old) => {
    const bar = document.querySelector('#rows .row:has([title="demo_always_running"]) .bar');
    return bar && bar.innerText !== old;
  }, before);
  assert.ok(shown < PROMISED_MS, `${shown} ms to the first live job`);
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
  return { started, shown };
}
