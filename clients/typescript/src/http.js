// GraphQL over HTTP: single responses, and subscriptions as server-sent events.
import { fromErrors, fromResponse, JobgateError, TransportBlocked, unreachable } from './errors.js';
import { linked } from './pause.js';

/** The gateway sends a first byte at once, and a comment every 15 s. */
const FIRST_BYTE_MS = 10_000;
const SILENCE_MS = 40_000;
/** Longer than the gateway waits in a request. */
const REQUEST_MS = 45_000;
/** Longer than a gateway that works takes to answer at all. */
const PROBE_MS = 10_000;
/** An event that is longer is not one of the gateway. */
const EVENT_MAX = 16 * 1024 * 1024;

/** @typedef {{ query: string, variables: Record<string, unknown> }} Payload */

export class Http {
  #url;
  #token;
  #fetch;

  /**
   * @param {string} url
   * @param {import('./token.js').Token} token
   * @param {typeof fetch} fetchFunction
   */
  constructor(url, token, fetchFunction) {
    this.#url = url;
    this.#token = token;
    this.#fetch = fetchFunction;
  }

  /**
   * @param {Payload} payload
   * @param {string} accept
   * @param {AbortSignal} signal
   */
  async #post(payload, accept, signal) {
    const token = await this.#token.value();
    /** @type {Record<string, string>} */
    const headers = { accept, 'content-type': 'application/json' };
    if (token !== null) headers.authorization = `Bearer ${token}`;
    let response;
    try {
      // the credential goes to no other address
      response = await this.#fetch(this.#url, { method: 'POST', headers, body: JSON.stringify(payload), signal, redirect: 'error', cache: 'no-store', credentials: 'omit' });
    } catch (error) {
      throw signal.aborted ? signal.reason : unreachable(error);
    }
    return { response, token };
  }

  /**
   * Whether the gateway answers a plain request, in whatever way; a proxy that answers in its place reports 5xx. The
   * request has no credential.
   * @param {AbortSignal} signal
   */
  async isThere(signal) {
    const link = linked([signal]);
    const timer = setTimeout(() => link.abort(), PROBE_MS);
    try {
      const url = `${this.#url}?query=%7B__typename%7D`;
      const { status } = await this.#fetch(url, { method: 'HEAD', signal: link.signal, redirect: 'error', cache: 'no-store', credentials: 'omit' });
      return status < 500;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
      link.unlink();
    }
  }

  /**
   * Runs a query or a mutation.
   * @param {Payload} payload
   * @param {AbortSignal} signal
   * @returns {Promise<any>} its data
   */
  async execute(payload, signal) {
    const link = linked([signal]);
    const timer = setTimeout(() => link.abort(unreachable(`no response within ${REQUEST_MS / 1000} s`)), REQUEST_MS);
    try {
      const { response, token } = await this.#post(payload, 'application/graphql-response+json, application/json;q=0.9', link.signal);
      if (!response.ok) throw await fromResponse(response, token);
      const text = await response.text().catch((error) => {
        throw link.signal.aborted ? link.signal.reason : unreachable(error);
      });
      const answer = parsed(text);
      this.#token.accepted();
      if (answer.errors?.length) throw fromErrors(answer.errors, token, { status: response.status });
      return answer.data;
    } finally {
      clearTimeout(timer);
      link.unlink();
    }
  }

  /**
   * Runs a subscription.
   * @param {Payload} payload
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any, void, void>} the answers
   */
  async *events(payload, signal) {
    const link = linked([signal]);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    /** @param {number} ms @param {Error} error */
    const within = (ms, error) => {
      clearTimeout(timer);
      timer = setTimeout(() => link.abort(error), ms);
    };
    try {
      within(FIRST_BYTE_MS, new TransportBlocked('no event stream was opened in time; a proxy may hold it back'));
      const { response, token } = await this.#post(payload, 'text/event-stream', link.signal);
      if (!response.ok) throw await fromResponse(response, token);
      if (!response.headers.get('content-type')?.startsWith('text/event-stream')) throw new TransportBlocked('the answer is not an event stream');
      if (!response.body) throw new TransportBlocked('this fetch cannot read a response as it arrives');
      this.#token.accepted();
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const events = new EventReader();
      for (;;) {
        const { done, value } = await reader.read().catch((error) => {
          throw link.signal.aborted ? link.signal.reason : unreachable(error);
        });
        if (done) throw new JobgateError('CONNECTION_LOST', 'the stream ended before the subscription', { retryable: true });
        within(SILENCE_MS, new JobgateError('CONNECTION_LOST', 'the stream is silent', { retryable: true }));
        for (const { name, data } of events.read(decoder.decode(value, { stream: true }))) {
          if (name === 'complete') return;
          if (name === 'next') yield JSON.parse(data);
        }
      }
    } finally {
      clearTimeout(timer);
      link.unlink();
      link.abort();
    }
  }
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new TransportBlocked('the answer is not JSON: check the URL and the proxies before it', true);
  }
}

/** Reads events by the rules of the HTML standard, as far as GraphQL over SSE needs them. */
class EventReader {
  #rest = '';
  #name = '';
  /** @type {string[]} */
  #data = [];

  /** @param {string} text */
  read(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > EVENT_MAX) throw new JobgateError('CONNECTION_LOST', 'an event is too long', { retryable: true });
    const events = [];
    for (const line of lines) {
      if (line === '') {
        if (this.#name || this.#data.length) events.push({ name: this.#name, data: this.#data.join('\n') });
        this.#name = '';
        this.#data = [];
      } else if (line.startsWith('event:')) this.#name = line.slice(6).trim();
      else if (line.startsWith('data:')) this.#data.push(line.slice(5).replace(/^ /, ''));
    }
    return events;
  }
}
