// Signs in with a wrong key, a right one and a watch token that expires; nothing is stored.
import assert from 'node:assert/strict';

import { ask } from './ask.mjs';

export default async function signIn(browser, { url, key }) {
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
  await page.shows('#who', 'client key');
  // a snippet has a placeholder, never the key
  await page.click('#rows .id');
  await page.clickText('#details', 'curl');
  await page.shows('#details pre', 'Bearer $JOBGATE_KEY');
  const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, document.documentElement.outerHTML]);
  assert.deepEqual(stored.slice(0, 3), [0, 0, '']);
  assert.ok(!stored[3].includes(key), 'the key is in the document');
  await page.click('#sign-out');
  await page.shows('#entry', 'Sign in');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 0, 'jobs after sign-out');

  // a watch token shows its jobs, until it expires
  await enter(await ask('watch token', 6));
  await page.shows('#who', 'watch token of person');
  await page.shows('#rows', 'run');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 1, 'other jobs than those of the token');
  await page.shows('#entry-title', 'Your session has ended');
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 0, 'jobs after the expiry');
  await enter(key);
  await page.shows('#rows', 'broken');
  assert.deepEqual(page.elsewhere, [], 'the page contacts other hosts');
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
}
