// Follows jobs for all watchers of a client: one subscription for the jobs that were named together, again after each
// loss of the connection, over the first transport that works.
import { CredentialRejected, fromErrors, JobgateError, TransportBlocked } from './errors.js';
import { backoff, linked, sleep, untilAborted } from './pause.js';
import { keysOf, REFS_MAX } from './refs.js';
import { wait } from './waiting.js';

/** How long a transport that worked is used before those that are preferred to it are tried again. */
const RETRY_PREFERRED_MS = 300_000;
/** Event streams of a client: a browser has six HTTP/1.1 connections for all its tabs. */
const EVENT_STREAMS_MAX = 2;
/** Subscriptions on a WebSocket, which carries up to 200 operations. */
const SUBSCRIPTIONS_MAX = 50;

/**
 * @typedef {object} Watcher
 * @property {(key: string, update: any) => void} update
 * @property {(status: import('../index.js').ConnectionStatus) => void} status
 * @property {(error: Error) => void} fail
 */
/** @typedef {{ ref: import('../schema.js').JobRef, watchers: Set<Watcher>, last: any, signature: string, stream: JobStream | null }} Entry */
/**
 * @typedef {object} Access
 * @property {import('./token.js').Token} token
 * @property {import('./http.js').Http} http
 * @property {import('./socket.js').Socket | null} socket
 * @property {import('../index.js').Transport[]} transports
 * @property {number} maxPauseMs
 */

/** The transport in use, for all streams of a client. */
export class TransportChoice {
  #all;
  #index = 0;
  #retryAt = Infinity;

  /** @param {import('../index.js').Transport[]} all */
  constructor(all) {
    this.#all = all;
  }

  /** The transports to try, in this order. */
  candidates() {
    if (this.isDue()) this.#index = 0;
    return this.#all.slice(this.#index);
  }

  /** Whether a preferred transport is to be tried again. */
  isDue() {
    return Date.now() >= this.#retryAt;
  }

  /** @param {import('../index.js').Transport} transport */
  works(transport) {
    const index = this.#all.indexOf(transport);
    if (index === this.#index) return;
    this.#index = index;
    this.#retryAt = index === 0 ? Infinity : Date.now() + RETRY_PREFERRED_MS;
  }
}

/** The jobs that are watched with one selection. */
export class Following {
  #access;
  #choice;
  #selection;
  #maxStaleness;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {Set<JobStream>} */
  #streams = new Set();
  #isScheduled = false;

  /**
   * @param {Access} access
   * @param {TransportChoice} choice
   * @param {string} selection the fields of a result
   * @param {string | null} maxStaleness
   */
  constructor(access, choice, selection, maxStaleness) {
    this.#access = access;
    this.#choice = choice;
    this.#selection = selection;
    this.#maxStaleness = maxStaleness;
  }

  /**
   * @param {Map<string, import('../schema.js').JobRef>} refs
   * @param {Watcher} watcher
   */
  add(refs, watcher) {
    for (const [key, ref] of refs) {
      const entry = this.#entries.get(key) ?? { ref, watchers: new Set(), last: null, signature: '', stream: null };
      this.#entries.set(key, entry);
      entry.watchers.add(watcher);
      // a later watcher first gets the last update of the others
      if (entry.last) queueMicrotask(() => entry.watchers.has(watcher) && watcher.update(key, { ...entry.last, kind: 'SNAPSHOT' }));
    }
    this.#schedule();
  }

  /**
   * @param {Iterable<string>} keys
   * @param {Watcher} watcher
   */
  remove(keys, watcher) {
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (!entry?.watchers.delete(watcher) || entry.watchers.size > 0) continue;
      this.#entries.delete(key);
      entry.stream?.remove(key);
    }
  }

  /** Jobs that are named within one turn of the event loop share a subscription. */
  #schedule() {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setTimeout(() => {
      this.#isScheduled = false;
      this.#open();
    }, 0);
  }

  #open() {
    if (this.#isAtLimit()) {
      for (const stream of this.#streams) stream.close();
      this.#streams.clear();
      for (const entry of this.#entries.values()) entry.stream = null;
    }
    const waiting = [...this.#entries].filter(([, { stream }]) => !stream);
    for (let at = 0; at < waiting.length; at += REFS_MAX) {
      /** @type {JobStream} */
      const stream = new JobStream(this.#access, this.#choice, this.#selection, this.#maxStaleness, new Map(waiting.slice(at, at + REFS_MAX)), {
        update: (update) => this.#deliver(stream, update),
        // after a fallback there may be too many event streams
        live: () => stream.transport !== 'websocket' && this.#schedule(),
        over: () => this.#streams.delete(stream),
      });
      for (const [, entry] of waiting.slice(at, at + REFS_MAX)) entry.stream = stream;
      this.#streams.add(stream);
    }
  }

  /** Whether there are so many streams that their jobs, and those without one, are to share fewer. */
  #isAtLimit() {
    const hasEvents = [...this.#streams].some(({ transport }) => transport !== 'websocket');
    const needed = Math.ceil(this.#entries.size / REFS_MAX);
    return this.#streams.size >= (hasEvents ? EVENT_STREAMS_MAX : SUBSCRIPTIONS_MAX) && needed < this.#streams.size;
  }

  /**
   * @param {JobStream} stream
   * @param {any} update
   */
  #deliver(stream, update) {
    const signature = signatureOf(update);
    for (const key of keysOf(update.result)) {
      const entry = this.#entries.get(key);
      if (entry?.stream !== stream) continue;
      const isKnown = entry.signature === signature;
      // by what the watchers have received: each connection starts with a snapshot
      const kind = entry.last === null ? 'SNAPSHOT' : update.isFinal ? 'ENDED' : 'CHANGED';
      entry.last = update;
      entry.signature = signature;
      const watchers = [...entry.watchers];
      if (update.isFinal) {
        this.#entries.delete(key);
        stream.remove(key);
      }
      // after a reconnect the gateway repeats the state
      if (!isKnown) for (const watcher of watchers) watcher.update(key, { ...update, kind });
    }
  }
}

/**
 * A text that is equal for updates that differ in nothing but the age of the result, the estimate, and the times of a
 * gateway that began to observe the job later.
 * @param {any} update
 */
function signatureOf({ isFinal, result }) {
  const { freshness, estimate, firstSeenAt, stateSince, terminalSeenAt, ...rest } = result;
  return JSON.stringify([isFinal, freshness?.isStale, freshness?.staleReason, rest]);
}

/** One subscription to up to 200 jobs, across connections. It ends with the jobs, or with an error that a retry cannot solve. */
class JobStream {
  #access;
  #choice;
  #selection;
  #maxStaleness;
  #pending;
  #on;
  #link = linked([]);
  /**
   * The transport that is in use or tried first.
   * @type {import('../index.js').Transport}
   */
  transport;

  /**
   * @param {Access} access
   * @param {TransportChoice} choice
   * @param {string} selection
   * @param {string | null} maxStaleness
   * @param {Map<string, Entry>} pending
   * @param {{ update: (update: any) => void, live: () => void, over: () => void }} on
   */
  constructor(access, choice, selection, maxStaleness, pending, on) {
    this.#access = access;
    this.#choice = choice;
    this.#selection = selection;
    this.#maxStaleness = maxStaleness;
    this.#pending = pending;
    this.#on = on;
    this.transport = choice.candidates()[0];
    this.#run();
  }

  /** @param {string} key */
  remove(key) {
    this.#pending.delete(key);
    if (this.#pending.size === 0) this.close();
  }

  close() {
    this.#link.abort(new Error('closed'));
  }

  async #run() {
    const { signal } = this.#link;
    let failures = 0;
    let isRenewed = false;
    this.#report({ state: 'connecting' });
    while (!signal.aborted) {
      try {
        for await (const answer of this.#answers(signal)) {
          if (answer.errors?.length && !answer.data) throw fromErrors(answer.errors, null);
          if (failures > 0 || isRenewed) [failures, isRenewed] = [0, false];
          this.#on.update(answer.data.jobUpdates);
        }
        if (this.#pending.size === 0) break;
        // requests that wait have no end of their own
        if (this.transport === 'wait' && this.#choice.isDue()) continue;
        throw new JobgateError('CONNECTION_LOST', 'the subscription ended before all jobs did', { retryable: true });
      } catch (thrown) {
        if (signal.aborted) break;
        const error = this.#meaning(thrown);
        if (!error.retryable) {
          for (const watcher of this.#watchers()) watcher.fail(error);
          break;
        }
        // an expired token is renewed at once, and then like any other failure
        /** @type {boolean} */
        const isFirst = thrown instanceof CredentialRejected && !isRenewed;
        if (isFirst) isRenewed = true;
        const pauseMs = isFirst ? 0 : backoff(failures++, this.#access.maxPauseMs, error.retryAfterMs);
        this.#report({ state: 'reconnecting', error, retryInMs: Math.round(pauseMs) });
        await sleep(pauseMs, signal).catch(() => {});
      }
    }
    this.#on.over();
  }

  /**
   * The answers of the first transport that works.
   * @param {AbortSignal} signal
   */
  async *#answers(signal) {
    // a slow function must not look like a blocked transport
    await untilAborted(this.#access.token.value(), signal);
    let blocked = new TransportBlocked('there is no transport');
    for (const transport of this.#choice.candidates()) {
      let isLive = false;
      try {
        for await (const answer of this.#over(transport, signal)) {
          if (!isLive) {
            isLive = true;
            this.transport = transport;
            this.#choice.works(transport);
            this.#report({ state: 'live', transport });
            this.#on.live();
          }
          yield answer;
        }
        return;
      } catch (error) {
        if (!(error instanceof TransportBlocked)) throw error;
        blocked = error;
      }
    }
    throw blocked;
  }

  /**
   * @param {import('../index.js').Transport} transport
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any, void, void>}
   */
  #over(transport, signal) {
    const { http, socket } = this.#access;
    if (transport === 'wait') return wait(http, this.#selection, this.#pending, this.#maxStaleness, () => this.#choice.isDue(), signal);
    const refs = [...this.#pending.values()].map(({ ref }) => ref);
    const query = `subscription($refs: [JobRef!]!, $maxStaleness: Duration) {
      jobUpdates(refs: $refs, maxStaleness: $maxStaleness) { kind isFinal result { ${this.#selection} } } }`;
    const payload = { query, variables: { refs, maxStaleness: this.#maxStaleness } };
    return transport === 'websocket' && socket ? socket.run(payload, signal) : http.events(payload, signal);
  }

  /**
   * @param {unknown} thrown
   * @returns {JobgateError}
   */
  #meaning(thrown) {
    if (thrown instanceof JobgateError) return thrown;
    if (thrown instanceof CredentialRejected) {
      return this.#access.token.rejected(thrown) ?? new JobgateError('UNAUTHENTICATED', thrown.message, { retryable: true });
    }
    if (thrown instanceof TransportBlocked) {
      return new JobgateError(thrown.isForeign ? 'NOT_A_GATEWAY' : 'UNREACHABLE', thrown.message, { retryable: !thrown.isForeign });
    }
    return new JobgateError('INTERNAL', `an error of the client: ${thrown}`, { cause: thrown });
  }

  #watchers() {
    return new Set([...this.#pending.values()].flatMap(({ watchers }) => [...watchers]));
  }

  /** @param {import('../index.js').ConnectionStatus} status */
  #report(status) {
    for (const watcher of this.#watchers()) watcher.status(status);
  }
}
