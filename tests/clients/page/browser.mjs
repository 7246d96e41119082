// One way to use a real browser: Chromium by `playwright-core`, Firefox by `puppeteer-core` over WebDriver BiDi. Collects
// what the console reports and which hosts are contacted.
import { setTimeout as sleep } from 'node:timers/promises';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

// only what hangs takes as long: a machine with much to do starts a browser in a minute
const LIMIT = Number(process.env.LIMIT ?? 120_000);
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync', '--enable-precise-memory-info'];

/** Starts `chromium` or `firefox`. `names` are hosts that lead to this machine. */
export async function start(kind, { names = [] } = {}) {
  if (kind === 'firefox') {
    const browser = await puppeteer.launch({
      browser: 'firefox', executablePath: '/usr/bin/firefox-esr', headless: true, timeout: LIMIT,
      // a page with a name is not tried by HTTPS first
      extraPrefsFirefox: { 'network.dns.localDomains': names.join(), 'dom.security.https_first': false },
    });
    const open = async ({ width = 1360, height = 900 } = {}) => {
      const context = await browser.createBrowserContext();
      const page = await context.newPage();
      await page.setViewport({ width, height });
      return new Page(kind, page, () => context.close());
    };
    return { kind, open, close: () => browser.close() };
  }
  const rules = names.map((name) => `MAP ${name} 127.0.0.1`).join();
  const args = rules ? [...FLAGS, `--host-resolver-rules=${rules}`] : FLAGS;
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', timeout: LIMIT, args });
  const open = async ({ width = 1360, height = 900, scheme = 'light', reducedMotion = 'no-preference' } = {}) => {
    const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height }, reducedMotion });
    const page = await context.newPage();
    return new Page(kind, page, () => context.close());
  };
  return { kind, open, close: () => browser.close() };
}

export class Page {
  /** Errors and warnings of the console. */
  console = [];
  /** Requests to other hosts than that of the first page. */
  elsewhere = [];
  #kind;
  #page;
  #close;
  #host = null;

  constructor(kind, page, close) {
    [this.#kind, this.#page, this.#close] = [kind, page, close];
    page.setDefaultTimeout(LIMIT);
    page.on('console', (line) => ['error', 'warning', 'warn'].includes(line.type()) && this.console.push(line.text()));
    page.on('pageerror', (error) => this.console.push(String(error)));
    page.on('request', (request) => {
      const { host, protocol } = new URL(request.url());
      if (protocol !== 'data:' && host !== this.#host) this.elsewhere.push(request.url());
    });
  }

  get raw() {
    return this.#page;
  }

  async goto(url) {
    this.#host ??= new URL(url).host;
    await this.#page.goto(url);
  }

  evaluate(read, argument) {
    return this.#page.evaluate(read, argument);
  }

  /** Waits until `read` returns something true in the page, and returns it: a plain value, not an element. */
  async until(what, read, argument, limit = LIMIT) {
    const end = Date.now() + limit;
    for (;;) {
      // while another page is loaded there is nothing to ask
      const found = await this.evaluate(read, argument).catch(() => null);
      if (found) return found;
      if (Date.now() > end) throw new Error(`not seen: ${what}; the page shows: ${await this.evaluate(() => document.body.innerText)}`);
      await sleep(50);
    }
  }

  /** Waits until the text of an element contains a text. */
  shows(selector, text, limit) {
    return this.until(`"${text}" in ${selector}`, ([of, wanted]) => {
      const node = document.querySelector(of);
      return node && node.checkVisibility() && node.innerText.includes(wanted) && node.innerText;
    }, [selector, text], limit);
  }

  async click(selector) {
    await this.until(`${selector} to click`, (of) => document.querySelector(of)?.checkVisibility(), selector);
    await this.#page.click(selector);
  }

  /** Clicks the button with this text. */
  async clickText(within, text) {
    await this.until(`a button "${text}"`, ([of, wanted]) => [...document.querySelectorAll(`${of} button`)]
      .some((button) => button.innerText.trim().startsWith(wanted) && button.checkVisibility()), [within, text]);
    await this.evaluate(([of, wanted]) => [...document.querySelectorAll(`${of} button`)]
      .find((button) => button.innerText.trim().startsWith(wanted) && button.checkVisibility()).click(), [within, text]);
  }

  async fill(selector, text) {
    await this.click(selector);
    if (this.#kind === 'firefox') await this.#page.locator(selector).fill(text);
    else await this.#page.fill(selector, text);
  }

  async choose(selector, value) {
    if (this.#kind === 'firefox') await this.#page.select(selector, value);
    else await this.#page.selectOption(selector, value);
  }

  press(key) {
    return this.#page.keyboard.press(key);
  }

  async resize(width, height) {
    if (this.#kind === 'firefox') await this.#page.setViewport({ width, height });
    else await this.#page.setViewportSize({ width, height });
  }

  async screenshot(path) {
    await this.#page.screenshot({ path });
  }

  /** What axe finds, a line each. */
  async violations() {
    const { violations } = await new AxeBuilder({ page: this.#page }).analyze();
    return violations.flatMap(({ id, nodes }) => nodes.map(({ html, any }) => `${id}: ${html.slice(0, 200)} ${any[0]?.message ?? ''}`));
  }

  close() {
    return this.#close();
  }
}
