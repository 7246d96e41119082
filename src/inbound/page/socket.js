// A small graphql-transport-ws client: one socket that reconnects by itself. Operations end with their connection; the code that
// needs them starts them again when the socket is live. Independent of jobs.

/** Reconnects are at most this far apart in the first minute, which covers a restart of the gateway. */
const SHORT_PAUSE_MS = 1000;
const LONG_PAUSE_MS = 30_000;
const RESTART_MS = 60_000;
/** A handshake that takes longer has failed. */
const HANDSHAKE_MS = 10_000;
/** The peer is asked for a sign of life after this time of silence, and is dead if it does not answer for as long. */
const SILENCE_MS = 20_000;
/** The credential is missing, invalid or expired. */
const FORBIDDEN = new Set([4401, 4403]);
/** Close codes after which a retry would fail in the same way. */
const OUR_FAULT = new Set([4400, 4406, 4409, 4429]);

/** The connection ended before the answer came. */
export class Disconnected extends Error {}

/** The gateway refused an operation. */
export class Refused extends Error {
  constructor(errors) {
    super(errors.map(({ message }) => message).join('; '));
    this.code = errors[0]?.extensions?.code ?? null;
  }
}

export class Socket {
  #url;
  #token;
  #report;
  #operations = new Map();
  #socket = null;
  #isLive = false;
  #nextId = 1;
  #failures = 0;
  /** The number of the attempt: an earlier one that is not over yet counts no more. */
  #attempt = 0;
  #lostAt = 0;
  #heardAt = 0;
  #isPinged = false;
  #timer = null;

  /**
   * `report` gets `{state}`: `connecting`, `live`, `waiting` with `retryAt` (the time of the next attempt), `forbidden` or
   * `closed` with the `reason` of the gateway.
   */
  constructor(url, token, report) {
    this.#url = url;
    this.#token = token;
    this.#report = report;
    this.#connect();
  }

  get isLive() {
    return this.#isLive;
  }

  /** Runs a query; the promise fails with `Disconnected` or `Refused`. */
  query(query, variables = {}) {
    return new Promise((resolve, reject) => {
      if (!this.#isLive) {
        reject(new Disconnected());
        return;
      }
      let answer = null;
      this.#start(query, variables, {
        next: (payload) => { answer = payload; },
        complete: () => (answer?.data ? resolve(answer.data) : reject(new Refused(answer?.errors ?? []))),
        error: (errors) => reject(new Refused(errors)),
        lost: () => reject(new Disconnected()),
      });
    });
  }

  /** Runs a subscription until it completes or the connection ends; returns a function that stops it. */
  subscribe(query, variables, { next, error, complete }) {
    if (!this.#isLive) return () => {};
    const id = this.#start(query, variables, { next, error, complete, lost: () => {} });
    return () => {
      if (this.#operations.delete(id) && this.#isLive) this.#send({ id, type: 'complete' });
    };
  }

  /** Ends everything; the socket does not reconnect. */
  close() {
    this.#url = null;
    this.#end();
    this.#socket?.close(1000);
  }

  /** Connects now instead of later. */
  retry() {
    if (this.#isLive || this.#url === null) return;
    this.#abandon();
    this.#connect();
  }

  /** Detects a peer that vanished without a word. Call it about once a second. */
  checkPeer() {
    if (!this.#isLive) return;
    const silence = Date.now() - this.#heardAt;
    if (silence < SILENCE_MS) return;
    if (!this.#isPinged) {
      this.#isPinged = true;
      this.#heardAt = Date.now() - SILENCE_MS;
      this.#send({ type: 'ping' });
    } else if (silence > SILENCE_MS + HANDSHAKE_MS) {
      this.#abandon();
      this.#closed(1006, '');
    }
  }

  /**
   * After a failure a plain request goes first: Firefox delays the next WebSocket after each one that fails, up to a minute,
   * and would be the last to notice that the gateway is back.
   */
  async #connect() {
    this.#report({ state: 'connecting', isFirst: this.#failures === 0 });
    if (this.#failures > 0 && !(await this.#probe())) return;
    this.#open();
  }

  /** Whether the gateway answers at all; if it does not, the next attempt is planned. */
  async #probe() {
    const attempt = ++this.#attempt;
    let isThere = false;
    try {
      const url = new URL('page/page.css', document.baseURI);
      isThere = (await fetch(url, { method: 'HEAD', cache: 'no-store', signal: AbortSignal.timeout(HANDSHAKE_MS) })).ok;
    } catch {
      // refused, unreachable or too slow
    }
    if (attempt !== this.#attempt || this.#url === null) return false;
    if (!isThere) this.#closed(1006, '');
    return isThere;
  }

  #open() {
    const socket = new WebSocket(this.#url, 'graphql-transport-ws');
    this.#socket = socket;
    this.#timer = setTimeout(() => {
      this.#abandon();
      this.#closed(1006, '');
    }, HANDSHAKE_MS);
    socket.onopen = () => {
      const payload = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      this.#send({ type: 'connection_init', payload });
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  /** Lets go of a socket whose end is not waited for. */
  #abandon() {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    if (!socket) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    socket.close();
  }

  #receive({ id, type, payload }) {
    this.#heardAt = Date.now();
    this.#isPinged = false;
    const operation = this.#operations.get(id);
    switch (type) {
      case 'connection_ack':
        clearTimeout(this.#timer);
        this.#isLive = true;
        this.#failures = 0;
        this.#lostAt = 0;
        this.#report({ state: 'live' });
        break;
      case 'ping':
        this.#send({ type: 'pong' });
        break;
      case 'next':
        operation?.next(payload);
        break;
      case 'complete':
        this.#operations.delete(id);
        operation?.complete?.();
        break;
      case 'error':
        this.#operations.delete(id);
        operation?.error?.(payload);
        break;
    }
  }

  #closed(code, reason) {
    if (this.#url === null) return;
    clearTimeout(this.#timer);
    const wasLive = this.#isLive;
    this.#end();
    if (FORBIDDEN.has(code)) {
      this.#report({ state: 'forbidden', reason, wasLive });
    } else if (OUR_FAULT.has(code)) {
      this.#report({ state: 'closed', reason: reason || `close code ${code}` });
    } else {
      this.#lostAt ||= Date.now();
      const isRestart = Date.now() - this.#lostAt < RESTART_MS;
      const longest = Math.min(isRestart ? SHORT_PAUSE_MS : LONG_PAUSE_MS, 500 * 2 ** this.#failures++);
      // jitter, so that the pages of a whole office do not reconnect at once
      const pause = longest * (0.5 + Math.random() / 2);
      this.#report({ state: 'waiting', retryAt: Date.now() + pause });
      this.#timer = setTimeout(() => this.#connect(), pause);
    }
  }

  #end() {
    this.#isLive = false;
    clearTimeout(this.#timer);
    const lost = [...this.#operations.values()];
    this.#operations.clear();
    for (const operation of lost) operation.lost();
  }

  #start(query, variables, operation) {
    const id = String(this.#nextId++);
    this.#operations.set(id, operation);
    this.#send({ id, type: 'subscribe', payload: { query, variables } });
    return id;
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}
