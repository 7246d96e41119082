// Uses every part of the page as a person does: a job runs to its end, filters, order, links, details, rows, keyboard.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';

import { ask } from './ask.mjs';

/** Longer than the page leaves the rows in view unread. */
const OUTDATED_MS = 8000;

/** The external IDs in the table, from the top. */
const ids = (page) => page.evaluate(() => [...document.querySelectorAll('#rows .row')]
  .sort((one, other) => one.getAttribute('aria-rowindex') - other.getAttribute('aria-rowindex'))
  .map((row) => row.querySelector('.id').textContent));
/** Waits for a URL: a browser types letter by letter, and the page follows a moment later. */
const isAt = (page, wanted) => page.until(`the URL ${wanted}`, (query) => location.search === query, wanted);
const showsOnly = (page, wanted) => page.until(`only ${wanted}`, (list) => {
  const shown = [...document.querySelectorAll('#rows .row .id')].map((node) => node.textContent).sort();
  return document.querySelector('#table').getAttribute('aria-busy') === 'false' && shown.join() === [...list].sort().join();
}, wanted);
const row = (id) => `#rows .row:has([title="${id}"])`;

/** Reads the order of the gateway itself. */
const order = (page, orderBy, filter = {}) => page.evaluate(async ([by, only]) => {
  const query = 'query($by: JobOrder, $only: JobFilter) { jobList(first: 100, orderBy: $by, filter: $only) { nodes { externalId } } }';
  const response = await fetch('/graphql', {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables: { by, only } }),
  });
  return (await response.json()).data.jobList.nodes.map(({ externalId }) => externalId);
}, [orderBy, filter]);

export default async function tour(browser, { url }) {
  const page = await browser.open();
  const all = ['run', 'broken', 'sales', 'growing'];
  await page.goto(url);
  await showsOnly(page, all);
  assert.equal(await page.evaluate(() => document.querySelector('#connection-word').textContent), 'live');
  await page.shows('#who', 'open access');

  // a job runs to its end in view, and its row keeps its place
  await page.shows(row('run'), 'Running');
  const before = await ids(page);
  await ask('complete', 'run');
  await page.shows(row('run'), 'Succeeded');
  assert.deepEqual(await ids(page), before, 'rows move while they are read');
  await page.shows(row('growing'), '3 / 8');
  await page.shows(row('broken'), 'column 7 is not a date');

  // filters run at the gateway and stand in the URL
  await page.clickText('#states', 'Failed');
  await showsOnly(page, ['broken']);
  await isAt(page, '?state=failed');
  await page.shows('#count', '1 job');
  await page.goto(`${url}?state=failed`);
  await showsOnly(page, ['broken']);
  await page.clickText('#filters', 'Clear filters');
  await showsOnly(page, all);
  await page.fill('#search', 'is not a DATE');
  await showsOnly(page, ['broken']);
  await isAt(page, '?q=is+not+a+DATE');
  await page.fill('#search', 'nothing like this');
  await page.shows('#no-match', 'No job matches');
  await page.clickText('#no-match', 'Clear filters');
  await page.choose('#source', 'metrics');
  await showsOnly(page, ['sales', 'growing']);
  await page.fill('#label', 'team=blue');
  await page.press('Tab');
  await showsOnly(page, ['sales']);
  await isAt(page, '?source=metrics&label=team=blue');
  await page.evaluate(() => history.back());
  await showsOnly(page, ['sales', 'growing']);
  await page.clickText('#filters', 'Clear filters');
  await page.choose('#kind', 'ANALYSIS_RUN');
  await showsOnly(page, ['run']);
  await page.clickText('#filters', 'Clear filters');
  await showsOnly(page, all);

  // the order is the gateway's
  for (const [head, by, link] of [
    ['[data-sort="created"]', { field: 'CREATED_AT', direction: 'DESC' }, '?sort=created'],
    ['[data-sort="created"]', { field: 'CREATED_AT', direction: 'ASC' }, '?sort=created.asc'],
    ['[data-sort="state"]', { field: 'STATE', direction: 'DESC' }, '?sort=state'],
    ['[data-sort="updated"]', { field: 'UPDATED_AT', direction: 'DESC' }, ''],
  ]) {
    const left = await page.evaluate((of) => {
      document.querySelector(`${of} button`).click();
      const isBusy = document.querySelector('#table').getAttribute('aria-busy') === 'true';
      return isBusy ? document.querySelectorAll('#rows .row').length : 'not busy';
    }, head);
    assert.equal(left, 0, 'rows of the earlier order are left');
    await isAt(page, link);
    await showsOnly(page, all);
    assert.deepEqual(await ids(page), await order(page, by), link);
    const sorted = await page.evaluate((of) => document.querySelector(of).getAttribute('aria-sort'), head);
    assert.equal(sorted, by.direction === 'ASC' ? 'ascending' : 'descending');
  }

  await details(page, url);
  await keyboard(page, url);

  assert.deepEqual(page.console, [], 'the browser reports errors');
  assert.deepEqual(page.elsewhere, [], 'the page contacts other hosts');
  await page.close();
}

/** The details have a link of their own, and show what the upstream reported. */
async function details(page, url) {
  await page.click(`${row('sales')} .id`);
  await page.shows('#details-title', 'sales');
  await isAt(page, '?job=metrics/sales');
  for (const text of ['Supermetrics fields', 'SUCCESS', 'Succeeded', 'Timeline', 'team=blue', 'every job of every source', '2026-01-01 to 2026-03-31']) {
    await page.shows('#details', text);
  }
  await page.clickText('#details', 'Show the first 10 rows');
  await page.shows('#details-rows', 'Campaign');
  const rows = await page.evaluate(() => document.querySelectorAll('#details-rows tbody tr').length);
  assert.equal(rows, 10);
  await page.clickText('#details', 'curl');
  const curl = await page.shows('#details pre', '"externalId":"sales"');
  assert.ok(!curl.includes('authorization'), curl);
  await page.clickText('#details', 'GraphQL');
  await page.shows('#details pre', 'job(ref: { external: { source: "metrics", externalId: "sales" } })');
  await page.goto(`${url}?job=mind/broken`);
  await page.shows('#details', 'MindBridge fields');
  await page.shows('#details', 'INGESTION_FAILED');
  // of a job that is read again and has not changed, the details know what the table knows
  await page.goto(`${url}?job=metrics/growing`);
  await page.shows('#details', 'last read');
  await sleep(OUTDATED_MS);
  await page.until('the details and the row say when the job was read', (of) => {
    const [shown] = document.querySelector('[data-moment="seen"]').textContent.split(', ');
    return shown === document.querySelector(`${of} .updated .value`).textContent;
  }, row('growing'), 4000);
  await page.goto(`${url}?job=mind/none`);
  await page.shows('#details .notice', 'job');
  await page.click('#details-close');
  await isAt(page, '');
}

/** Everything is reached without a mouse. */
async function keyboard(page, url) {
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.tagName);
  await page.goto(url);
  await showsOnly(page, ['run', 'broken', 'sales', 'growing']);
  await page.press('/');
  assert.equal(await focus(), 'search');
  const passed = [];
  for (let step = 0; step < 30 && await focus() !== 'table'; step += 1) {
    await page.press('Tab');
    passed.push(await focus());
  }
  assert.equal(await focus(), 'table', `the focus passed ${passed}`);
  for (const control of ['source', 'kind', 'label', 'reload']) assert.ok(passed.includes(control), `${control} in ${passed}`);
  const active = () => page.evaluate(() => document.getElementById(document.querySelector('#table').getAttribute('aria-activedescendant'))?.querySelector('.id').textContent);
  const list = await ids(page);
  assert.equal(await active(), list[0]);
  await page.press('ArrowDown');
  assert.equal(await active(), list[1]);
  await page.press('End');
  assert.equal(await active(), list.at(-1));
  await page.press('Enter');
  await page.shows('#details-title', list.at(-1));
  assert.equal(await focus(), 'details-title');
  await page.press('Escape');
  assert.equal(await focus(), 'table');
}
