// A headless Chromium in which the names of pages lead to this machine.
import { chromium } from 'playwright-core';

/** Only what hangs takes as long: a machine with much to do starts a browser in a minute. */
const TIMEOUT = Number(process.env.KITS_TIMEOUT_MS ?? 180_000);

export async function launch() {
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    timeout: TIMEOUT,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP *.example 127.0.0.1'],
  });
  return browser;
}

/** A new page at this address, and what it has written to the console. */
export async function open(browser, url) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(TIMEOUT);
  const log = [];
  page.on('console', (line) => ['error', 'warning'].includes(line.type()) && log.push(line.text()));
  page.on('pageerror', (error) => log.push(String(error)));
  await page.goto(url);
  return { page, log };
}
