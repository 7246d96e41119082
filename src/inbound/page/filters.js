// The controls above the table. They show a view and report the next one; what a view is belongs to `address.js`.

import { splitLabel } from './address.js';
import { $, element, setAttribute, setText } from './dom.js';
import { count, number } from './format.js';
import { GROUPS } from './jobs.js';

/** The list is read this long after the last key. */
const TYPING_MS = 250;
/** The kinds that MindBridge documents; others are offered once they are seen. */
const KINDS = [
  'ACCOUNT_GROUPING_EXPORT', 'ACCOUNT_MAPPING_EXPORT', 'ADMIN_REPORT', 'ANALYSIS_ROLL_FORWARD', 'ANALYSIS_RUN',
  'ANALYSIS_SOURCE_INGESTION', 'DATA_TABLE_EXPORT', 'DATA_TRANSFORMATION_JOB', 'GDPDU_UNPACK_JOB',
];
const SORTS = [
  ['updated', false, 'newest change first'], ['updated', true, 'oldest change first'],
  ['created', false, 'newest start first'], ['created', true, 'oldest start first'],
  ['state', false, 'by state, descending'], ['state', true, 'by state'],
];

export class Filters {
  #view;
  #report;
  #typing = null;
  #buttons = new Map();

  /** `report(view, {typed})` is called with the view that a person chose. */
  constructor(report) {
    this.#report = report;
    for (const group of GROUPS) {
      const amount = element('span', { class: 'amount' });
      const button = element('button', { type: 'button', 'aria-pressed': 'false' }, group.word, amount);
      button.addEventListener('click', () => this.#change({ states: group.states ?? [] }));
      this.#buttons.set(group.key, { button, amount });
      $('states').append(button);
    }
    $('sort').append(...SORTS.map(([sort, ascending, word]) =>
      element('option', { value: `${sort}.${ascending}` }, word)));
    $('sort').addEventListener('change', () => {
      const [sort, ascending] = $('sort').value.split('.');
      this.#change({ sort, ascending: ascending === 'true' });
    });
    for (const header of document.querySelectorAll('[data-sort]')) {
      header.querySelector('button').addEventListener('click', () => {
        const { sort } = header.dataset;
        this.#change({ sort, ascending: this.#view.sort === sort && !this.#view.ascending });
      });
    }
    $('search').addEventListener('input', () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.#search(), TYPING_MS);
    });
    $('filters').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#search();
    });
    $('source').addEventListener('change', () => this.#change({ sources: [$('source').value].filter(Boolean) }));
    $('kind').addEventListener('change', () => this.#change({ kinds: [$('kind').value].filter(Boolean) }));
    $('label').addEventListener('change', () => {
      const label = splitLabel($('label').value);
      $('label').setCustomValidity(label || !$('label').value.trim() ? '' : 'write a label as name=value');
      if ($('label').reportValidity()) this.#change({ labels: label ? [label] : [] });
    });
    $('clear').addEventListener('click', () => this.clear());
  }

  /** Removes every filter. */
  clear() {
    this.#change({ text: '', states: [], sources: [], kinds: [], labels: [] });
    $('search').focus();
  }

  /** Shows a view in the controls. */
  show(view) {
    this.#view = view;
    if (document.activeElement !== $('search') || $('search').value.trim() !== view.text) $('search').value = view.text;
    choose($('source'), view.sources);
    choose($('kind'), view.kinds);
    $('label').value = view.labels.map(({ name, value }) => `${name}=${value}`)[0] ?? '';
    $('sort').value = `${view.sort}.${view.ascending}`;
    for (const header of document.querySelectorAll('[data-sort]')) {
      const isSorted = header.dataset.sort === view.sort;
      setAttribute(header, 'aria-sort', isSorted ? (view.ascending ? 'ascending' : 'descending') : 'none');
    }
    const states = view.states.join();
    for (const { key, states: group } of GROUPS) {
      setAttribute(this.#buttons.get(key).button, 'aria-pressed', String((group ?? []).join() === states));
    }
    const pressed = $('states').querySelector('[aria-pressed="true"]');
    // on a phone the groups are wider than the screen
    if (pressed) $('states').scrollLeft = pressed.offsetLeft - $('states').offsetLeft - 40;
    $('clear').hidden = !(view.text || states || view.sources.length || view.kinds.length || view.labels.length);
  }

  /** Offers what the jobs and sources have, and says how many there are. */
  offer({ sources, kinds, labels, counts, shown, total, isLoading }) {
    options($('source'), 'All sources', sources, this.#view.sources);
    options($('kind'), 'All kinds', [...new Set([...KINDS, ...kinds])].sort(), this.#view.kinds);
    const list = $('labels');
    if (list.childElementCount !== labels.size) {
      list.replaceChildren(...[...labels].sort().slice(0, 200).map((value) => element('option', { value })));
    }
    for (const [key, { button, amount }] of this.#buttons) {
      const value = counts[key];
      setText(amount, value === undefined ? '' : atMost(value));
      // six groups are much for a small screen: the last one only where it contains something
      button.hidden = key === 'other' && !value && button.getAttribute('aria-pressed') === 'false';
    }
    setText($('count'), summary(shown, total, isLoading));
  }

  #search() {
    clearTimeout(this.#typing);
    this.#change({ text: $('search').value.trim() }, true);
  }

  #change(change, typed = false) {
    this.#report({ ...this.#view, ...change }, typed);
  }
}

/** Totals are counted up to 10,000. */
const atMost = (total) => (total >= 10_000 ? '10,000+' : number(total));

function summary(shown, total, isLoading) {
  if (total === null) return isLoading ? 'reading jobs' : '';
  if (shown === total) return count(total, 'job');
  return `${number(shown)} of ${atMost(total)} shown`;
}

function choose(select, values) {
  const [value = ''] = values;
  if (![...select.options].some((option) => option.value === value)) select.append(element('option', { value }, value));
  select.value = value;
}

function options(select, all, values, chosen) {
  const wanted = ['', ...new Set([...values, ...chosen])];
  if (wanted.join() === [...select.options].map(({ value }) => value).join()) return;
  const { value } = select;
  select.replaceChildren(...wanted.map((name) => element('option', { value: name }, name || all)));
  select.value = value;
}
