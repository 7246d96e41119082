// The details of one job, live: its fields at the upstream, its timeline, its labels, the first rows of its result, and
// snippets. Opening them follows the job, as any subscription does.

import { referenceText } from './address.js';
import { now } from './clock.js';
import { LABELS, ROWS, WATCH } from './documents.js';
import { $, chip, element, setText } from './dom.js';
import { STATES, UPSTREAMS, ago, clock, count, duration, full, look, number, words } from './format.js';
import { grantWords } from './identity.js';
import { elapsedOf, endOf, estimateWords, kindOf, nextWords, startOf } from './row.js';
import { copy, curl, graphql, watch } from './snippets.js';

const CELLS_MAX = 8;
const TEXT_MAX = 200;

export class Details {
  #socket = null;
  #isOpen = false;
  #reference = null;
  #job = null;
  #problem = null;
  #labels = null;
  #origin = null;
  #rows = null;
  #snippet = null;
  #stop = () => {};
  #close;
  #opener = null;

  /** `close()` is called when a person closes the details. */
  constructor(close) {
    this.#close = close;
    $('details-close').addEventListener('click', () => close());
    $('details').addEventListener('keydown', (event) => event.key === 'Escape' && close());
  }

  get reference() {
    return this.#reference;
  }

  /** Shows a job; `null` closes the details. `known` is its row, if the table has one. */
  show(reference, known = null) {
    if (reference && this.#reference && referenceText(reference) === referenceText(this.#reference)) return;
    this.#stop();
    const wasOpen = this.#reference !== null;
    this.#reference = reference;
    [this.#job, this.#problem, this.#rows, this.#snippet] = [known?.job ?? null, null, null, null];
    [this.#labels, this.#origin] = [known?.labels ?? null, known?.origin ?? null];
    $('details').hidden = reference === null;
    document.body.classList.toggle('with-details', reference !== null);
    if (reference === null) {
      if (wasOpen) (this.#opener?.isConnected ? this.#opener : $('table')).focus({ preventScroll: true });
      return;
    }
    if (!wasOpen) this.#opener = document.activeElement === document.body ? $('table') : document.activeElement;
    this.#render();
    $('details').scrollTop = 0;
    $('details-title').focus({ preventScroll: true });
    this.#follow();
  }

  /** A connection is live; `isOpen`: it needs no key. */
  connect(socket, isOpen) {
    this.#isOpen = isOpen;
    this.#socket = socket;
    this.#follow();
  }

  disconnect() {
    this.#socket = null;
    this.#render();
  }

  /** The time went on. `known` is the job in the table, if it has the job: a job that has not changed was read there last. */
  tick(known = null) {
    if (!this.#job) return;
    const isLater = known?.id === this.#job.id && Date.parse(known.freshness.observedAt) >= Date.parse(this.#job.freshness.observedAt);
    if (isLater) this.#job = { ...this.#job, freshness: known.freshness };
    for (const [name, text] of Object.entries(this.#moments(this.#job))) {
      const node = $('details-body').querySelector(`[data-moment="${name}"]`);
      if (node) setText(node, text);
    }
  }

  #follow() {
    this.#stop();
    const [socket, reference] = [this.#socket, this.#reference];
    if (!socket || !reference) return;
    this.#stop = socket.subscribe(WATCH, { ref: { external: reference } }, {
      next: ({ data, errors }) => {
        const result = data?.jobUpdates.result;
        if (!result) this.#problem = errors?.map(({ message }) => message).join('; ') ?? null;
        else if (result.__typename === 'JobProblem') this.#problem = result.message;
        else [this.#job, this.#problem] = [result, null];
        this.#render();
      },
      error: (errors) => {
        this.#problem = errors.map(({ message }) => message).join('; ');
        this.#render();
      },
    });
    this.#readLabels(socket, reference);
  }

  async #readLabels(socket, reference) {
    try {
      const filter = { sources: [reference.source], text: reference.externalId };
      const { jobList } = await socket.query(LABELS, { filter });
      if (this.#reference !== reference) return;
      const edge = jobList.edges.find(({ node }) => node.id === this.#job?.id);
      if (!edge) return;
      [this.#labels, this.#origin] = [edge.labels, edge.origin];
      this.#render();
    } catch {
      // the labels are left out; the rest of the details says whether the connection is lost
    }
  }

  async #readRows() {
    const [socket, reference] = [this.#socket, this.#reference];
    if (!socket) return;
    this.#rows = { isLoading: true };
    this.#render();
    try {
      const { job } = await socket.query(ROWS, { ref: { external: reference } });
      if (this.#reference !== reference) return;
      this.#rows = job.rows ?? { problem: { message: job.message ?? 'the query has no rows' } };
    } catch (error) {
      if (this.#reference !== reference) return;
      this.#rows = { problem: { message: error.message || 'the connection was lost' } };
    }
    this.#render();
    $('details-rows')?.focus({ preventScroll: true });
  }

  #render() {
    const reference = this.#reference;
    if (!reference) return;
    const job = this.#job;
    setText($('details-title'), reference.externalId);
    const focused = document.activeElement?.closest('#details-body [data-key]')?.dataset.key;
    $('details-body').replaceChildren(...[
      this.#head(reference, job),
      this.#problem && element('p', { class: 'notice', role: 'status' }, this.#problem),
      !job && !this.#problem && element('p', { class: 'sub', role: 'status' }, 'reading the job'),
      job && this.#summary(job),
      job && this.#timeline(job),
      job && this.#native(job),
      job?.state === 'SUCCEEDED' && job.__typename === 'SupermetricsJob' && this.#result(),
      this.#buttons(reference),
    ].filter(Boolean));
    if (focused) $('details-body').querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true });
    this.tick();
  }

  #head({ source }, job) {
    const about = [source, job && UPSTREAMS[job.source.upstream], job && kindOf(job)].filter(Boolean).join(' · ');
    return element('p', { class: 'about' }, job && chip(look(STATES, job.state)), element('span', {}, about));
  }

  /** The texts that change with the time. */
  #moments(job) {
    const { label, text } = elapsedOf(job);
    const { observedAt, nextPollAt } = job.freshness;
    const next = job.isTerminal ? '' : nextWords(nextPollAt);
    return {
      elapsed: [label, text].filter(Boolean).join(' '),
      seen: [ago(now() - Date.parse(observedAt)), next].filter(Boolean).join(', '),
      estimate: estimateWords(job),
    };
  }

  #summary(job) {
    const { isStale, staleReason, observedAt } = job.freshness;
    const list = [];
    if (job.failure) list.push(['failure', element('span', { class: 'why' }, [...new Set([job.failure.code, job.failure.message].filter(Boolean))].join(': ') || 'no reason reported')]);
    if (job.progress) list.push(['progress', `${number(job.progress.completed)} of ${count(job.progress.total, 'part')}`]);
    if (elapsedOf(job).label) list.push(['time', moment('elapsed')]);
    if (startOf(job)) list.push([job.createdAt ? 'started' : 'first seen', full(startOf(job))]);
    if (job.isTerminal) list.push(['ended', full(endOf(job))]);
    list.push(['last read', moment('seen', full(observedAt))]);
    if (!this.#socket) list.push(['stale', element('span', { class: 'warn' }, 'not connected')]);
    else if (isStale && !job.isTerminal && staleReason) list.push(['stale', element('span', { class: 'warn' }, words(staleReason))]);
    if (this.#labels?.length) list.push(['labels', element('span', { class: 'labels' }, this.#labels.map(({ name, value }) => element('code', {}, `${name}=${value}`)))]);
    if (this.#origin) list.push(['in the list', words(this.#origin)]);
    if (job.viewerGrant) list.push(['your grant', grantWords(job.viewerGrant)]);
    return section('Summary', definitions(list));
  }

  #timeline(job) {
    const items = job.transitions?.map((transition, at) => {
      const { word, tone } = look(STATES, transition.state);
      const before = job.transitions[at - 1];
      const after = before ? `after ${duration(Date.parse(timeOf(transition)) - Date.parse(timeOf(before)))}` : '';
      const native = transition.nativeState && transition.nativeState !== transition.state ? transition.nativeState : '';
      return element('li', { 'data-tone': tone }, element('b', {}, word),
        element('span', { class: 'sub', title: `first read ${full(transition.observedAt)}` }, [clock(timeOf(transition), now()), after, native].filter(Boolean).join(' · ')));
    }) ?? [];
    const { progress, estimate, isTerminal } = job;
    if (!isTerminal && progress?.total) {
      items.push(element('li', { 'data-tone': 'run' }, element('b', {}, `${number(progress.completed)} of ${count(progress.total, 'part')}`),
        element('span', { class: 'sub' }, 'so far')));
    }
    if (estimate) {
      items.push(element('li', { class: 'expected' },
        element('span', {}, `expected end ${clock(estimate.expectedFinishAt, now())} (${clock(estimate.earliest, now())} to ${clock(estimate.latest, now())})`),
        element('span', { class: 'sub' }, moment('estimate'), ` · from ${count(estimate.sampleSize, 'completed job')}`)));
    }
    if (items.length === 0) return null;
    return section('Timeline', element('ol', { class: 'timeline' }, items));
  }

  #native(job) {
    const list = job.__typename === 'MindBridgeJob' ? mindBridge(job) : supermetrics(job);
    const shown = list.filter(([, value]) => value !== null && value !== undefined && value !== '');
    return section(`${UPSTREAMS[job.source.upstream]} fields`, definitions(shown.map(([name, value]) => [name, String(value)])));
  }

  #result() {
    const rows = this.#rows;
    const made = section('First rows');
    if (rows === null || rows.isLoading) {
      const button = element('button', { type: 'button', 'data-key': 'rows', disabled: Boolean(rows?.isLoading) },
        rows?.isLoading ? 'reading' : 'Show the first 10 rows');
      button.addEventListener('click', () => this.#readRows());
      made.append(button, element('span', { class: 'sub' }, 'read from Supermetrics, kept for 10 minutes'));
      return made;
    }
    if (rows.problem) made.append(element('p', { class: 'notice' }, rows.problem.message));
    if (rows.nodes?.length) {
      const width = Math.min(CELLS_MAX, rows.header.length || rows.nodes[0].cells.length);
      made.append(element('div', { class: 'grid', id: 'details-rows', tabindex: '0', role: 'region', 'aria-label': 'First rows', 'data-key': 'grid' },
        element('table', {},
          element('thead', {}, element('tr', {}, rows.header.slice(0, width).map((name) => element('th', { scope: 'col' }, cell(name))))),
          element('tbody', {}, rows.nodes.map(({ cells }) => element('tr', {}, cells.slice(0, width).map((value) => element('td', {}, cell(value)))))))));
      const left = rows.header.length - width;
      const more = [left > 0 && `${count(left, 'more column')}`, rows.pageInfo?.hasNextPage && 'more rows by rows(after:)'].filter(Boolean);
      if (more.length) made.append(element('p', { class: 'sub' }, more.join(' · ')));
    } else if (!rows.problem) {
      made.append(element('p', { class: 'sub' }, 'the result has no rows'));
    }
    return made;
  }

  #buttons(reference) {
    const button = (key, word, text) => {
      const made = element('button', { type: 'button', 'data-key': key }, word);
      made.addEventListener('click', () => this.#copy(word, text(), ['curl', 'graphql', 'cli'].includes(key)));
      return made;
    };
    return element('div', { class: 'copies' },
      element('div', { class: 'buttons' },
        button('link', 'Copy link', () => new URL(`?job=${referenceText(reference)}`, location.href.split(/[?#]/)[0]).href),
        button('id', 'Copy ID', () => reference.externalId),
        button('curl', 'curl', () => curl(reference, this.#isOpen)),
        button('graphql', 'GraphQL', () => graphql(reference)),
        button('cli', 'Terminal', () => watch(reference))),
      element('p', { class: 'sub', role: 'status' }, this.#snippet?.said ?? ''),
      this.#snippet?.isShown && element('pre', { tabindex: '0', 'data-key': 'snippet' }, this.#snippet.text));
  }

  async #copy(word, text, isShown) {
    const isCopied = await copy(text);
    // without the permission to copy, the text is shown to be selected
    const said = isCopied ? `${word.replace('Copy ', '')} copied` : 'the browser does not allow copying; select the text';
    this.#snippet = { text, said, isShown: isShown || !isCopied };
    this.#render();
  }
}

function mindBridge(job) {
  const person = (user) => user && [user.userName, user.userId].filter(Boolean).join(', ');
  return [
    ['status', job.nativeState], ['type', job.kind], ['asyncResultId', job.externalId], ['version', job.version],
    ['entity', job.entity && [job.entity.type, job.entity.id].filter(Boolean).join(' ')],
    ['created', job.createdAt && full(job.createdAt)], ['created by', person(job.createdBy)],
    ['modified', job.updatedAt && full(job.updatedAt)], ['modified by', person(job.lastModifiedBy)],
    ['error', job.error], ['errorMessage', job.errorMessage],
  ];
}

function supermetrics(job) {
  const { query, queue, result } = job;
  const dates = query && [query.startDate, query.endDate].filter(Boolean).join(' to ');
  const yes = (value) => (value === null || value === undefined ? null : value ? 'yes' : 'no');
  return [
    ['status_code', job.nativeState], ['schedule_id', job.scheduleId ?? job.externalId], ['request_id', job.requestId],
    ['licence queue', queue && `${queue.tasksScheduled ?? '?'} scheduled, ${queue.tasksRunning ?? '?'} running`],
    ['dates', dates], ['accounts', query?.accounts.map(cell).join(', ')],
    ['fields', query?.fields.map(({ id, name }) => name ?? id).join(', ')],
    ['rows', result?.totalRows && number(Number(result.totalRows))], ['columns', result?.totalColumns],
    ['run time', typeof result?.runSeconds === 'number' ? duration(result.runSeconds * 1000) : null],
    ['sampled', yes(result?.dataSampled)],
    ['from cache', result?.cacheTime ? `${yes(result.cacheUsed)}, of ${full(result.cacheTime)}` : yes(result?.cacheUsed)],
  ];
}

/** When a state began, as far as anybody knows: the gateway reads it later than the upstream has it. */
const timeOf = ({ upstreamAt, observedAt }) => upstreamAt ?? observedAt;

/** Any JSON value as a short text. */
function cell(value) {
  const text = typeof value === 'string' ? value : value === null ? '' : JSON.stringify(value);
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
}

const moment = (name, title = null) => element('span', { 'data-moment': name, title });

function section(title, ...content) {
  return element('section', {}, element('h3', {}, title), ...content);
}

function definitions(list) {
  return element('dl', {}, list.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)]));
}
