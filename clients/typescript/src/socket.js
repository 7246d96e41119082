// Operations over one WebSocket (subprotocol graphql-transport-ws), which is opened for the first and closed after the last.
import { CredentialRejected, fromErrors, JobgateError, TransportBlocked } from './errors.js';
import { Mailbox } from './mailbox.js';

/** A handshake, credential included, that takes longer has failed. */
const HANDSHAKE_MS = 10_000;
/** How often the connection is checked; a ping is sent after half the silence that ends it. */
const CHECK_MS = 5_000;
const SILENCE_MS = 40_000;
/** How long an unused connection is kept, for the next operation. */
const LINGER_MS = 200;
/** Failed handshakes in a row after which WebSocket counts as blocked, if it has worked before. */
const FAILURES_MAX = 3;

const NORMAL = 1000;
/** Close codes after which the same would happen again (docs/streams.md). */
const PERMANENT = new Set([1002, 1007, 1009, 4400, 4406, 4409, 4429]);
/** The token is missing or unknown; expired, revoked, or not verifiable yet. */
const UNAUTHORIZED = 4401;
const FORBIDDEN = 4403;

/** @typedef {{ query: string, variables: Record<string, unknown> }} Payload */

export class Socket {
  #url;
  #token;
  #WebSocket;
  #isThere;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, { payload: Payload, mailbox: Mailbox<any> }>} */
  #operations = new Map();
  #isReady = false;
  #hasWorked = false;
  #failures = 0;
  /** Whether the last connection failed or broke off. */
  #isDoubtful = false;
  /**
   * The request that goes before a connection.
   * @type {AbortController | null}
   */
  #probe = null;
  #nextId = 1;
  #lastFrame = 0;
  /** @type {string | null} */
  #used = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #linger;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #check;

  /**
   * @param {string} url
   * @param {import('./token.js').Token} token
   * @param {typeof WebSocket} implementation
   * @param {(signal: AbortSignal) => Promise<boolean>} isThere whether the gateway answers a plain request
   */
  constructor(url, token, implementation, isThere) {
    this.#url = url;
    this.#token = token;
    this.#WebSocket = implementation;
    this.#isThere = isThere;
  }

  /**
   * Runs an operation; returning from the iteration ends it.
   * @param {Payload} payload
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any, void, void>} the answers
   */
  async *run(payload, signal) {
    const id = String(this.#nextId++);
    const mailbox = new Mailbox(signal);
    this.#operations.set(id, { payload, mailbox });
    try {
      if (this.#isReady) this.#subscribe(id);
      else this.#connect();
      yield* mailbox;
    } finally {
      mailbox.close();
      this.#end(id);
    }
  }

  #connect() {
    clearTimeout(this.#linger);
    if (this.#socket || this.#probe) return;
    if (this.#isDoubtful) this.#openIfThere();
    else this.#open();
  }

  /**
   * After a failure a plain request goes first: Firefox delays the next WebSocket after each one that fails, up to a
   * minute, and would be the last to notice that the gateway is back.
   */
  async #openIfThere() {
    const probe = new AbortController();
    this.#probe = probe;
    const isThere = await this.#isThere(probe.signal);
    if (this.#probe !== probe) return;
    this.#probe = null;
    if (isThere) this.#open();
    else this.#fail(this.#refused('the gateway does not answer'));
  }

  #open() {
    let socket;
    try {
      socket = new this.#WebSocket(this.#url, 'graphql-transport-ws');
    } catch (cause) {
      return this.#fail(new TransportBlocked(`a WebSocket cannot be created: ${cause}`));
    }
    this.#socket = socket;
    this.#lastFrame = Date.now();
    const opened = Date.now();
    socket.onopen = () => this.#init(socket);
    socket.onmessage = ({ data }) => this.#socket === socket && this.#receive(socket, data);
    // the event of a close follows each error and has the code
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => this.#closed(socket, code, reason);
    this.#check = setInterval(() => {
      const silent = Date.now() - this.#lastFrame;
      if (!this.#isReady && Date.now() - opened > HANDSHAKE_MS) this.#drop(socket, 'the WebSocket handshake took too long');
      else if (silent > SILENCE_MS) this.#drop(socket, 'the connection is silent');
      else if (this.#isReady && silent > SILENCE_MS / 2) this.#send({ type: 'ping' });
    }, CHECK_MS);
  }

  /** @param {WebSocket} socket */
  async #init(socket) {
    try {
      const token = await this.#token.value();
      if (this.#socket !== socket) return;
      this.#used = token;
      this.#send({ type: 'connection_init', payload: token === null ? {} : { authorization: `Bearer ${token}` } });
    } catch (error) {
      if (this.#socket === socket) this.#lost(socket, error);
    }
  }

  /**
   * @param {WebSocket} socket
   * @param {unknown} data
   */
  #receive(socket, data) {
    this.#lastFrame = Date.now();
    let message;
    try {
      message = JSON.parse(String(data));
    } catch {
      return this.#drop(socket, 'a message is not JSON');
    }
    const operation = this.#operations.get(message.id);
    switch (message.type) {
      case 'connection_ack':
        this.#isReady = true;
        this.#hasWorked = true;
        this.#failures = 0;
        this.#isDoubtful = false;
        this.#token.accepted();
        for (const id of this.#operations.keys()) this.#subscribe(id);
        break;
      case 'ping':
        this.#send({ type: 'pong' });
        break;
      case 'next':
        operation?.mailbox.put(message.payload);
        break;
      case 'complete':
        operation?.mailbox.close();
        this.#operations.delete(message.id);
        break;
      case 'error':
        operation?.mailbox.fail(fromErrors(message.payload, this.#used));
        this.#operations.delete(message.id);
        break;
    }
  }

  /** @param {string} id */
  #subscribe(id) {
    this.#send({ id, type: 'subscribe', payload: this.#operations.get(id)?.payload });
  }

  /** @param {object} message */
  #send(message) {
    if (this.#socket?.readyState === this.#WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** @param {string} id */
  #end(id) {
    if (this.#operations.delete(id) && this.#isReady) this.#send({ id, type: 'complete' });
    if (this.#operations.size > 0) return;
    this.#probe?.abort();
    this.#probe = null;
    if (!this.#socket) return;
    clearTimeout(this.#linger);
    this.#linger = setTimeout(() => this.#operations.size === 0 && this.#forget()?.close(NORMAL), LINGER_MS);
  }

  /**
   * Closes a connection that does not answer: the event of its close may take minutes.
   * @param {WebSocket} socket
   * @param {string} why
   */
  #drop(socket, why) {
    this.#lost(socket, this.#isReady ? new JobgateError('CONNECTION_LOST', why, { retryable: true }) : this.#refused(why));
  }

  /**
   * @param {WebSocket} socket
   * @param {number} code
   * @param {string} reason
   */
  #closed(socket, code, reason) {
    if (this.#socket !== socket) return;
    const message = reason || `the WebSocket was closed with code ${code}`;
    this.#lost(socket, this.#meaning(code, message));
  }

  /**
   * @param {number} code
   * @param {string} message
   */
  #meaning(code, message) {
    if (code === UNAUTHORIZED || code === FORBIDDEN) return new CredentialRejected(this.#used, message, code === FORBIDDEN);
    if (PERMANENT.has(code)) return new JobgateError(`CLOSED_${code}`, message);
    // 1012 and 1013 are the gateway's; browsers report every failed handshake as 1006
    if (this.#isReady || code === 1012 || code === 1013) return new JobgateError('CONNECTION_LOST', message, { retryable: true });
    return this.#refused(message);
  }

  /** @param {string} message */
  #refused(message) {
    this.#failures += 1;
    if (this.#hasWorked && this.#failures < FAILURES_MAX) return new JobgateError('UNREACHABLE', message, { retryable: true });
    return new TransportBlocked(message);
  }

  /**
   * @param {WebSocket} socket
   * @param {unknown} error
   */
  #lost(socket, error) {
    // a rejected token says that the gateway is there
    this.#isDoubtful = !(error instanceof CredentialRejected);
    this.#forget();
    socket.close();
    this.#fail(error);
  }

  /** Leaves the connection; its events have no effect any more. */
  #forget() {
    const socket = this.#socket;
    clearInterval(this.#check);
    clearTimeout(this.#linger);
    this.#socket = null;
    this.#isReady = false;
    return socket;
  }

  /** @param {unknown} error */
  #fail(error) {
    const operations = [...this.#operations.values()];
    this.#operations.clear();
    for (const { mailbox } of operations) mailbox.fail(error);
  }
}
