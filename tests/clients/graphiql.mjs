// Opens GraphiQL in a real Chromium, runs the query and the subscription of an example, and prints one JSON object about what a person
// would have seen. Usage: node graphiql.mjs URL [KEY]. With a key, a person types it into the headers first.
import { chromium } from 'playwright-core';

const [url, key] = process.argv.slice(2);
// only what hangs takes as long: a machine with much to do starts a browser in a minute
const TIMEOUT = 180_000;
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  timeout: TIMEOUT,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
});
const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, colorScheme: process.env.SCHEME ?? 'light' });
context.setDefaultTimeout(TIMEOUT);
const page = await context.newPage();
const seen = { console: [], elsewhere: [], sockets: [] };
page.on('console', (line) => ['error', 'warning'].includes(line.type()) && seen.console.push(line.text()));
page.on('pageerror', (error) => seen.console.push(String(error)));
page.on('request', (request) => new URL(request.url()).host !== new URL(url).host
  && !request.url().startsWith('data:') && seen.elsewhere.push(request.url()));
page.on('websocket', (socket) => seen.sockets.push(new URL(socket.url()).pathname));

const result = page.locator('.graphiql-response');
// the editor draws only lines that are in view, with spaces of its own
const shown = async () => (await result.innerText()).replaceAll('\u00a0', ' ');
async function until(what, condition) {
  const end = Date.now() + TIMEOUT;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${what}: ${await shown()}`);
    await page.waitForTimeout(100);
  }
}
async function run(operation) {
  await page.getByRole('button', { name: /execute query/i }).click();
  await page.getByRole('menuitem', { name: operation }).click();
}

await page.goto(url);
await page.locator('.graphiql-tab').first().waitFor();
seen.tabs = await page.locator('.graphiql-tab-button').allInnerTexts();
if (key) {
  await page.getByRole('button', { name: 'Headers' }).click();
  await page.locator('[data-type=header], .graphiql-editor-tool .graphiql-editor:not(.hidden)').last().click();
  await page.keyboard.insertText(JSON.stringify({ authorization: `Bearer ${key}` }));
}
// the documentation is of the schema, so introspection was answered
await page.getByRole('button', { name: /show documentation explorer/i }).click();
if (key) await page.getByRole('button', { name: /re-fetch graphql schema/i }).click();
await page.locator('.graphiql-doc-explorer', { hasText: 'subscription' }).waitFor();

await run('MindBridgeJob');
await until('the answer to a query', async () => (await shown()).includes('"externalId"'));
seen.query = await shown();
await run('MindBridgeUpdates');
await until('an update', async () => (await shown()).includes('"kind"'));
seen.first = await shown();
await until('the last update', async () => (await shown()).includes('"isFinal": true'));
seen.last = await shown();
if (process.env.PICTURE) await page.screenshot({ path: process.env.PICTURE });
seen.stored = await page.evaluate(() => [localStorage.length, JSON.stringify({ ...sessionStorage })]);
seen.keyStored = key ? seen.stored[1].includes(key) : false;
seen.stored = seen.stored[0];
console.log(JSON.stringify(seen));
await browser.close();
