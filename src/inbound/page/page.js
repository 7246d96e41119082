// The live page: queries the stored jobs, subscribes to their updates, and shows both. External text is inserted as
// text, never as markup.

import { Socket } from './socket.js';

const ROWS_MAX = 500;
const SOURCES_EVERY_MS = 10_000;

const JOB = `
  __typename
  ... on Job {
    id externalId source { name } state isTerminal nativeState stateSince
    progress { completed total } failure { code message }
    freshness { observedAt isStale staleReason }
  }
  ... on MindBridgeJob { kind }`;
const PROBLEM = '... on JobProblem { message }';
const START = `query Start { jobList(first: 100) { nodes { ${JOB} } } }`;
const SOURCES = 'query Sources { sources { name upstream health throttledUntil lastError { message } } }';
const FEED = `subscription Feed { jobFeed { result { ${JOB} } } }`;
const WATCH = `subscription Watch($ref: JobRef!) { jobUpdates(refs: [$ref]) { result { ${JOB} ${PROBLEM} } } }`;

const TONES = {
  SUCCEEDED: 'good', FAILED: 'bad', EXPIRED: 'bad', RUNNING: 'busy', QUEUED: 'busy', UNKNOWN: 'wait',
  HEALTHY: 'good', UNAVAILABLE: 'bad', DEGRADED: 'bad', CREDENTIAL_REJECTED: 'bad', UNCONFIGURED: 'bad', THROTTLED: 'wait',
};

const $ = (id) => document.getElementById(id);
/** The jobs of the table by id, each with the elements of its row. */
const rows = new Map();
let socket = null;
let sourcesTimer = null;

function enter(token) {
  leave();
  const url = new URL('graphql', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  url.hash = '';
  socket = new Socket(url, token, (state, words) => connection(state, words, Boolean(token)));
  socket.run(START, {}, { next: ({ data }) => data?.jobList.nodes.forEach(show), error: showErrors });
  socket.run(FEED, {}, { next: ({ data }) => data && show(data.jobFeed.result), error: showErrors });
  fetchSources();
  sourcesTimer = setInterval(fetchSources, SOURCES_EVERY_MS);
  for (const reference of decodeURIComponent(location.hash.slice(1)).split(',').filter(Boolean)) watch(reference);
}

function leave() {
  clearInterval(sourcesTimer);
  socket?.close();
  rows.clear();
  $('jobs').replaceChildren();
}

function connection(state, words, hasToken) {
  const forbidden = state === 'forbidden';
  $('connection').dataset.state = forbidden ? 'closed' : state;
  $('connection').textContent = forbidden ? 'signed out' : words;
  if (state === 'live') {
    $('entry').hidden = true;
    $('desk').hidden = false;
  }
  if (forbidden) {
    leave();
    $('desk').hidden = true;
    $('entry').hidden = false;
    if (hasToken) $('entry-reason').textContent = 'Unknown, expired or revoked key or token. Enter another one.';
    $('token').focus();
  }
}

function showErrors(errors) {
  $('error-message').textContent = errors.map(({ message }) => message).join('; ');
}

function fetchSources() {
  socket.run(SOURCES, {}, { next: ({ data }) => data && showSources(data.sources), error: showErrors });
}

function showSources(sources) {
  $('sources').replaceChildren(...sources.map(({ name, upstream, health, throttledUntil, lastError }) => {
    const until = throttledUntil ? ` until ${clock(throttledUntil)}` : '';
    const why = lastError && health !== 'HEALTHY' ? `: ${lastError.message}` : '';
    return element('li', {}, name, ' ', element('span', { tone: TONES[health] ?? '' }, `${upstream.toLowerCase()}, ${word(health)}${until}${why}`));
  }));
}

/** Follows one job by `source/external id`; a problem is shown in its row. */
function watch(reference) {
  const slash = reference.indexOf('/');
  const [source, externalId] = [reference.slice(0, slash), reference.slice(slash + 1)];
  if (slash < 1 || !externalId) {
    $('error-message').textContent = `"${reference}" is not a job reference; use source/external ID`;
    return;
  }
  $('error-message').textContent = '';
  const update = ({ data, errors }) => {
    if (errors) showErrors(errors);
    const result = data?.jobUpdates.result;
    if (result?.__typename === 'JobProblem') $('error-message').textContent = `${reference}: ${result.message}`;
    else if (result) show(result);
  };
  socket.run(WATCH, { ref: { external: { source, externalId } } }, { next: update, error: showErrors });
}

function show(job) {
  if (!job.id) return;
  let row = rows.get(job.id);
  if (!row) {
    row = { line: element('tr'), seen: element('td') };
    rows.set(job.id, row);
    forgetOldest();
  }
  const { state, nativeState, stateSince, source, externalId, kind } = job;
  row.job = job;
  row.line.replaceChildren(
    element('td', {}, externalId, element('small', {}, kind ? `${source.name}, ${kind}` : source.name)),
    element('td', stateSince ? { title: `since ${clock(stateSince)}` } : {},
      element('span', { class: 'state', tone: TONES[state] ?? '' }, word(state)),
      element('small', {}, nativeState ?? '')),
    element('td', {}, ...progress(job)),
    row.seen,
    element('td', {}, job.failure ? [...new Set([job.failure.code, job.failure.message].filter(Boolean))].join(': ') : ''),
  );
  age(row);
  // the newest change first; rows that move while they are read are worse than a slightly outdated order
  if (!row.line.isConnected) $('jobs').prepend(row.line);
  filter();
}

function forgetOldest() {
  if (rows.size <= ROWS_MAX) return;
  const ended = [...rows].find(([, { job }]) => job?.isTerminal) ?? rows.entries().next().value;
  ended[1].line.remove();
  rows.delete(ended[0]);
}

function progress({ externalId, isTerminal, progress: at }) {
  if (!at) return [isTerminal ? '' : 'unknown'];
  const { completed, total } = at;
  if (total === null || completed === null) return [`${completed ?? 'unknown'} done`];
  const bar = element('progress', { 'aria-label': `progress of ${externalId}` });
  [bar.max, bar.value] = [Math.max(total, 1), completed];
  return [bar, element('small', {}, `${completed} of ${total}`)];
}

function age({ job, seen }) {
  const { observedAt, isStale, staleReason } = job.freshness;
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(observedAt)) / 1000));
  seen.title = observedAt;
  const ago = seconds < 60 ? `${seconds} s ago` : clock(observedAt);
  const stale = isStale && !job.isTerminal;
  seen.replaceChildren(ago, ...(stale ? [element('small', { class: 'stale' }, `stale: ${word(staleReason ?? '')}`)] : []));
}

function filter() {
  const [wanted, text] = [$('show').value, $('search').value.trim().toLowerCase()];
  let shown = 0;
  for (const { job, line } of rows.values()) {
    const of = {
      all: true, open: !job.isTerminal, ended: job.isTerminal, failed: ['FAILED', 'EXPIRED'].includes(job.state),
    }[wanted];
    const fits = of && `${job.source.name}/${job.externalId}`.toLowerCase().includes(text);
    line.hidden = !fits;
    shown += fits;
  }
  $('count').textContent = `${shown} of ${rows.size} jobs`;
}

function element(name, { tone, ...attributes } = {}, ...content) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (tone) made.dataset.tone = tone;
  made.append(...content);
  return made;
}

const word = (name) => name.toLowerCase().replaceAll('_', ' ');
const clock = (time) => new Date(time).toLocaleString();

$('entry').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = $('token').value.trim();
  $('token').value = '';
  enter(token);
});
$('watch').addEventListener('submit', (event) => {
  event.preventDefault();
  watch($('reference').value.trim());
  $('reference').value = '';
});
$('show').addEventListener('change', filter);
$('search').addEventListener('input', filter);
setInterval(() => rows.forEach((row) => row.job && age(row)), 1000);
enter('');
