// Thousands of jobs: reads all of them, scrolls through them, and measures the frames and the memory of the page.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';

export default async function many(browser, { url, jobs }) {
  const page = await browser.open();
  await page.goto(url);
  await page.shows('#count', 'shown');
  const began = Date.now();
  await page.until('all jobs', (all) => {
    scrollTo(0, document.documentElement.scrollHeight);
    return Number(document.querySelector('#rows').style.height.replace('px', '')) >= all * 57;
  }, jobs);
  const read = Date.now() - began;
  const changing = ask('change');
  const { frames, elements } = await page.evaluate(async () => {
    const times = [];
    let last = performance.now();
    const height = document.documentElement.scrollHeight - innerHeight;
    for (let step = 0; step < 240; step += 1) {
      // by the turn of a wheel, and from time to time to anywhere
      scrollTo(0, step % 40 === 0 ? (height * step) / 240 : scrollY + 120);
      await new Promise(requestAnimationFrame);
      const now = performance.now();
      times.push(now - last);
      last = now;
    }
    return { frames: times.sort((one, other) => one - other), elements: document.querySelectorAll('#rows .row').length };
  });
  await changing;
  const at = (share) => Math.round(frames[Math.floor((frames.length - 1) * share)] * 10) / 10;
  const memory = await page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
  const result = {
    jobs, read, elements, frames: { median: at(0.5), p95: at(0.95), longest: at(1) }, heapMiB: Math.round(memory / 2 ** 20),
  };
  assert.ok(elements < 60, `${elements} rows are elements`);
  // far more than a browser needs, on a machine that does much else: all rows as elements take seconds
  assert.ok(at(0.5) < 200, `slow frames: ${JSON.stringify(result)}`);
  // the filter answers from the gateway, also for a job that is far down
  await page.fill('#search', `m${jobs - 1}`);
  await page.until('the last job alone', (id) => document.querySelector('#rows').innerText.includes(id)
    && document.querySelectorAll('#rows .row').length === 1, `m${jobs - 1}`);
  await page.close();
  return result;
}
