// Updates by requests that wait, where no stream gets through: a snapshot of all jobs, then `jobAwait` of one at a time.
import { REFS_MAX } from './refs.js';

/** How long the gateway waits: for the only job, and for one of several, after which the others are read again. */
const WAIT_ALONE = '20s';
const WAIT_SHARED = '5s';

/** Problems that end the updates of a job, as in `jobUpdates`. */
const FINAL = new Set(['NOT_FOUND', 'INVALID_REF']);

/**
 * The update that a subscription would send for this result.
 * @param {any} result
 */
function update(result) {
  const isFinal = result.__typename === 'JobProblem' ? FINAL.has(result.code) && !result.retryable : result.isTerminal;
  return { data: { jobUpdates: { kind: isFinal ? 'ENDED' : 'CHANGED', isFinal, result } } };
}

/**
 * @param {import('./http.js').Http} http
 * @param {string} selection
 * @param {Map<string, { ref: object }>} pending the jobs; a finished one is removed by the caller
 * @param {string | null} maxStaleness
 * @param {() => boolean} isDue whether a stream is to be tried again
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any, void, void>} answers in the form of `jobUpdates`
 */
export async function* wait(http, selection, pending, maxStaleness, isDue, signal) {
  const list = `query($refs: [JobRef!]!, $maxStaleness: Duration) { jobs(refs: $refs, maxStaleness: $maxStaleness) { ${selection} } }`;
  const one = `query($ref: JobRef!, $timeout: Duration!) { jobAwait(ref: $ref, timeout: $timeout) { ${selection} } }`;
  let turn = 0;
  let isFirst = true;
  while (pending.size > 0 && !(isDue() && !isFirst)) {
    if (isFirst || pending.size > 1) {
      const refs = [...pending.values()].slice(0, REFS_MAX).map(({ ref }) => ref);
      const { jobs } = await http.execute({ query: list, variables: { refs, maxStaleness } }, signal);
      for (const result of jobs) yield update(result);
      isFirst = false;
    }
    const waiting = [...pending.values()];
    if (waiting.length === 0) return;
    const { ref } = waiting[turn++ % waiting.length];
    const timeout = waiting.length === 1 ? WAIT_ALONE : WAIT_SHARED;
    const { jobAwait } = await http.execute({ query: one, variables: { ref, timeout } }, signal);
    yield update(jobAwait);
  }
}
