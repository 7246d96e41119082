// Pauses between attempts.

const BASE_MS = 500;

/**
 * A random pause below a ceiling that doubles with each failure, so that clients do not return at once; never shorter
 * than the gateway requests.
 * @param {number} failures in a row before this attempt, from 0
 * @param {number} maxMs
 * @param {number} [atLeastMs]
 */
export function backoff(failures, maxMs, atLeastMs = 0) {
  const ceiling = Math.min(maxMs, BASE_MS * 2 ** Math.min(failures, 20));
  return atLeastMs + Math.random() * ceiling;
}

/**
 * Waits. A browser that is online again does not wait any longer.
 * @param {number} ms
 * @param {AbortSignal} signal rejects with its reason
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    /** @param {() => void} then */
    const end = (then) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
      globalThis.removeEventListener?.('online', online);
      then();
    };
    const aborted = () => end(() => reject(signal.reason));
    const online = () => end(() => resolve(undefined));
    const timer = setTimeout(online, ms);
    signal.addEventListener('abort', aborted);
    globalThis.addEventListener?.('online', online);
  });
}

/**
 * The value of a promise, unless the signal is aborted before.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export async function untilAborted(promise, signal) {
  const link = linked([signal]);
  const aborted = new Promise((_, reject) => link.signal.addEventListener('abort', () => reject(link.signal.reason)));
  try {
    signal.throwIfAborted();
    return await Promise.race([promise, /** @type {Promise<never>} */ (aborted)]);
  } finally {
    link.unlink();
  }
}

/**
 * A signal that is aborted with any of these, and by `abort`.
 * @param {Array<AbortSignal | undefined | null>} signals
 */
export function linked(signals) {
  const controller = new AbortController();
  /** @type {Array<() => void>} */
  const unlink = [];
  for (const signal of signals) {
    if (!signal) continue;
    const abort = () => controller.abort(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort);
    unlink.push(() => signal.removeEventListener('abort', abort));
  }
  return {
    signal: controller.signal,
    /** @param {unknown} [reason] */
    abort: (reason) => controller.abort(reason),
    unlink: () => unlink.forEach((one) => one()),
  };
}
