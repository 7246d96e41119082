// Who the page is for, and what it may show, in words: what the gateway says about the client.

import { count } from './format.js';

/**
 * The words for a `Viewer`: `{ lead, name, detail, expiresAt }`. `token` is the credential: a JWT of a person can have a name
 * for people, beside the name that the gateway uses.
 */
export function holderOf({ name, authenticatedBy, expiresAt, grants }, token) {
  const until = expiresAt ? Date.parse(expiresAt) : null;
  const you = 'you are';
  if (authenticatedBy === 'NONE') return { lead: '', name: 'open access', detail: 'no sign-in configured', expiresAt: until };
  if (authenticatedBy === 'WATCH_TOKEN') {
    const jobs = grants.reduce((sum, { jobIds }) => sum + (jobIds?.length ?? 0), 0);
    return { lead: 'you hold a', name: `watch token of ${name}`, detail: count(jobs, 'job'), expiresAt: until };
  }
  if (authenticatedBy === 'JWT') {
    const [issuer, ...rest] = name.split('#');
    return { lead: you, name: personOf(token) ?? rest.join('#'), detail: `at ${issuer}`, expiresAt: until };
  }
  return { lead: you, name, detail: 'client key', expiresAt: until };
}

/** The words for a `ViewerGrant`, such as `jobs of audit of kind EXPORT with team=tax`. */
export function grantWords({ source, kinds, labels, jobIds }) {
  if (source === null) return 'every job of every source';
  if (jobIds) return `watch token for ${count(jobIds.length, 'job')} of ${source}`;
  const conditions = [
    kinds && `of kind ${kinds.join(' or ')}`,
    labels && `with ${labels.map(({ name, value }) => `${name}=${value}`).join(' and ')}`,
  ].filter(Boolean);
  return conditions.length === 0 ? `all jobs of ${source}` : ['jobs of', source, ...conditions].join(' ');
}

/** The name for people in a JWT; undefined if it has none. */
function personOf(token) {
  try {
    const part = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    const isName = (value) => typeof value === 'string' && value.length > 0 && value.length <= 80;
    return [claims.name, claims.preferred_username, claims.email].find(isName);
  } catch {
    return undefined;
  }
}
