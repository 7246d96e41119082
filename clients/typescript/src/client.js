// The client: what index.d.ts declares, on top of the streams in follow.js.
import { jobFields, problemFields } from '../schema.js';
import { CredentialRejected, JobgateError, TransportBlocked } from './errors.js';
import { Following, TransportChoice } from './follow.js';
import { Http } from './http.js';
import { Mailbox } from './mailbox.js';
import { linked, sleep } from './pause.js';
import { parse, REFS_MAX } from './refs.js';
import { Socket } from './socket.js';
import { Token } from './token.js';

/** @typedef {import('../index.js').ClientOptions} ClientOptions */
/** @typedef {import('../index.js').JobReference} JobReference */

const TRANSPORTS = /** @type {const} */ (['websocket', 'sse', 'wait']);
const MAX_PAUSE_MS = 30_000;

/** @param {string | URL} url with or without /graphql */
function endpoints(url) {
  const base = globalThis.location?.href;
  let parsed;
  try {
    parsed = new URL(url, base);
  } catch {
    throw new TypeError(`url ${JSON.stringify(String(url))} is not a URL: write https://HOST, with the path before /graphql if there is one`);
  }
  if (!['http:', 'https:'].includes(parsed.protocol)) throw new TypeError(`url must begin with http: or https:, not ${parsed.protocol}`);
  if (parsed.username || parsed.password || parsed.search) throw new TypeError('url must not contain a credential or a query: use the option token');
  parsed.hash = '';
  parsed.pathname = `${parsed.pathname.replace(/\/+$/, '').replace(/\/graphql$/, '')}/graphql`;
  const http = parsed.href;
  return { http, ws: http.replace(/^http/, 'ws') };
}

export class JobgateClient {
  #access;
  #choice;
  /** @type {Map<string, Following>} */
  #following = new Map();

  /** @param {ClientOptions} options */
  constructor({ url, token, transports = [...TRANSPORTS], fetch: fetchFunction, WebSocket: implementation = globalThis.WebSocket, maxPauseMs = MAX_PAUSE_MS }) {
    const unknown = transports.find((name) => !TRANSPORTS.includes(name));
    if (unknown || transports.length === 0) throw new TypeError(`transports must be some of ${TRANSPORTS.join(', ')}${unknown ? `, not ${unknown}` : ''}`);
    const address = endpoints(url);
    const credential = new Token(token);
    const http = new Http(address.http, credential, fetchFunction ?? globalThis.fetch.bind(globalThis));
    const socket = implementation
      ? new Socket(address.ws, credential, /** @type {any} */ (implementation), (signal) => http.isThere(signal))
      : null;
    const usable = transports.filter((name) => name !== 'websocket' || socket);
    if (usable.length === 0) throw new TypeError('there is no WebSocket here: set the option WebSocket, or add sse to transports');
    this.#access = { token: credential, http, socket, transports: usable, maxPauseMs };
    this.#choice = new TransportChoice(usable);
  }

  /**
   * @param {JobReference} ref
   * @param {any} [options]
   */
  watchJob(ref, options) {
    return this.watchJobs([ref], options);
  }

  /**
   * @param {Iterable<JobReference>} refs
   * @param {any} [options]
   */
  watchJobs(refs, options = {}) {
    const { onUpdate, onStatus, onError, onEnd, signal } = options;
    const parsed = [...refs].map(parse);
    if (onUpdate === undefined) return this.#iterate(parsed, options);
    const stop = this.#watch(parsed, options, {
      update: onUpdate,
      status: (status) => onStatus?.(status),
      fail: (error) => (onError ? onError(error) : console.error(error)),
      end: () => onEnd?.(),
    });
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return () => {
      signal?.removeEventListener('abort', stop);
      stop();
    };
  }

  /**
   * @param {ReturnType<typeof parse>[]} parsed
   * @param {any} options
   */
  async *#iterate(parsed, options) {
    const { signal, onStatus } = options;
    signal?.throwIfAborted();
    const mailbox = new Mailbox(signal);
    const stop = this.#watch(parsed, options, {
      // a slow reader gets the newest state of each job
      update: (update) => mailbox.replace(update, (unread) => unread.ref === update.ref),
      status: (status) => onStatus?.(status),
      fail: (error) => mailbox.fail(error),
      end: () => mailbox.close(),
    });
    try {
      yield* mailbox;
    } finally {
      stop();
    }
  }

  /**
   * @param {ReturnType<typeof parse>[]} parsed
   * @param {{ fields?: string, maxStaleness?: string }} options
   * @param {{ update: (update: any) => void, status: (status: any) => void, fail: (error: Error) => void, end: () => void }} on
   * @returns {() => void} stops it
   */
  #watch(parsed, { fields, maxStaleness }, on) {
    const following = this.#followingOf(fields, maxStaleness);
    const given = new Map(parsed.map((one) => [one.key, one.given]));
    const pending = new Set(given.keys());
    let isOver = false;
    const stop = () => {
      isOver = true;
      following.remove(pending, watcher);
      pending.clear();
    };
    const watcher = {
      /** @param {string} key @param {any} update */
      update: (key, { kind, isFinal, result }) => {
        if (isOver || !pending.has(key)) return;
        const isJob = result.__typename !== 'JobProblem';
        if (isFinal) pending.delete(key);
        on.update({ ref: given.get(key), kind, isFinal, job: isJob ? result : null, problem: isJob ? null : result });
        if (pending.size > 0 || isOver) return;
        isOver = true;
        on.status({ state: 'ended' });
        on.end();
      },
      /** @param {any} status */
      status: (status) => isOver || on.status(status),
      /** @param {Error} error */
      fail: (error) => {
        if (isOver) return;
        stop();
        on.status({ state: 'failed', error });
        on.fail(error);
      },
    };
    if (pending.size === 0) {
      queueMicrotask(() => isOver || on.end());
      return stop;
    }
    following.add(new Map(parsed.map(({ key, ref }) => [key, ref])), watcher);
    return stop;
  }

  /**
   * @param {string} [fields]
   * @param {string} [maxStaleness]
   */
  #followingOf(fields = '', maxStaleness) {
    const key = JSON.stringify([fields, maxStaleness]);
    let following = this.#following.get(key);
    if (!following) {
      following = new Following(this.#access, this.#choice, selectionOf(fields), maxStaleness ?? null);
      this.#following.set(key, following);
    }
    return following;
  }

  /**
   * @param {JobReference} ref
   * @param {any} [options]
   */
  async awaitJob(ref, options = {}) {
    const { timeoutMs } = options;
    const link = linked([options.signal]);
    const timer = timeoutMs === undefined ? undefined : setTimeout(
      () => link.abort(new JobgateError('TIMED_OUT', `the job is not terminal after ${timeoutMs} ms`, { retryable: true })), timeoutMs);
    try {
      link.signal.throwIfAborted();
      for await (const { isFinal, job, problem } of this.#iterate([parse(ref)], { ...options, signal: link.signal })) {
        if (!isFinal) continue;
        if (job) return job;
        throw fromProblem(problem);
      }
      throw new JobgateError('INTERNAL', 'the watch ended without the job');
    } finally {
      clearTimeout(timer);
      link.unlink();
    }
  }

  /**
   * @param {JobReference[]} refs
   * @param {any} [options]
   */
  async jobs(refs, { fields, maxStaleness, signal } = {}) {
    const all = [...refs].map(parse);
    const query = `query($refs: [JobRef!]!, $maxStaleness: Duration) { jobs(refs: $refs, maxStaleness: $maxStaleness) { ${selectionOf(fields)} } }`;
    const results = [];
    for (let at = 0; at < all.length; at += REFS_MAX) {
      const part = all.slice(at, at + REFS_MAX).map(({ ref }) => ref);
      const { jobs } = await this.execute(query, { refs: part, maxStaleness: maxStaleness ?? null }, { signal });
      results.push(...jobs);
    }
    return results;
  }

  /**
   * @param {JobReference[]} refs
   * @param {any} [options]
   */
  async createWatchToken(refs, { ttl = '15m', signal } = {}) {
    const query = 'mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token expiresAt } }';
    const input = { refs: [...refs].map((ref) => parse(ref).ref), ttl };
    return (await this.execute(query, { input }, { signal })).createWatchToken;
  }

  /**
   * @param {string} query
   * @param {Record<string, unknown>} [variables]
   * @param {{ signal?: AbortSignal }} [options]
   */
  async execute(query, variables = {}, { signal } = {}) {
    const { http, token, maxPauseMs } = this.#access;
    const link = linked([signal]);
    try {
      for (let pauseMs = 0; ; pauseMs = Math.min(1000, maxPauseMs)) {
        try {
          link.signal.throwIfAborted();
          return await http.execute({ query, variables }, link.signal);
        } catch (error) {
          if (error instanceof TransportBlocked) throw new JobgateError('NOT_A_GATEWAY', error.message);
          if (!(error instanceof CredentialRejected)) throw error;
          // a token that has expired is renewed
          const final = token.rejected(error);
          if (final) throw final;
          if (pauseMs > 0) await sleep(pauseMs, link.signal);
        }
      }
    } finally {
      link.unlink();
    }
  }
}

/** @param {string} [fields] */
const selectionOf = (fields = '') => `${jobFields} ${fields && `... on Job { ${fields} }`} ... on JobProblem { ${problemFields} }`;

/** @param {any} problem */
function fromProblem(problem) {
  const { code, message, retryable, retryAfterMs } = problem;
  return new JobgateError(code, message, { retryable, retryAfterMs: retryAfterMs ?? undefined, problem });
}
