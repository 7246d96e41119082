// The table of jobs: only the rows in view are elements, and each keeps its place. The focus stays on the table, which
// names its active row, so that a row can leave the view without taking the focus with it.

import { $, element, setAttribute } from './dom.js';
import { fillRow, makeRow, tickRow } from './row.js';

/** Rows that are made beyond each edge of the view. */
const OVERSCAN = 6;
/** The next page is read when the view is so near to the last row. */
const NEAR_END = 30;
const SKELETONS = 8;

export class Table {
  #jobs;
  #open;
  #made = new Map();
  /** Elements of rows that left the view, for rows that come into it. */
  #free = [];
  #order = [];
  #active = null;
  #selected = null;
  #frame = null;
  #height = 57;
  #numbers = new Map();

  /** `open(id)` is called for the row that a person chooses. */
  constructor(jobs, open) {
    this.#jobs = jobs;
    this.#open = open;
    const body = $('rows');
    body.addEventListener('click', (event) => this.#clicked(event));
    $('table').addEventListener('keydown', (event) => this.#pressed(event));
    $('table').addEventListener('focus', () => this.#active ?? this.#activate(this.#inView()[0] ?? null));
    addEventListener('scroll', () => this.schedule(), { passive: true });
    addEventListener('scrollend', () => this.#jobs.refresh(this.visible), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(body);
    this.#measure();
  }

  /** The ids of the rows in view. */
  get visible() {
    return this.#inView();
  }

  /** Shows the rows again, once before the next frame. */
  schedule() {
    if (document.hidden) return;
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.render();
    });
  }

  /** Marks the row whose details are open. */
  select(id) {
    if (id && id !== this.#selected) this.#active = id;
    this.#selected = id;
    this.schedule();
  }

  /** The time went on. */
  tick() {
    for (const [id, made] of this.#made) {
      const row = this.#jobs.rows.get(id);
      if (row) tickRow(made, this.#jobs.staleness(row));
    }
  }

  /** Shows the rows in view. */
  render() {
    const { order, rows } = this.#jobs;
    this.#holdStill(order);
    this.#order = order;
    const isLoading = this.#jobs.total === null;
    $('table').setAttribute('aria-busy', String(isLoading));
    setAttribute($('table'), 'aria-rowcount', isLoading ? -1 : (this.#jobs.hasMore ? -1 : order.length + 1));
    $('skeleton').hidden = !isLoading;
    if (isLoading && $('skeleton').childElementCount === 0) $('skeleton').append(...skeletons());
    const body = $('rows');
    body.style.height = `${order.length * this.#height}px`;
    const [first, last] = this.#window();
    const wanted = new Set(order.slice(first, last));
    for (const [id, made] of this.#made) {
      if (wanted.has(id)) continue;
      this.#made.delete(id);
      this.#free.push(made);
    }
    for (let at = first; at < last; at += 1) this.#place(order[at], at, rows);
    for (const made of this.#free.splice(0)) made.line.remove();
    this.#announceActive();
    if (last > order.length - NEAR_END) this.#jobs.more();
  }

  #place(id, at, rows) {
    const row = rows.get(id);
    let made = this.#made.get(id);
    if (!made) {
      made = this.#free.pop() ?? makeRow();
      made.version = -1;
      made.line.id = `row-${this.#number(id)}`;
      this.#made.set(id, made);
      if (!made.line.isConnected) $('rows').append(made.line);
    }
    if (made.version !== row.version || made.labels !== row.labels) {
      fillRow(made, row);
      [made.version, made.labels] = [row.version, row.labels];
    }
    if (made.at !== at) {
      made.at = at;
      made.line.style.transform = `translateY(${at * this.#height}px)`;
      made.line.setAttribute('aria-rowindex', at + 2);
    }
    setAttribute(made.line, 'aria-selected', String(id === this.#selected));
    made.line.classList.toggle('active', id === this.#active);
    tickRow(made, this.#jobs.staleness(row));
  }

  /** A short name of a row for `id` attributes. */
  #number(id) {
    if (!this.#numbers.has(id)) this.#numbers.set(id, this.#numbers.size);
    return this.#numbers.get(id);
  }

  /** When rows are put above those that are being read, scrolls as far as they push. */
  #holdStill(order) {
    if (order === this.#order || this.#order.length === 0) return;
    const top = this.#top();
    if (top <= 0) return;
    const at = Math.floor(top / this.#height);
    const anchor = this.#order[Math.min(at, this.#order.length - 1)];
    const place = order.indexOf(anchor);
    if (place < 0 || place === at) return;
    $('rows').style.height = `${order.length * this.#height}px`;
    scrollBy({ top: (place - at) * this.#height, behavior: 'instant' });
  }

  /** How far the first row is above the edge of the view, below the sticky head. */
  #top() {
    return $('head').getBoundingClientRect().bottom - $('rows').getBoundingClientRect().top;
  }

  #window() {
    const top = -$('rows').getBoundingClientRect().top;
    const first = Math.floor(top / this.#height) - OVERSCAN;
    const last = Math.ceil((top + innerHeight) / this.#height) + OVERSCAN;
    const within = (at) => Math.max(0, Math.min(this.#jobs.order.length, at));
    return [within(first), within(last)];
  }

  #inView() {
    const top = this.#top();
    const bottom = innerHeight - $('rows').getBoundingClientRect().top;
    const [first, last] = [Math.ceil(top / this.#height - 0.2), Math.floor(bottom / this.#height + 0.2)];
    return this.#jobs.order.slice(Math.max(0, first), Math.max(0, last));
  }

  #measure() {
    const height = Number.parseFloat(getComputedStyle($('rows')).getPropertyValue('--row')) || 57;
    if (height !== this.#height) {
      this.#height = height;
      for (const made of this.#made.values()) made.at = null;
    }
    this.schedule();
  }

  #clicked(event) {
    const line = event.target.closest('.row');
    // a link that opens a tab of its own, and a text that is being selected, are the browser's
    if (!line || event.metaKey || event.ctrlKey || event.shiftKey || String(getSelection())) return;
    event.preventDefault();
    this.#activate(line.dataset.id);
    this.#open(line.dataset.id);
  }

  #pressed(event) {
    if (event.target !== $('table') || event.altKey || event.metaKey || event.ctrlKey) return;
    const { order } = this.#jobs;
    const at = order.indexOf(this.#active);
    const page = Math.max(1, Math.floor(innerHeight / this.#height) - 3);
    const moves = {
      ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1,
    };
    if (event.key in moves && order.length > 0) {
      event.preventDefault();
      this.#activate(order[Math.max(0, Math.min(order.length - 1, moves[event.key]))]);
      this.#reveal();
    } else if ((event.key === 'Enter' || event.key === ' ') && at >= 0) {
      event.preventDefault();
      this.#open(this.#active);
    }
  }

  #activate(id) {
    this.#active = id;
    this.render();
  }

  /** Scrolls the active row into view. */
  #reveal() {
    const at = this.#jobs.order.indexOf(this.#active);
    const above = at * this.#height - this.#top();
    const below = $('rows').getBoundingClientRect().top + (at + 1) * this.#height - innerHeight;
    if (above < 0) scrollBy({ top: above, behavior: 'instant' });
    else if (below > 0) scrollBy({ top: below + 8, behavior: 'instant' });
    this.render();
  }

  #announceActive() {
    const made = this.#made.get(this.#active);
    setAttribute($('table'), 'aria-activedescendant', made ? made.line.id : null);
  }
}

function skeletons() {
  return Array.from({ length: SKELETONS }, () => element('div', { class: 'row' },
    ...['job', 'state', 'progress', 'elapsed', 'updated'].map((name) => element('div', { class: `cell ${name}` }, element('i')))));
}
