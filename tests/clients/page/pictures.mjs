// Makes the pictures of docs/images from a real gateway: each designed state, on a desktop in light and in dark colours and
// on a phone. Usage: node tests/clients/page/pictures.mjs target/debug/jobgate docs/images. Needs Chromium and pngquant.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { start } from './browser.mjs';
import { DEVICES, eachState } from './states.mjs';

const [[, ...DESKTOP], [, ...PHONE]] = DEVICES;
/** The name of a picture, its colours and its size. A phone in the dark has the colours and the layout of the others. */
const LOOKS = [['light', 'light', DESKTOP], ['dark', 'dark', DESKTOP], ['phone', 'light', PHONE]];

const [binary, folder] = process.argv.slice(2);
if (!folder) throw new Error('usage: node tests/clients/page/pictures.mjs BINARY FOLDER');

const ANY_PORT = '127.0.0.1:0';
/** The demo has jobs in each state, and estimates, when it is so old. */
const DEMO_AGE_MS = 120_000;
const LIMIT_MS = 60_000;
/** What all pictures together may take. */
const BYTES_MAX = 2_000_000;
const MIND_TOKEN = 'demo-mindbridge-token';

const processes = [];

/** Starts jobgate, and waits until `find` finds something in its output. */
async function launch(args, env, find) {
  const child = spawn(binary, args, { env: { NO_COLOR: '1', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  processes.push(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  const end = Date.now() + LIMIT_MS;
  for (;;) {
    const found = find(output);
    if (found) return found;
    if (child.exitCode !== null || Date.now() > end) throw new Error(`jobgate ${args[0]}:\n${output}`);
    await sleep(50);
  }
}

const publicUrl = (output) => {
  const [, address] = /public"?[=:]"?(127\.0\.0\.1:\d+)/.exec(output) ?? [];
  return address && `http://${address}/`;
};

/** A gateway without jobs that needs a key. */
async function startClosed(scratch, mindbridge) {
  const printed = execFileSync(binary, ['key', 'new', 'ada'], { encoding: 'utf8' });
  const [key] = /jg_[A-Za-z0-9_-]+/.exec(printed);
  const [, hash] = /"([0-9a-f]{64})"/.exec(printed);
  const config = join(scratch, 'jobgate.yaml');
  writeFileSync(config, JSON.stringify({
    server: { listen: ANY_PORT, admin_listen: ANY_PORT },
    store: { kind: 'memory' },
    sources: { audit: { upstream: 'mindbridge', base_url: mindbridge, credential: { bearer: { env: 'MIND_TOKEN' } } } },
    clients: [{ name: 'ada', key_sha256: hash, sources: ['audit'] }],
  }));
  const closed = await launch(['serve', '--config', config], { MIND_TOKEN }, publicUrl);
  const token = async () => {
    const query = 'mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token } }';
    const refs = [{ external: { source: 'audit', externalId: '65f0c0ffee00000000000004' } }];
    const response = await fetch(`${closed}graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
      body: JSON.stringify({ query, variables: { input: { refs, ttl: '25s' } } }),
    });
    return (await response.json()).data.createWatchToken.token;
  };
  return { closed, key, token };
}

/** In the page: the table has its place, the sources are as wide as they are on a new page, and rows of a result are in view. */
async function settle(isFolded) {
  document.querySelector('#sources').open = !isFolded;
  const [details, rows] = [document.querySelector('#details'), document.querySelector('#details-rows')];
  document.activeElement?.blur();
  for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
  if (rows) details.scrollTop += rows.getBoundingClientRect().top - details.getBoundingClientRect().top - 50;
}

async function main(scratch) {
  const began = Date.now();
  const { url, mindbridge, supermetrics } = await launch(['demo', '--listen', ANY_PORT, '--admin-listen', ANY_PORT], {}, (output) => {
    const of = (name) => new RegExp(`simulated ${name} +(http://[^ ]+)`).exec(output)?.[1];
    const found = { url: publicUrl(output), mindbridge: of('mindbridge'), supermetrics: of('supermetrics') };
    return Object.values(found).every(Boolean) && found;
  });
  const faults = (method, body) => fetch(`${new URL(supermetrics).origin}/_sim/faults`, {
    method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' },
  });
  const world = {
    url,
    ...await startClosed(scratch, mindbridge),
    succeeded: 'marketing/demo_sales_2026',
    failed: 'audit/65f0c0ffee00000000000002',
    running: 'marketing/demo_always_running',
    outage: () => faults('POST', { kind: { answer: { status: 503, body: 'empty' } } }),
    recover: () => faults('DELETE'),
  };
  await sleep(Math.max(0, DEMO_AGE_MS - (Date.now() - began)));
  const browser = await start('chromium');
  try {
    const [width, height] = DESKTOP;
    const open = () => browser.open({ width, height, reducedMotion: 'reduce' });
    await eachState(open, world, async (page, name) => {
      for (const [look, colorScheme, size] of LOOKS) {
        await page.raw.emulateMedia({ colorScheme });
        await page.resize(...size);
        await page.evaluate(settle, look === 'phone' && name !== 'outage');
        const path = join(folder, `state-${name}-${look}.png`);
        await page.screenshot(path);
        execFileSync('pngquant', ['--force', '--skip-if-larger', '--strip', '--output', path, '64', path]);
      }
      await page.raw.emulateMedia({ colorScheme: 'light' });
      await page.resize(width, height);
    });
  } finally {
    await browser.close();
  }
}

const scratch = mkdtempSync(join(tmpdir(), 'jobgate-pictures-'));
try {
  await main(scratch);
} finally {
  for (const child of processes) child.kill();
  rmSync(scratch, { recursive: true, force: true });
}
const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
if (bytes > BYTES_MAX) throw new Error(`the pictures take ${bytes} bytes`);
console.log(`${folder}: ${bytes} bytes`);
