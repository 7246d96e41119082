// The jobs of the table: pages of `jobList` in the gateway's order, kept true by `jobFeed`. Knows nothing of elements.
//
// An answer belongs to an epoch. A connection that lost changes begins a new one, and each row that is of an older epoch has
// not been read again. Within an epoch a later observation wins; across epochs the newer one does, because a gateway that was
// killed can have forgotten what it answered before.

import { learnTime, now } from './clock.js';
import { FEED, LIST, REFRESH, counts } from './documents.js';
import { Disconnected } from './socket.js';

const PAGE = 100;
/** Rows that are refreshed at once. */
const REFRESH_MAX = 200;
/** A row of a job that is not followed is read this many times again, in case it is followed by now. */
const RECHECKS_MAX = 3;
/** A row that was read longer ago is read again before its age means anything. */
const READ_MS = 15_000;
/** Changes of jobs that are not in the table are collected for so long before the list is read. */
const NEWS_MS = 700;
/** The groups of states are not counted more often. */
const COUNTS_MS = 5000;
/** A feed that the gateway refused is tried again after this time. */
const REFUSED_MS = 5000;
/** A job that is not swept is read again within this time, unless the budget is short. */
const UNREFRESHED_MS = 120_000;
/** Where an observation comes from: a page of the list, a read by reference, the feed. */
const [LISTED, REFRESHED, CHANGED] = ['listed', 'refreshed', 'changed'];
const TROUBLED = new Set(['UNAVAILABLE', 'DEGRADED', 'CREDENTIAL_REJECTED', 'UNCONFIGURED']);

/** Groups of states that people filter by; each state is in one. */
export const GROUPS = [
  { key: 'all', word: 'All', states: null },
  { key: 'queued', word: 'Queued', states: ['QUEUED'] },
  { key: 'running', word: 'Running', states: ['RUNNING'] },
  { key: 'succeeded', word: 'Succeeded', states: ['SUCCEEDED'] },
  { key: 'failed', word: 'Failed', states: ['FAILED'] },
  { key: 'other', word: 'Other', states: ['CANCELED', 'EXPIRED', 'UNKNOWN'] },
];

export class Jobs {
  /** The rows by id: `{ job, labels, origin, epoch, version }`. */
  rows = new Map();
  /** The ids in the order of the table. */
  order = [];
  /** The number of matching jobs, null before the first answer. */
  total = null;
  /** By the key of the group. */
  counts = {};
  hasMore = false;
  /** Whether a row no longer matches the filter. */
  hasLeft = false;
  isLoading = false;
  /** Why the last read failed, for people. */
  problem = null;
  /** The kinds and labels that were seen, for the controls. */
  kinds = new Set();
  labels = new Set();

  #socket = null;
  #changed;
  #query = { filter: {}, order: null };
  #epoch = 0;
  /** The gateway's time when the connection was lost; what was observed before is not known to hold. */
  #lostAt = -Infinity;
  #cursor = '';
  #endCursor = null;
  /** A read of an older generation is dropped. */
  #generation = 0;
  #news = null;
  #countedAt = 0;
  #sources = new Map();
  #stopFeed = () => {};

  /**
   * `changed(what)` is called after each change: of `rows`, of their `order`, of the `state` of the list alone, or when another
   * `list` begins and no row of the earlier one is left.
   */
  constructor(changed) {
    this.#changed = changed;
  }

  /** A connection is live: changes since the last one follow, or everything is read again. */
  connect(socket) {
    this.#socket = socket;
    this.#follow();
  }

  /** The connection was lost. */
  disconnect() {
    if (this.#socket) this.#lostAt = now();
    this.#socket = null;
    this.#generation += 1;
    clearTimeout(this.#news);
    this.#news = null;
    this.isLoading = false;
  }

  /** Forgets everything: somebody signed out. */
  clear() {
    this.disconnect();
    this.rows.clear();
    this.order = [];
    this.total = null;
    this.counts = {};
    this.hasMore = false;
    this.problem = null;
    this.kinds.clear();
    this.labels.clear();
    this.#cursor = '';
    this.#lostAt = -Infinity;
    this.#changed('list');
  }

  /** Shows the jobs of another filter or in another order. */
  show(query) {
    this.#query = query;
    this.#countedAt = 0;
    this.rows.clear();
    this.order = [];
    this.total = null;
    this.hasMore = false;
    this.isLoading = true;
    this.#changed('list');
    return this.reload();
  }

  get hasFilter() {
    return Object.keys(this.#query.filter).length > 0;
  }

  /** Reads again as many jobs as the table has, in the gateway's order. */
  async reload() {
    const wanted = Math.max(PAGE, this.order.length);
    const generation = ++this.#generation;
    const ids = new Set();
    let after = null;
    this.isLoading = true;
    this.problem = null;
    this.#changed('state');
    try {
      do {
        const page = await this.#page(after, PAGE);
        if (generation !== this.#generation) return;
        this.total = page.totalCount ?? this.total;
        for (const edge of page.edges) {
          this.#accept(edge.node, LISTED, edge);
          ids.add(edge.node.id);
        }
        this.hasMore = page.pageInfo.hasNextPage;
        after = page.pageInfo.endCursor;
        // the first page of an empty table is shown at once; a table with rows keeps their places until all are read
        if (this.order.length === 0) this.order = [...ids];
        this.#changed('rows');
      } while (this.hasMore && ids.size < wanted);
      this.#endCursor = after;
      // a job that changed meanwhile can have moved to a page that was read before: the feed had it, and it stays
      const moved = this.order.filter((id) => !ids.has(id) && this.rows.get(id).generation === generation);
      this.#replace([...moved, ...ids]);
      this.isLoading = false;
      this.#changed('order');
      this.readCounts();
    } catch (error) {
      this.#failed(error, generation);
    }
  }

  /** Reads the next page, if there is one. */
  async more() {
    if (!this.hasMore || this.isLoading || !this.#socket) return;
    const generation = this.#generation;
    this.isLoading = true;
    try {
      const page = await this.#page(this.#endCursor, PAGE);
      if (generation !== this.#generation) return;
      const known = new Set(this.order);
      for (const edge of page.edges) {
        this.#accept(edge.node, LISTED, edge);
        if (!known.has(edge.node.id)) this.order.push(edge.node.id);
      }
      this.#endCursor = page.pageInfo.endCursor;
      this.hasMore = page.pageInfo.hasNextPage;
      this.isLoading = false;
      this.#changed('order');
    } catch (error) {
      this.#failed(error, generation);
    }
  }

  /**
   * Reads rows as the gateway holds them: when each was observed last, and when it is read next. These are the rows in view,
   * and those that were not read at their source since the connection was lost: the feed is silent about a job that was read
   * and has not changed.
   */
  async refresh(visible) {
    if (!this.#socket) return;
    const isOpen = (id) => this.rows.get(id)?.job.isTerminal === false;
    const isUnread = (id) => observed(this.rows.get(id).job) < this.#lostAt;
    // one that is not followed stays so, or is followed by now: a few reads show which
    const isDoubtful = (id) => isUnfollowed(this.rows.get(id).job) && this.rows.get(id).rechecks < RECHECKS_MAX;
    const open = visible.filter(isOpen);
    const inView = new Set(open);
    const others = this.order.filter((id) => !inView.has(id) && isOpen(id) && (isUnread(id) || isDoubtful(id)));
    // when every row was read again, only those in view are of interest
    if (![...open, ...others].some(isUnread)) this.#lostAt = -Infinity;
    // the longest unread first, so that all have their turn
    others.sort((one, other) => this.rows.get(one).readAt - this.rows.get(other).readAt);
    open.push(...others);
    if (open.length === 0) return;
    open.length = Math.min(open.length, REFRESH_MAX);
    for (const id of open) this.rows.get(id).rechecks += 1;
    const epoch = this.#epoch;
    try {
      const { jobs } = await this.#socket.query(REFRESH, { refs: open.map((id) => ({ id })) });
      if (epoch !== this.#epoch) return;
      const found = jobs.find(({ id }) => id);
      if (found) learnTime(found.freshness);
      for (const job of jobs) if (job.id) this.#accept(job, REFRESHED);
      this.#changed('rows');
    } catch {
      // the next refresh is a few seconds away, and a lost connection is reported by the socket
    }
  }

  /** Counts the jobs of each group of states. */
  async readCounts() {
    if (!this.#socket || Date.now() - this.#countedAt < COUNTS_MS) return;
    this.#countedAt = Date.now();
    const { states: _, ...rest } = this.#query.filter;
    const variables = Object.fromEntries(
      GROUPS.map(({ states }, at) => [`f${at}`, states ? { ...rest, states } : rest]));
    const query = this.#query;
    try {
      const data = await this.#socket.query(counts(GROUPS), variables);
      if (query !== this.#query) return;
      this.counts = Object.fromEntries(GROUPS.map(({ key }, at) => [key, data[`c${at}`].totalCount]));
      this.#changed('state');
    } catch {
      // as above
    }
  }

  /** The sources, whose health shows in their jobs. */
  setSources(sources) {
    this.#sources = new Map(sources.map((source) => [source.name, source]));
  }

  /** Drops the rows that no longer match and are out of view. */
  dropLeft(isVisible) {
    const kept = this.order.filter((id) => !this.rows.get(id).hasLeft || isVisible(id));
    this.hasLeft = kept.some((id) => this.rows.get(id).hasLeft);
    if (kept.length < this.order.length) this.#replace(kept);
  }

  /** Why the row may not be what the upstream has now, in a few words; null if it is current. */
  staleness({ job, epoch, readAt }) {
    if (epoch < this.#epoch) return 'not read again';
    if (job.isTerminal) return null;
    if (!this.#socket) return 'not connected';
    const { observedAt, isStale, staleReason } = job.freshness;
    if (isStale) return staleReason === 'NOT_REFRESHED' ? 'not followed' : staleReason.toLowerCase().replaceAll('_', ' ');
    const observed = Date.parse(observedAt);
    const source = this.#sources.get(job.source.name);
    if (source && TROUBLED.has(source.health) && !(source.lastError && observed > Date.parse(source.lastError.at))) {
      return `source ${source.health.toLowerCase().replaceAll('_', ' ')}`;
    }
    if (observed < this.#lostAt) return 'not read since';
    const verify = source?.discovery?.verifyIntervalMs;
    const age = now() - observed;
    // the gateway can have read it since, without a change that the feed would have
    if (Date.now() - readAt > READ_MS) return null;
    if (age > (verify ? verify * 1.2 + 30_000 : UNREFRESHED_MS)) {
      return source?.health === 'THROTTLED' ? 'throttled' : 'not refreshed';
    }
    return null;
  }

  #follow() {
    this.#stopFeed();
    const socket = this.#socket;
    const isFirst = this.#cursor === '';
    this.#stopFeed = socket.subscribe(FEED, { after: this.#cursor }, {
      next: ({ data }) => {
        if (!data?.jobFeed || socket !== this.#socket) return;
        const { kind, cursor, result } = data.jobFeed;
        this.#cursor = cursor;
        if (kind === 'RESUMED') this.#resumed();
        else if (kind === 'RESET') this.#reset(isFirst);
        else if (result?.id) this.#heard(result);
      },
      error: (errors) => {
        this.problem = errors.map(({ message }) => message).join('; ');
        this.#changed('state');
        // a limit of the client, for example: the changes are asked for again
        setTimeout(() => socket === this.#socket && this.#follow(), REFUSED_MS);
      },
      // too far behind: what was missed is read
      complete: () => socket === this.#socket && this.#follow(),
    });
  }

  /** Nothing was missed: the rows are as true as before. A read that the connection interrupted starts again. */
  #resumed() {
    this.#lostAt = -Infinity;
    if (this.total === null) this.reload();
    else this.#readHead();
  }

  #reset(isFirst) {
    this.#epoch += 1;
    if (isFirst) this.#lostAt = -Infinity;
    this.reload();
  }

  #heard(job) {
    if (this.rows.has(job.id)) {
      this.#accept(job, CHANGED);
      this.#changed('rows');
    } else if (this.#mayMatch(job)) {
      this.#news ??= setTimeout(() => {
        this.#news = null;
        this.#readHead();
      }, NEWS_MS);
    }
  }

  /** Whether a job that is not in the table can belong to it, as far as the job alone shows. */
  #mayMatch({ source, state, kind }) {
    const { sources, states, kinds } = this.#query.filter;
    return (!sources || sources.includes(source.name)) && (!states || states.includes(state))
      && (!kinds || kinds.includes(kind));
  }

  /** Reads the first page, and puts jobs that are new in it behind their neighbours. No other row moves. */
  async #readHead() {
    if (this.isLoading) {
      this.#news ??= setTimeout(() => {
        this.#news = null;
        this.#readHead();
      }, NEWS_MS);
      return;
    }
    const generation = this.#generation;
    try {
      const page = await this.#page(null, PAGE);
      if (generation !== this.#generation) return;
      this.total = page.totalCount;
      const places = new Map(this.order.map((id, at) => [id, at]));
      const inserts = new Map();
      let behind = -1;
      for (const edge of page.edges) {
        const place = places.get(edge.node.id);
        this.#accept(edge.node, LISTED, edge);
        if (place !== undefined) behind = place;
        else inserts.set(behind, [...(inserts.get(behind) ?? []), edge.node.id]);
      }
      if (inserts.size > 0) {
        const order = [...(inserts.get(-1) ?? [])];
        this.order.forEach((id, at) => order.push(id, ...(inserts.get(at) ?? [])));
        this.order = order;
        this.#changed('order');
      } else {
        this.#changed('rows');
      }
      this.readCounts();
    } catch (error) {
      this.#failed(error, generation);
    }
  }

  async #page(after, first) {
    if (!this.#socket) throw new Disconnected();
    const { filter, order } = this.#query;
    // counting reads every job that matches, so the first page does it for all
    const isFirst = after === null;
    const { jobList } = await this.#socket.query(LIST, { filter, order, first, after, isFirst });
    if (jobList.edges.length > 0) learnTime(jobList.edges[0].node.freshness);
    return jobList;
  }

  #accept(job, from, edge = null) {
    const held = this.rows.get(job.id);
    const isNewer = !held || held.epoch < this.#epoch || observed(job) >= observed(held.job);
    if (!isNewer) {
      if (edge) [held.labels, held.origin] = [edge.labels, edge.origin];
      return;
    }
    const isSame = held && observed(job) === observed(held.job);
    if (isSame && held.epoch === this.#epoch && from === REFRESHED && !(isUnfollowed(held.job) && job.freshness.nextPollAt)) {
      // a job by its reference is as fresh as requested; that later polls failed, or that none is planned, is in lists and
      // in the feed
      const { isStale, staleReason } = held.job.freshness;
      Object.assign(job.freshness, { isStale, staleReason });
    }
    // an update of the feed has no time of the next poll; the last one that was read holds until it is over
    if (held && from === CHANGED) job.freshness.nextPollAt ??= held.job.freshness.nextPollAt;
    const readAt = Date.now();
    const row = held ?? { labels: [], origin: null, version: 0 };
    const rechecks = isSame ? row.rechecks : 0;
    Object.assign(row, { job, readAt, rechecks, epoch: this.#epoch, generation: this.#generation, version: row.version + 1 });
    if (edge) [row.labels, row.origin] = [edge.labels, edge.origin];
    const { states } = this.#query.filter;
    row.hasLeft = Boolean(states) && !states.includes(job.state);
    this.hasLeft ||= row.hasLeft;
    this.rows.set(job.id, row);
    if (job.kind) this.kinds.add(job.kind);
    for (const { name, value } of row.labels) this.labels.add(`${name}=${value}`);
  }

  #replace(ids) {
    const kept = new Set(ids);
    for (const id of this.rows.keys()) if (!kept.has(id)) this.rows.delete(id);
    this.order = ids;
  }

  #failed(error, generation) {
    if (generation !== this.#generation) return;
    this.isLoading = false;
    if (error instanceof Disconnected) return;
    this.problem = error.message || 'the gateway refused the request';
    this.#changed('state');
  }
}

const isUnfollowed = ({ isTerminal, freshness }) => !isTerminal && freshness.staleReason === 'NOT_REFRESHED';
const observed = (job) => Date.parse(job.freshness.observedAt);
