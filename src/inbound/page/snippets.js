// What can be copied from the details. A snippet has a placeholder where the key belongs, never the key.

import { referenceText } from './address.js';

const KEY = '$JOBGATE_KEY';
const FIELDS = '... on Job { state isTerminal progress { completed total } failure { code message } freshness { observedAt isStale } } ... on JobProblem { code message }';

/** The GraphQL document that reads a job. Names and ids have no character that JSON or GraphQL would escape. */
export function graphql({ source, externalId }) {
  return `query {
  job(ref: { external: { source: ${JSON.stringify(source)}, externalId: ${JSON.stringify(externalId)} } }) {
    ... on Job {
      state isTerminal
      progress { completed total }
      failure { code message }
      freshness { observedAt isStale }
    }
    ... on JobProblem { code message }
  }
}`;
}

/** The command that reads a job. `isOpen`: the gateway needs no key. */
export function curl({ source, externalId }, isOpen) {
  const query = `query($ref: JobRef!) { job(ref: $ref) { ${FIELDS} } }`;
  return post({ query, variables: { ref: { external: { source, externalId } } } }, isOpen);
}

/** The command that follows a job until it is terminal. */
export const watch = (reference) => `jobgate job watch ${quote(referenceText(reference))} --url ${quote(location.origin)}`;

/** The command that tracks a job: what an empty gateway needs first. */
export function track(isOpen) {
  return post({ query: 'mutation { trackJobs(input: { refs: [{ external: { source: "SOURCE", externalId: "ID" } }] }) { isStored } }' }, isOpen);
}

function post(body, isOpen) {
  const key = isOpen ? '' : `  -H "authorization: Bearer ${KEY}" \\\n`;
  return `curl -s ${quote(`${location.origin}/graphql`)} \\
${key}  -H 'content-type: application/json' \\
  -d ${quote(JSON.stringify(body))}`;
}

/** Copies a text; false if the browser does not allow it, for example on a page without TLS. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** A word of a shell. */
const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
