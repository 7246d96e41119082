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

/** The command that reads a job. */
export function curl({ source, externalId }, origin = location.origin) {
  const query = `query($ref: JobRef!) { job(ref: $ref) { ${FIELDS} } }`;
  const body = JSON.stringify({ query, variables: { ref: { external: { source, externalId } } } });
  return `curl -s ${quote(`${origin}/graphql`)} \\
  -H "authorization: Bearer ${KEY}" \\
  -H 'content-type: application/json' \\
  -d ${quote(body)}`;
}

/** The command that follows a job until it is terminal. */
export const watch = (reference) => `jobgate job watch ${quote(referenceText(reference))} --url ${quote(location.origin)}`;

/** The command that tracks a job: what an empty gateway needs first. */
export function track(origin = location.origin) {
  const query = 'mutation { trackJobs(input: { refs: [{ external: { source: "SOURCE", externalId: "ID" } }] }) { isStored } }';
  return `curl -s ${quote(`${origin}/graphql`)} \\
  -H "authorization: Bearer ${KEY}" \\
  -H 'content-type: application/json' \\
  -d ${quote(JSON.stringify({ query }))}`;
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
