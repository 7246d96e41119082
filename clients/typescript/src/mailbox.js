// Values between a sender that does not wait and one reader.

/** @template T */
export class Mailbox {
  /** @type {T[]} */
  #values = [];
  /** @type {{ error?: unknown } | null} */
  #end = null;
  /** @type {() => void} */
  #wake = () => {};
  /** @type {AbortSignal | undefined} */
  #signal;
  #aborted = () => {
    this.#values = [];
    this.fail(this.#signal?.reason);
  };

  /** @param {AbortSignal} [signal] ends it with its reason */
  constructor(signal) {
    this.#signal = signal;
    if (signal?.aborted) this.#aborted();
    else signal?.addEventListener('abort', this.#aborted);
  }

  /** @param {T} value */
  put(value) {
    if (this.#end) return;
    this.#values.push(value);
    this.#wake();
  }

  /**
   * Puts a value in place of an unread one, if there is one that `isReplaced`.
   * @param {T} value
   * @param {(unread: T) => boolean} isReplaced
   */
  replace(value, isReplaced) {
    const index = this.#values.findIndex(isReplaced);
    if (index !== -1) this.#values.splice(index, 1);
    this.put(value);
  }

  /** Ends it after the values that are unread. */
  close() {
    this.#end ??= {};
    this.#leave();
  }

  /**
   * Ends it with an error after the values that are unread.
   * @param {unknown} error
   */
  fail(error) {
    if (this.#end) return;
    this.#end = { error };
    this.#leave();
  }

  #leave() {
    this.#signal?.removeEventListener('abort', this.#aborted);
    this.#wake();
  }

  /** @returns {AsyncGenerator<T, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      if (this.#values.length > 0) yield /** @type {T} */ (this.#values.shift());
      else if (this.#end && 'error' in this.#end) throw this.#end.error;
      else if (this.#end) return;
      else await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
  }
}
