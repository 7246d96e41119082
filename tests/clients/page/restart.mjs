// Leaves the page open while its gateway is killed and away for a while. Every row is compared with the gateway's answer.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { ask } from './ask.mjs';

/** How long after its return the gateway's answers are expected. */
const SOON_MS = 3000;

/** All rows, by scrolling through the table: external ID, word of the state, whether it is marked stale. */
const rows = (page) => page.evaluate(async () => {
  const found = new Map();
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  for (let top = 0; ; top += innerHeight - 300) {
    scrollTo(0, top);
    await frame();
    for (const row of document.querySelectorAll('#rows .row')) {
      const stale = row.classList.contains('stale');
      const why = row.querySelector('.updated').innerText;
      found.set(row.querySelector('.id').textContent, { state: row.dataset.state, stale, why });
    }
    if (top > document.documentElement.scrollHeight) break;
  }
  scrollTo(0, 0);
  return [...found].map(([id, row]) => ({ id, ...row }));
});

export default async function restart(browser, { url, jobs, away }) {
  // a tall window: few steps show all rows
  const page = await browser.open({ height: 4000 });
  await page.goto(url);
  await page.until('all jobs', (all) => document.querySelector('#count').textContent.includes(String(all)), jobs);
  // every page of the list has to be read before the gateway dies
  await page.until('all rows', async (all) => {
    scrollTo(0, document.documentElement.scrollHeight);
    return document.querySelector('#count').textContent === `${all} jobs`;
  }, jobs);
  // the gateway has to read each job once before all are current
  const isWrong = ({ state, stale }) => state !== 'RUNNING' || stale;
  let before = await rows(page);
  for (let tries = 0; tries < 30 && before.some(isWrong); tries += 1) {
    await sleep(1000);
    before = await rows(page);
  }
  assert.equal(before.length, jobs);
  assert.deepEqual(before.filter(isWrong), [], 'rows that are not current and running');

  await ask('kill');
  await page.shows('#dead', 'does not answer');
  await page.shows('#dead', 'Next attempt in');
  await sleep(away);
  const dead = await rows(page);
  assert.ok(dead.every(({ stale }) => stale), 'a row is not marked while the gateway is away');

  // a third of the jobs ended meanwhile
  await ask('start');
  const back = Date.now();
  await page.until('live', () => document.body.dataset.connection === 'live', null, SOON_MS);
  const live = Date.now() - back;
  await sleep(Math.max(0, SOON_MS - (Date.now() - back)));
  // reading all rows takes a moment, in which the gateway reads on: a row is as the gateway answered before or after it
  let earlier = {};
  let shown = [];
  let later = {};
  for (let tries = 0; tries < 5 && shown.length < jobs; tries += 1) {
    // again if the order changed while the rows passed
    earlier = await ask('answers');
    shown = await rows(page);
    later = await ask('answers');
  }
  assert.equal(shown.length, jobs);
  const wrong = shown.filter(({ id, state }) => state !== earlier[id].state && state !== later[id].state);
  assert.deepEqual(wrong, [], 'rows that the gateway does not answer');
  const unmarked = shown.filter(({ id, state, stale }) => !stale && state !== later[id].final);
  assert.deepEqual(unmarked, [], 'rows that were not read again and are not marked');
  const marked = shown.filter(({ stale }) => stale).length;

  await page.until('no stale row', () => !document.querySelector('#rows .row.stale'));
  let current = [];
  do {
    current = await rows(page);
    await sleep(200);
  } while (current.some(({ stale }) => stale) && Date.now() - back < 120_000);
  const settled = Date.now() - back;
  const finals = await ask('answers');
  assert.deepEqual(current.filter(({ id, state, stale }) => stale || finals[id].final !== state), [], 'rows that are not current at last');
  assert.deepEqual(page.elsewhere, [], 'the page contacts other hosts');
  await page.close();
  return { live, marked, settled };
}
