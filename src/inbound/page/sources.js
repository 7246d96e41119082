// The panel of the sources: health with its reason, credential, budget, pause, sweep.

import { now } from './clock.js';
import { $, chip, element, setText } from './dom.js';
import { HEALTH, UPSTREAMS, ago, clock, count, duration, full, look, number, roughly, words } from './format.js';

/** More sources than this are folded at first. */
const OPEN_MAX = 6;
const SOON_MS = 7 * 86_400_000;

export class Sources {
  #list = [];
  #cards = new Map();
  #isTouched = false;

  constructor() {
    $('sources').querySelector('summary').addEventListener('click', () => { this.#isTouched = true; });
  }

  get names() {
    return this.#list.map(({ name }) => name);
  }

  get length() {
    return this.#list.length;
  }

  /** Shows what the gateway answered. */
  show(list) {
    const wasEmpty = this.#list.length === 0;
    this.#list = list;
    $('sources').hidden = list.length === 0;
    if (wasEmpty && !this.#isTouched) {
      const isSmall = matchMedia('(max-width: 700px)').matches;
      $('sources').open = list.length <= OPEN_MAX && !(isSmall && list.every(({ health }) => health === 'HEALTHY'));
    }
    for (const name of this.#cards.keys()) if (!list.some((source) => source.name === name)) this.#cards.delete(name);
    for (const source of list) {
      if (!this.#cards.has(source.name)) this.#cards.set(source.name, makeCard(source));
    }
    const cards = list.map(({ name }) => this.#cards.get(name));
    const box = $('source-cards');
    if (cards.length !== box.childElementCount || cards.some(({ card }, at) => card !== box.children[at])) {
      box.replaceChildren(...cards.map(({ card }) => card));
    }
    for (const source of list) fillCard(this.#cards.get(source.name), source);
    setText($('sources-summary'), summary(list));
    this.tick();
  }

  clear() {
    this.#list = [];
    this.#cards.clear();
    $('source-cards').replaceChildren();
    $('sources').hidden = true;
  }

  /** The time went on. */
  tick() {
    for (const source of this.#list) tickCard(this.#cards.get(source.name), source);
  }
}

function summary(list) {
  const byWord = new Map();
  for (const { health } of list) {
    const { word } = look(HEALTH, health);
    byWord.set(word, (byWord.get(word) ?? 0) + 1);
  }
  return `${count(list.length, 'source')}: ${[...byWord].map(([word, amount]) => `${number(amount)} ${word}`).join(', ')}`;
}

function makeCard(source) {
  const parts = {
    health: element('span', { class: 'health' }),
    meter: element('div', { class: 'meter' }, element('i')),
    line: element('p', { class: 'line' }),
    reason: element('p', { class: 'reason' }),
    facts: element('dl'),
  };
  const more = element('details', { class: 'facts' }, element('summary', { 'aria-label': `more about ${source.name}` }, 'more'), parts.facts);
  const card = element('li', { class: 'source' },
    element('div', { class: 'top' },
      element('b', {}, source.name), element('small', {}, UPSTREAMS[source.upstream] ?? source.upstream), parts.health),
    parts.meter, element('div', { class: 'foot' }, parts.line, more), parts.reason);
  return { card, parts, shown: '' };
}

function fillCard({ card, parts }, source) {
  const { budget, health, lastError, credential } = source;
  card.dataset.health = health;
  const used = budget ? budget.perHour - budget.leftThisHour : 0;
  parts.meter.hidden = !budget;
  if (budget) {
    parts.meter.firstChild.style.width = `${Math.min(100, (100 * used) / Math.max(1, budget.perHour))}%`;
    parts.meter.dataset.full = String(used > 0.8 * budget.perHour);
  }
  const reasons = [];
  if (health !== 'HEALTHY' && lastError) reasons.push(`${words(lastError.kind)} at ${clock(lastError.at, now())}: ${lastError.message}`);
  if (credential.state !== 'ACTIVE') reasons.push(`credential: ${words(credential.state)}`);
  else if (credential.expiresAt && Date.parse(credential.expiresAt) - now() < SOON_MS) {
    reasons.push(`the credential expires ${full(credential.expiresAt)}`);
  }
  setText(parts.reason, reasons.join(' · '));
  parts.reason.hidden = reasons.length === 0;
  parts.facts.replaceChildren(...facts(source).flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
}

function tickCard({ parts }, source) {
  const { health, throttledUntil, budget, discovery } = source;
  const look_ = look(HEALTH, health);
  const wait = throttledUntil ? Date.parse(throttledUntil) - now() : 0;
  const word = wait > 0 ? `${look_.word} · ${duration(wait)}` : look_.word;
  if (parts.health.dataset.word !== word) {
    parts.health.dataset.word = word;
    parts.health.replaceChildren(chip({ ...look_, word }));
  }
  const line = [];
  if (budget) line.push(`${number(budget.perHour - budget.leftThisHour)} of ${number(budget.perHour)} calls this hour`);
  if (wait > 0) line.push(`next call ${clock(throttledUntil, now())}`);
  else if (discovery?.lastSweepAt) line.push(`swept ${ago(now() - Date.parse(discovery.lastSweepAt))}`);
  if (!budget) line.push(`credential ${words(source.credential.state)}`);
  setText(parts.line, line.join(' · '));
}

function facts({ credential, budget, lastError, discovery, throttledUntil }) {
  const list = [['credential', `${words(credential.state)}${credential.activeSince ? ` since ${full(credential.activeSince)}` : ''}`]];
  if (credential.expiresAt) list.push(['expires', full(credential.expiresAt)]);
  if (budget) {
    list.push(['budget', `${number(budget.leftThisHour)} calls left this hour, at most ${number(budget.perSecond)} a second`]);
    list.push(['in flight', `${number(budget.inFlight)} of ${number(budget.concurrency)}`]);
  }
  if (throttledUntil) list.push(['throttled until', full(throttledUntil)]);
  if (discovery) {
    const last = discovery.lastSweepAt ? `last ${full(discovery.lastSweepAt)}` : 'none completed';
    list.push(['sweep', `${last}${discovery.trusted ? '' : ', not trusted: jobs are polled'}`]);
    if (discovery.verifyIntervalMs) list.push(['each job read', `every ${roughly(discovery.verifyIntervalMs)}`]);
    list.push(['discovered', discovery.enabled ? count(discovery.jobsDiscovered, 'job') : 'off']);
  }
  if (lastError) list.push(['last error', `${full(lastError.at)}, ${words(lastError.kind)}: ${lastError.message}`]);
  return list;
}
