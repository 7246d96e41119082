// Signs in at an issuer, which redirects at once, and comes back to the same view. The storage is empty afterwards.
import assert from 'node:assert/strict';

export default async function login(browser, { url, issuer }) {
  const page = await browser.open();
  await page.goto(`${url}?state=running&source=mind`);
  await page.shows('#logins', `Sign in with ${new URL(issuer).host}`);
  await page.clickText('#logins', 'Sign in with');
  await page.shows('#rows', 'run');
  const who = await page.shows('#who', 'you are Ada Auditor');
  assert.ok(who.includes(`at ${issuer} · expires in`), who);
  assert.equal(await page.evaluate(() => location.search), '?state=running&source=mind');
  // the token grants one source: the jobs of the other are not there
  assert.equal(await page.evaluate(() => document.querySelectorAll('#rows .row').length), 1);
  assert.deepEqual(await page.evaluate(() => [sessionStorage.length, localStorage.length, document.cookie]), [0, 0, '']);
  const others = page.elsewhere.filter((address) => !address.startsWith(`${issuer}/`));
  assert.deepEqual(others, [], 'the page contacts other hosts than the issuer');

  // an answer that belongs to no sign-in of this tab is not used
  await page.goto(`${url}?code=stolen&state=forged`);
  await page.shows('#entry-reason', 'does not belong');
  assert.equal(await page.evaluate(() => location.search), '');
  assert.deepEqual(page.console, [], 'the browser reports errors');
  await page.close();
}
