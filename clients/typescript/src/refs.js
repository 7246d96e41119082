// References to jobs, as callers write them and as the schema spells them.

/** The most that one request can name. */
export const REFS_MAX = 200;

const HELP = "write 'SOURCE/EXTERNAL_ID', a node ID, { source, externalId } or { id }";

/** @param {unknown} value */
const isText = (value) => typeof value === 'string' && value !== '';

/**
 * The reference in the form of the schema, and a key that is equal for equal references.
 * @param {import('../index.js').JobReference} given
 * @returns {{ key: string, ref: import('../schema.js').JobRef, given: import('../index.js').JobReference }}
 */
export function parse(given) {
  const external = externalOf(given);
  if (external && isText(external.source) && isText(external.externalId)) {
    const { source, externalId } = external;
    return { key: keyOf(source, externalId), ref: { external: { source, externalId } }, given };
  }
  const id = typeof given === 'string' ? given : /** @type {any} */ (given)?.id;
  if (!external && id !== undefined && isText(id)) return { key: id, ref: { id }, given };
  throw new TypeError(`${JSON.stringify(given) ?? String(given)} is not a job reference: ${HELP}`);
}

/**
 * @param {import('../index.js').JobReference} given
 * @returns {{ source: string, externalId: string } | undefined}
 */
function externalOf(given) {
  if (typeof given === 'string') {
    const slash = given.indexOf('/');
    return slash === -1 ? undefined : { source: given.slice(0, slash), externalId: given.slice(slash + 1) };
  }
  return given && typeof given === 'object' && 'externalId' in given ? given : undefined;
}

/**
 * @param {string} source
 * @param {string} externalId
 */
export const keyOf = (source, externalId) => `${source}/${externalId}`;

/**
 * The keys under which a result may have been requested.
 * @param {any} result
 * @returns {string[]}
 */
export function keysOf(result) {
  const { id, source, externalId } = result.__typename === 'JobProblem' ? result.ref : { ...result, source: result.source.name };
  const keys = [];
  if (id) keys.push(id);
  if (source && externalId) keys.push(keyOf(source, externalId));
  return keys;
}
