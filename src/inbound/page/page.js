// The live page: joins the connection, the jobs, and the parts of the page that show them. External text is inserted as
// text, never as markup.

import { addressOf, listQuery, readAddress, readReference, referenceText, sameList } from './address.js';
import { onTick } from './clock.js';
import { Details } from './details.js';
import { SOURCES, VIEWER } from './documents.js';
import { $, element, setAttribute, setText } from './dom.js';
import { Filters } from './filters.js';
import { duration, full } from './format.js';
import { holderOf } from './identity.js';
import { Jobs } from './jobs.js';
import { beginLogin, finishLogin, readSettings } from './login.js';
import { Sources } from './sources.js';
import { copy, track } from './snippets.js';
import { Socket } from './socket.js';
import { Table } from './table.js';

/** In seconds, while the tab is visible. */
const REFRESH_EVERY = 5;
const SOURCES_EVERY = 5;
const COUNTS_EVERY = 20;

let view = readAddress();
/** The public settings of the gateway: whether it has an explorer, and where people sign in. */
let settings = { explorer: false, logins: [] };
let socket = null;
/** The number of the sign-in: an earlier socket reports nothing any more. */
let session = 0;
let token = '';
/** What the gateway says about the client of this connection; null until it is read. */
let viewer = null;
let retryAt = 0;

const jobs = new Jobs((what) => changed(what));
const table = new Table(jobs, (id) => open(jobs.rows.get(id).job));
const filters = new Filters((next, typed) => go(next, typed));
const sources = new Sources();
const details = new Details(() => go({ ...view, job: null }));

/** Shows another view, with an entry in the history unless it is typed letter by letter. */
function go(next, isTyped = false) {
  const before = view;
  view = next;
  history[isTyped ? 'replaceState' : 'pushState'](null, '', addressOf(view));
  follow(before);
}

/** Shows what has changed between the views. */
function follow(before) {
  filters.show(view);
  if (!sameList(before, view)) {
    jobs.show(listQuery(view));
    if ($('jobs').getBoundingClientRect().top < 0) $('jobs').scrollIntoView({ block: 'start', behavior: 'instant' });
  }
  showDetails();
}

function open({ source, externalId }) {
  go({ ...view, job: { source: source.name, externalId } });
}

function showDetails() {
  const row = openRow();
  table.select(row?.job.id ?? null);
  details.show(view.job, row);
  setSheet(view.job !== null && matchMedia('(max-width: 1100px)').matches);
}

/** Whether the details cover the page: then they are a dialog, and the rest is not to be reached. */
function setSheet(isSheet) {
  for (const part of [$('main'), $('top')]) part.inert = isSheet;
  setAttribute($('details'), 'role', isSheet ? 'dialog' : 'complementary');
  setAttribute($('details'), 'aria-modal', isSheet ? 'true' : null);
}

/** The row of the job whose details are open; null if the table has none. */
function openRow() {
  if (!view.job) return null;
  const isOpen = ({ job }) => job.externalId === view.job.externalId && job.source.name === view.job.source;
  return [...jobs.rows.values()].find(isOpen) ?? null;
}

/** The jobs have changed. */
function changed(what) {
  if (what !== 'rows') showState();
  if (what === 'order' || what === 'list') table.select(openRow()?.job.id ?? null);
  else table.schedule();
  // at once: the URL and the text already describe the new list
  if (what === 'list') table.render();
}

/** The words about the list as a whole. */
function showState() {
  const matching = jobs.order.reduce((sum, id) => sum + (jobs.rows.get(id).hasLeft ? 0 : 1), 0);
  filters.offer({
    sources: sources.names, kinds: jobs.kinds, labels: jobs.labels, counts: jobs.counts, shown: matching,
    total: jobs.total === null ? null : Math.max(jobs.total, jobs.hasMore ? 0 : matching), isLoading: jobs.isLoading,
  });
  const isEmpty = jobs.total === 0 && jobs.order.length === 0;
  $('empty').hidden = !isEmpty || jobs.hasFilter;
  $('no-match').hidden = !isEmpty || !jobs.hasFilter;
  $('table').classList.toggle('bare', isEmpty);
  const reference = readReference(view.text);
  $('look-up').hidden = reference === null;
  if (reference) setText($('look-up'), `Look up ${referenceText(reference)} at its source`);
  setText($('problem'), jobs.problem ?? '');
  $('problem').hidden = !jobs.problem;
  $('more').hidden = !jobs.hasMore;
}

/** Removes what belongs to a session from the page. */
function forget() {
  viewer = null;
  sources.clear();
  jobs.clear();
}

function enter(given) {
  socket?.close();
  token = given;
  forget();
  const url = new URL('graphql', location.href.split(/[?#]/)[0]);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const mine = ++session;
  socket = new Socket(url, token, (report) => mine === session && connection(report));
  jobs.show(listQuery(view));
}

/** Shows what happened to the connection, and starts or stops everything that needs one. */
function connection({ state, reason, retryAt: next, wasLive, isFirst }) {
  document.body.dataset.connection = state;
  const word = { live: 'live', connecting: 'connecting', waiting: 'no connection', forbidden: 'signed out', closed: 'closed' }[state];
  setText($('connection-word'), word);
  const isDead = state === 'waiting' || state === 'closed' || (state === 'connecting' && !isFirst);
  $('dead').hidden = !isDead;
  // also during each attempt, so that the page does not flicker
  document.body.classList.toggle('dead', isDead);
  retryAt = state === 'waiting' ? next : 0;
  showDead(state, reason);
  if (state === 'live') {
    showDesk(true);
    $('who').hidden = false;
    showHolder();
    readViewer();
    jobs.connect(socket);
    showDetails();
    details.connect(socket, token === '');
    setText($('first-step'), track(token === ''));
    readSources();
  } else if (state !== 'connecting') {
    jobs.disconnect();
    details.disconnect();
    showState();
    table.schedule();
  }
  if (state === 'forbidden') signOut(reason, wasLive);
}

function showDead(state, reason) {
  if ($('dead').hidden) return;
  if (state === 'closed') setText($('dead-why'), `The gateway closed the connection: ${reason}. Reload the page.`);
  else if (state === 'connecting') setText($('dead-why'), 'The gateway does not answer. Connecting now.');
  else setText($('dead-why'), 'The gateway does not answer. What you see is as of the last answer.');
  showCountdown();
}

function showCountdown() {
  const left = retryAt ? Math.ceil((retryAt - Date.now()) / 1000) : 0;
  setText($('dead-countdown'), left > 0 ? `Next attempt in ${left} s` : '');
}

/** Ends the session, and asks for a credential. */
function signOut(reason = '', wasLive = false) {
  const had = token;
  session += 1;
  socket?.close();
  socket = null;
  token = '';
  forget();
  details.show(null);
  setSheet(false);
  showDesk(false);
  $('who').hidden = true;
  document.body.dataset.connection = 'forbidden';
  setText($('connection-word'), 'signed out');
  $('dead').hidden = true;
  document.body.classList.remove('dead');
  $('token').removeAttribute('aria-invalid');
  setText($('entry-title'), wasLive ? 'Your session has ended' : 'Sign in');
  if (wasLive) showReason('The key or token expired or was revoked. Sign in again to continue where you were.');
  // the reason begins with the word of its close code
  else if (had && reason) showReason(`The gateway does not accept this key or token: ${reason.replace(/^(Unauthorized|Forbidden): /, '')}.`);
  else showReason('');
  if (had && reason && !wasLive) $('token').setAttribute('aria-invalid', 'true');
  offerLogins();
  $('token').focus();
}

function showReason(words) {
  setText($('entry-reason'), words);
  $('entry-reason').hidden = words === '';
}

function showDesk(isShown) {
  $('desk').hidden = !isShown;
  $('entry').hidden = isShown;
}

function showHolder() {
  $('sign-out').hidden = token === '';
  const { lead, name, detail, expiresAt } = viewer ? holderOf(viewer, token) : { lead: '', name: '', detail: '', expiresAt: null };
  setText($('holder-lead'), lead);
  setText($('holder'), name);
  const until = expiresAt ? `expires in ${duration(expiresAt - Date.now())}` : '';
  setText($('holder-detail'), [detail, until].filter(Boolean).join(' · '));
  $('holder').title = expiresAt ? `until ${full(expiresAt)}` : '';
}

async function readViewer() {
  const asked = socket;
  try {
    const data = await asked.query(VIEWER);
    if (asked !== socket) return;
    viewer = data.viewer;
    showHolder();
  } catch {
    // it is read again on the next connection
  }
}

/** Removes rows that no longer match, outside of the visible part. */
function dropLeft() {
  if (!jobs.hasLeft) return;
  const visible = new Set(table.visible);
  jobs.dropLeft((id) => visible.has(id));
  showState();
  table.schedule();
}

async function readSources() {
  const asked = socket;
  if (!asked?.isLive) return;
  try {
    const data = await asked.query(SOURCES);
    if (asked !== socket) return;
    sources.show(data.sources);
    jobs.setSources(data.sources);
    showState();
    table.tick();
  } catch {
    // it is read again in a few seconds
  }
}

onTick((seconds) => {
  showCountdown();
  if (!socket) return;
  socket.checkPeer();
  if (!socket.isLive) return;
  dropLeft();
  table.tick();
  sources.tick();
  details.tick(openRow()?.job);
  showHolder();
  if (seconds % SOURCES_EVERY === 0) readSources();
  if (seconds % REFRESH_EVERY === 2) jobs.refresh(table.visible);
  if (seconds % COUNTS_EVERY === 4) jobs.readCounts();
});

document.addEventListener('visibilitychange', () => {
  if (document.hidden || !socket) return;
  table.schedule();
  if (!socket.isLive) socket.retry();
  else jobs.refresh(table.visible);
});
addEventListener('popstate', () => {
  const before = view;
  view = readAddress();
  follow(before);
});
addEventListener('keydown', (event) => {
  if (event.key !== '/' || event.target.matches('input, select, textarea') || $('desk').hidden) return;
  event.preventDefault();
  $('search').focus();
});
$('entry').addEventListener('submit', (event) => {
  event.preventDefault();
  const given = $('token').value.trim();
  $('token').value = '';
  if (given) enter(given);
});
$('sign-out').addEventListener('click', () => signOut());
$('retry').addEventListener('click', () => socket?.retry());
$('reload').addEventListener('click', () => jobs.reload());
$('no-match-clear').addEventListener('click', () => filters.clear());
$('look-up').addEventListener('click', () => go({ ...view, text: '', job: readReference(view.text) }));
$('find').addEventListener('submit', (event) => {
  event.preventDefault();
  const reference = readReference($('reference').value.trim());
  $('reference').setCustomValidity(reference ? '' : 'write source/external ID');
  if ($('find').reportValidity() && reference) go({ ...view, job: reference });
});
$('reference').addEventListener('input', () => $('reference').setCustomValidity(''));
$('first-step-copy').addEventListener('click', async () => {
  const isCopied = await copy($('first-step').textContent);
  setText($('first-step-said'), isCopied ? 'copied' : 'select the text to copy it');
});

/** Begins with what a sign-in at an issuer returned, if there was one. */
async function begin() {
  await offerLogins();
  const returned = await finishLogin(settings.logins);
  if (returned) {
    history.replaceState(null, '', `${location.pathname}${returned.search}`);
    view = readAddress();
  }
  filters.show(view);
  if (returned?.problem) {
    signOut();
    showReason(returned.problem);
    return;
  }
  enter(returned?.token ?? '');
  showDetails();
}

/** Offers the issuers of this gateway, as they are configured now. */
async function offerLogins() {
  settings = await readSettings(settings);
  $('pages').hidden = !settings.explorer;
  $('logins').hidden = settings.logins.length === 0;
  $('logins').replaceChildren(...settings.logins.map((login) => {
    const button = element('button', { type: 'button', class: 'primary' }, `Sign in with ${new URL(login.issuer).host}`);
    button.addEventListener('click', async () => {
      const problem = await beginLogin(login, settings.logins.indexOf(login), location.search);
      if (problem) showReason(problem);
    });
    return button;
  }));
}

filters.show(view);
begin();
