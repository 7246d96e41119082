// Signs in with a wrong key, a right one and a watch token that expires; nothing is stored.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';

export default async function signIn(browser, { url, key, runsKey }) {
  const page = await browser.open();
  await page.goto(url);
  await page.shows('#entry', 'Sign in');
  const enter = async (token) => {
    await page.fill('#token', token);
    await page.press('Enter');
  };
  await enter('jg_wrong');
  await page.shows('#entry-reason', 'does not accept');
  assert.equal(await page.evaluate(() => document.querySelector('#desk').checkVisibility()), false, 'jobs without a key');
  await enter(key);
  await page.shows('#rows', 'run');
  await page.shows('#who', 'you are person client key');
  // a snippet has a placeholder, never the key
  await page.click('#rows .id');
  await page.shows('#details', 'all jobs of m');
  await page.clickText('#details', 'curl');
  await page.shows('#details pre', 'Bearer $JOBGATE_KEY');
  const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, document.documentElement.outerHTML]);
  assert.deepEqual(stored.slice(0, 3), [0, 0, '']);
  assert.ok(!stored[3].includes(key), 'the key is in the document');
  await page.click('#sign-out');
  await page.shows('#entry', 'Sign in');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 0, 'jobs after sign-out');

  // a watch token shows its jobs
  await enter(await ask('watch token', 600));
  await page.shows('#who', 'you hold a watch token of person 1 job · expires in');
  await page.shows('#rows', 'run');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 1, 'other jobs than those of the token');
  await page.click('#rows .id');
  await page.shows('#details', 'watch token for 1 job of mind');
  await page.click('#sign-out');
  await page.shows('#entry', 'Sign in');

  // a session ends with its token; nothing is asserted before, since a slow machine may take as long
  await page.goto(`${url}?job=mind/run`);
  await page.shows('#entry', 'Sign in');
  await enter(await ask('watch token', 15));
  await page.shows('#entry-title', 'Your session has ended');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 0, 'jobs after the expiry');

  // the next one continues where it was, with the grant of another client
  await enter(runsKey);
  await page.shows('#who', 'you are runs client key');
  await page.shows('#details', 'jobs of mind of kind ANALYSIS_RUN');
  await page.click('#sign-out');
  await enter(key);
  await page.shows('#rows', 'broken');
  assert.deepEqual(page.elsewhere, [], 'the page contacts other hosts');
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
}
