// One row of the table: its cells, and what they say about a job.

import { addressOf, readAddress } from './address.js';
import { now } from './clock.js';
import { chip, element, setAttribute, setText } from './dom.js';
import { STATES, UPSTREAMS, ago, clock, count, duration, full, look, number, roughly } from './format.js';

/** Makes the elements of a row; `fill` and `tick` write into them. */
export function makeRow() {
  const parts = {
    id: element('a', { class: 'id', tabindex: '-1' }),
    about: element('span', { class: 'sub' }),
    state: element('div', { class: 'cell state', role: 'gridcell' }),
    progress: element('div', { class: 'cell progress', role: 'gridcell' }),
    elapsed: element('span', { class: 'value' }),
    started: element('span', { class: 'sub' }),
    elapsedLabel: element('span', { class: 'label' }),
    seen: element('span', { class: 'value' }),
    next: element('span', { class: 'sub' }),
    left: null,
  };
  const line = element('div', { class: 'row', role: 'row' },
    element('div', { class: 'cell job', role: 'gridcell' }, parts.id, parts.about),
    parts.state,
    parts.progress,
    element('div', { class: 'cell elapsed', role: 'gridcell' }, parts.elapsedLabel, parts.elapsed, parts.started),
    element('div', { class: 'cell updated', role: 'gridcell' }, parts.seen, parts.next));
  return { line, parts, version: -1, job: null };
}

/** Writes what changes with the job. */
export function fillRow(made, { job, labels, hasLeft }) {
  const { line, parts } = made;
  made.job = job;
  line.dataset.id = job.id;
  line.dataset.state = job.state;
  line.classList.toggle('left', Boolean(hasLeft));
  setText(parts.id, job.externalId);
  setAttribute(parts.id, 'href', addressOf({ ...readAddress(), job: { source: job.source.name, externalId: job.externalId } }));
  setAttribute(parts.id, 'title', job.externalId);
  const about = [job.source.name, kindOf(job), ...labels.map(({ name, value }) => `${name}=${value}`)].join(' · ');
  setText(parts.about, about);
  setAttribute(parts.about, 'title', about);
  parts.state.replaceChildren(chip(look(STATES, job.state)));
  if (job.state === 'UNKNOWN' && job.nativeState) {
    parts.state.append(element('span', { class: 'sub', title: job.nativeState }, job.nativeState));
  }
  parts.left = null;
  parts.progress.replaceChildren(...progress(job, parts));
}

/** Writes what changes with the time. */
export function tickRow({ line, parts, job }, staleness) {
  const { label, text, since } = elapsedOf(job);
  setText(parts.elapsedLabel, label);
  setText(parts.elapsed, text);
  setText(parts.started, since ? `from ${clock(since, now())}` : '');
  setAttribute(parts.started, 'title', since ? `started ${full(since)}` : null);
  const { observedAt, nextPollAt } = job.freshness;
  const end = endOf(job);
  setText(parts.seen, job.isTerminal ? clock(end, now()) : ago(now() - Date.parse(observedAt)));
  setAttribute(parts.seen, 'title', job.isTerminal ? `ended ${full(end)}` : `last read ${full(observedAt)}`);
  line.classList.toggle('stale', staleness !== null);
  setAttribute(parts.next, 'title', staleness === null ? null : `stale: ${staleness}`);
  if (staleness !== null) setText(parts.next, `stale: ${staleness}`);
  else if (job.isTerminal) setText(parts.next, ago(now() - Date.parse(end)));
  else setText(parts.next, nextWords(nextPollAt));
  if (parts.left) setText(parts.left, estimateWords(job));
}

/** The kind of a job: Supermetrics has only queries. */
export const kindOf = (job) => job.kind ?? (job.__typename === 'SupermetricsJob' ? 'query' : 'no kind');

/** When the job started, as far as anybody knows. */
export const startOf = (job) => job.createdAt ?? job.firstSeenAt;

/** When a terminal job ended. */
export const endOf = (job) => job.finishedAt ?? job.updatedAt ?? job.terminalSeenAt ?? job.freshness.observedAt;

/** How long the job has taken. */
export function elapsedOf(job) {
  const since = startOf(job);
  if (job.isTerminal) {
    const ran = job.result?.runSeconds;
    if (typeof ran === 'number') return { label: 'took', text: duration(ran * 1000), since };
    if (!since) return { label: '', text: 'unknown', since };
    const took = Date.parse(endOf(job)) - Date.parse(since);
    // a job that was over when the gateway saw it first: how long it took is not known
    if (took <= 0) return { label: '', text: '–', since: null };
    return { label: 'took', text: duration(took), since };
  }
  const label = job.state === 'QUEUED' ? 'waiting' : 'elapsed';
  return { label, text: since ? duration(now() - Date.parse(since)) : 'unknown', since };
}

/** `about 2 min left (1–4 min)`; empty without an estimate. */
export function estimateWords({ estimate }) {
  if (!estimate) return '';
  const left = (time) => Date.parse(time) - now();
  if (left(estimate.latest) < 0) return 'longer than usual';
  if (left(estimate.expectedFinishAt) < 1000) return `any moment, at most ${roughly(left(estimate.latest))}`;
  return `about ${roughly(left(estimate.expectedFinishAt))} left, at most ${roughly(left(estimate.latest))}`;
}

/** When the job is read next: `next in 5 s`; empty if that is not known. */
export function nextWords(nextPollAt) {
  if (!nextPollAt) return '';
  const left = Date.parse(nextPollAt) - now();
  if (left < -5000) return '';
  return left < 1000 ? 'next now' : `next in ${roughly(left)}`;
}

function progress(job, parts) {
  if (job.state === 'FAILED') return [failure(job)];
  const lines = [];
  if (job.progress?.total > 0) lines.push(bar(job));
  const words = remark(job);
  if (words) lines.push(element('span', { class: 'sub', title: words }, words));
  if (job.estimate) {
    parts.left = element('span', { class: 'sub' });
    lines.push(parts.left);
  }
  return lines.length > 0 ? lines : [element('span', { class: 'sub' }, job.isTerminal ? '' : 'no progress reported')];
}

function failure({ failure: reported }) {
  const text = [...new Set([reported?.code, reported?.message].filter(Boolean))].join(': ');
  return text
    ? element('span', { class: 'why', title: text }, text)
    : element('span', { class: 'sub' }, 'no reason reported');
}

function bar({ externalId, state, progress: { completed, total } }) {
  const meter = element('span', {
    class: 'meter', role: 'progressbar', 'aria-label': `progress of ${externalId}`,
    'aria-valuemin': '0', 'aria-valuemax': Math.max(total, 1), 'aria-valuenow': Math.min(completed, Math.max(total, 1)),
    'aria-valuetext': `${completed} of ${total} parts`,
  }, element('i'));
  meter.firstChild.style.width = `${total > 0 ? Math.min(100, (100 * completed) / total) : 0}%`;
  return element('div', { class: 'bar', 'data-state': state }, meter, element('span', {}, `${number(completed)} / ${number(total)}`));
}

/** A line for a job without progress, or beside it. */
function remark(job) {
  if (job.state === 'SUCCEEDED') {
    if (job.result?.totalRows) return count(Number(job.result.totalRows), 'row');
    if (job.entity?.id) return `${job.entity.type ?? 'object'} ${job.entity.id}`;
  }
  if (job.state === 'QUEUED' && job.queue?.tasksScheduled) {
    return `licence queue: ${job.queue.tasksScheduled} scheduled, ${job.queue.tasksRunning ?? 0} running`;
  }
  if (job.state === 'EXPIRED') return `${UPSTREAMS[job.source.upstream]} no longer keeps this job`;
  if (!job.isTerminal && !job.progress && !job.estimate && job.entity?.type) return `${job.entity.type} ${job.entity.id ?? ''}`;
  return '';
}
