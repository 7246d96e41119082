// A small graphql-transport-ws client: one socket that reconnects automatically, and its operations.
// Independent of jobs.

const LONGEST_PAUSE_MS = 30_000;
/** The credential is missing or invalid. */
const FORBIDDEN = new Set([4401, 4403]);
/** Close codes after which a retry would fail in the same way. */
const OUR_FAULT = new Set([4400, 4406, 4409, 4429]);

export class Socket {
  #url;
  #token;
  #report;
  #operations = new Map();
  #socket = null;
  #acknowledged = false;
  #nextId = 1;
  #failures = 0;
  #retry = null;

  /** `report` is called with 'connecting', 'live', 'forbidden' or 'closed', and a message for people. */
  constructor(url, token, report) {
    this.#url = url;
    this.#token = token;
    this.#report = report;
    this.#connect();
  }

  /** Runs an operation, again after each reconnect; `on` has next(result), and may have complete() and error(errors). */
  run(query, variables, on) {
    const id = String(this.#nextId++);
    this.#operations.set(id, { payload: { query, variables }, on });
    if (this.#acknowledged) this.#subscribe(id);
    return () => this.#stop(id);
  }

  /** Ends everything; the socket does not reconnect. */
  close() {
    clearTimeout(this.#retry);
    this.#operations.clear();
    this.#url = null;
    this.#socket?.close(1000);
  }

  #connect() {
    this.#report('connecting', this.#failures ? 'reconnecting' : 'connecting');
    const socket = new WebSocket(this.#url, 'graphql-transport-ws');
    this.#socket = socket;
    socket.onopen = () => {
      const payload = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
      this.#send({ type: 'connection_init', payload });
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  #receive({ id, type, payload }) {
    const operation = this.#operations.get(id);
    switch (type) {
      case 'connection_ack':
        this.#acknowledged = true;
        this.#failures = 0;
        this.#report('live', 'live');
        for (const waiting of this.#operations.keys()) this.#subscribe(waiting);
        break;
      case 'ping':
        this.#send({ type: 'pong' });
        break;
      case 'next':
        operation?.on.next(payload);
        break;
      case 'complete':
        this.#operations.delete(id);
        operation?.on.complete?.();
        break;
      case 'error':
        this.#operations.delete(id);
        operation?.on.error?.(payload);
        break;
    }
  }

  #closed(code, reason) {
    this.#acknowledged = false;
    if (this.#url === null) return;
    if (FORBIDDEN.has(code)) {
      this.#report('forbidden', reason);
    } else if (OUR_FAULT.has(code)) {
      this.#report('closed', reason || `closed with code ${code}`);
    } else {
      // full jitter, so that the pages of a whole office do not reconnect at once
      const pause = Math.random() * Math.min(LONGEST_PAUSE_MS, 500 * 2 ** this.#failures++);
      this.#report('connecting', 'connection lost, reconnecting');
      this.#retry = setTimeout(() => this.#connect(), pause);
    }
  }

  #subscribe(id) {
    this.#send({ id, type: 'subscribe', payload: this.#operations.get(id).payload });
  }

  #stop(id) {
    if (this.#operations.delete(id) && this.#acknowledged) this.#send({ id, type: 'complete' });
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }
}
