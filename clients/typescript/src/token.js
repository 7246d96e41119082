// The credential of a client: a text, or a function that gets one, which is called again when it is rejected.
import { CredentialRejected, JobgateError } from './errors.js';

/** New tokens that are rejected in a row before the client gives up. The first may only be too new for the gateway. */
const REJECTIONS_MAX = 3;

export class Token {
  /** @type {undefined | string | (() => string | Promise<string>)} */
  #from;
  /** @type {Promise<string> | null} */
  #value = null;
  /** @type {string | null} */
  #current = null;
  #rejections = 0;

  /** @param {undefined | null | string | (() => string | Promise<string>)} from */
  constructor(from) {
    if (from === '' || !['undefined', 'string', 'function'].includes(typeof (from ?? undefined))) {
      throw new TypeError('token must be a text, or a function that returns one');
    }
    this.#from = from ?? undefined;
  }

  /**
   * The token, null without one. The function is called once for all that wait.
   * @returns {Promise<string | null>}
   */
  async value() {
    const from = this.#from;
    if (typeof from !== 'function') return from ?? null;
    if (!this.#value) {
      const value = this.#renewed(from);
      this.#value = value;
      // a failure is not kept: the next attempt calls the function again
      value.catch(() => this.#value === value && (this.#value = null));
    }
    return this.#value;
  }

  /** @param {() => string | Promise<string>} from */
  async #renewed(from) {
    try {
      const token = await from();
      if (typeof token !== 'string' || token === '') throw new JobgateError('TOKEN_UNAVAILABLE', 'the function token must return a text');
      this.#current = token;
      return token;
    } catch (cause) {
      if (cause instanceof JobgateError) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new JobgateError('TOKEN_UNAVAILABLE', `the function token failed: ${why}`, { retryable: true, cause });
    }
  }

  /** The gateway accepted the token. */
  accepted() {
    this.#rejections = 0;
  }

  /**
   * What follows from a rejection: null if the next attempt gets another token, else the error that ends it.
   * @param {CredentialRejected} rejection
   * @returns {JobgateError | null}
   */
  rejected({ token, message, later }) {
    const error = new JobgateError('UNAUTHENTICATED', message, { status: 401 });
    if (typeof this.#from !== 'function') {
      this.#rejections += 1;
      return later && this.#rejections <= REJECTIONS_MAX ? null : error;
    }
    // another operation of the same connection has reported it
    if (token !== this.#current) return null;
    this.#value = null;
    this.#current = null;
    this.#rejections += 1;
    return this.#rejections > REJECTIONS_MAX ? error : null;
  }
}
