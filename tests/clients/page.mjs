// Opens the live page in a real Chromium and prints one JSON object about what a person would have seen.
// Usage: node page.mjs URL JOB [KEY]. With a key the page must ask for one first, and refuse a wrong one.
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const [url, job, key] = process.argv.slice(2);
// only what hangs takes as long: a machine with much to do starts a browser in a minute
const TIMEOUT = 180_000;
const LIMIT = { timeout: TIMEOUT };
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  timeout: TIMEOUT,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ colorScheme: process.env.SCHEME ?? 'light' });
context.setDefaultTimeout(TIMEOUT);
const page = await context.newPage();
const seen = { console: [], elsewhere: [], violations: [] };
// the browser itself says that a socket was closed with 4401, and that is what is being tried
page.on('console', (line) => ['error', 'warning'].includes(line.type()) && seen.console.push(line.text()));
page.on('pageerror', (error) => seen.console.push(String(error)));
page.on('request', (request) => new URL(request.url()).host !== new URL(url).host
  && !request.url().startsWith('data:') && seen.elsewhere.push(request.url()));

async function judge() {
  const { violations } = await new AxeBuilder({ page }).analyze();
  seen.violations.push(...violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`));
}

await page.goto(url);
if (key) {
  await page.locator('#entry').waitFor(LIMIT);
  await judge();
  await page.locator('#token').fill('jg_wrong');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByText('Unknown, expired or revoked').waitFor(LIMIT);
  seen.deskWithoutKey = await page.locator('#desk').isVisible();
  await page.locator('#token').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
}
await page.locator('#connection[data-state=live]').waitFor(LIMIT);
await page.locator('#reference').fill(job);
await page.getByRole('button', { name: 'Watch' }).click();
const row = page.locator('#jobs tr', { hasText: job.split('/')[1] });
await row.waitFor(LIMIT);
seen.atStart = await page.locator('#error-message').innerText();
seen.before = await row.locator('.state').innerText();
console.log(JSON.stringify({ before: seen.before }));
// whoever started this now lets the job end
await row.locator('.state', { hasText: 'succeeded' }).waitFor(LIMIT);
seen.after = await row.locator('.state').innerText();
await page.locator('#sources li').first().waitFor(LIMIT);
seen.sources = await page.locator('#sources li').allInnerTexts();
await page.locator('#show').selectOption('open');
seen.hiddenByFilter = await row.isHidden();
await page.locator('#show').selectOption('all');
await page.locator('#reference').fill('nonsense');
await page.getByRole('button', { name: 'Watch' }).click();
seen.errorMessage = await page.locator('#error-message').innerText();
await judge();
if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
await browser.close();
console.log(JSON.stringify(seen));
