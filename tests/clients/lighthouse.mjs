// Has Lighthouse audit pages in Chromium, as on a phone and as on a desktop. Usage: node lighthouse.mjs URL…
// Prints a line of JSON for each audit: the page, the form, the score of each category, what costs points, and which parts
// applied to the page.
import lighthouse, { desktopConfig } from 'lighthouse';
import puppeteer from 'puppeteer-core';

const LIMIT_MS = 120_000;
const CATEGORIES = ['accessibility', 'best-practices'];

const browser = await puppeteer.launch({
  executablePath: '/usr/bin/chromium', headless: true, timeout: LIMIT_MS,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
try {
  const port = Number(new URL(browser.wsEndpoint()).port);
  // the speed of this machine is not what is measured
  const flags = { port, onlyCategories: CATEGORIES, logLevel: 'error', throttlingMethod: 'provided', disableFullPageScreenshot: true };
  for (const url of process.argv.slice(2)) {
    for (const [form, config] of [['phone', undefined], ['desktop', desktopConfig]]) {
      const { lhr } = await lighthouse(url, flags, config);
      if (lhr.runtimeError) throw new Error(`${url}, ${form}: ${lhr.runtimeError.message}`);
      const scores = Object.fromEntries(CATEGORIES.map((name) => [name, Math.round(lhr.categories[name].score * 100)]));
      const lost = CATEGORIES.flatMap((name) => lhr.categories[name].auditRefs)
        .filter(({ id, weight }) => weight > 0 && lhr.audits[id].score !== null && lhr.audits[id].score < 1)
        .map(({ id }) => `${id}: ${lhr.audits[id].title} ${JSON.stringify(lhr.audits[id].details?.items?.slice(0, 3) ?? [])}`);
      const applied = Object.values(lhr.audits).filter(({ score }) => score !== null).map(({ id }) => id);
      console.log(JSON.stringify({ url, form, scores, lost, applied, ms: Math.round(lhr.timing.total) }));
    }
  }
} finally {
  await browser.close();
}
