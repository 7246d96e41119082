// The one error class of the kit, and what a response of the gateway, or of something before it, means for a retry.

/** An error with the gateway's code. See `JobgateError` in index.d.ts. */
export class JobgateError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ status?: number, retryable?: boolean, retryAfterMs?: number, problem?: import('../schema.js').JobProblem, cause?: unknown }} [details]
   */
  constructor(code, message, { status, retryable = false, retryAfterMs, problem, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'JobgateError';
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    this.retryAfterMs = retryAfterMs;
    this.problem = problem;
  }
}

/** A transport that does not work here, though another one may: a proxy refuses, buffers or alters it. */
export class TransportBlocked extends Error {
  /**
   * @param {string} message
   * @param {boolean} [isForeign] whether something else than a gateway has answered
   */
  constructor(message, isForeign = false) {
    super(message);
    this.isForeign = isForeign;
  }
}

/** The gateway does not accept this credential, or no longer. */
export class CredentialRejected extends Error {
  /**
   * @param {string | null} token the rejected one
   * @param {string} message
   * @param {boolean} [later] whether the same one may be accepted later
   */
  constructor(token, message, later = false) {
    super(message);
    this.token = token;
    this.later = later;
  }
}

/** Codes of errors that the same request may not have later. */
const PASSING = new Set(['TOO_MANY_OPERATIONS', 'TOO_MANY_REQUESTS', 'OVERLOADED', 'DEADLINE_EXCEEDED', 'REQUEST_TIMEOUT',
  'INTERNAL_SERVER_ERROR']);

/**
 * The error of a list of GraphQL errors.
 * @param {Array<{ message?: string, extensions?: { code?: string } }>} errors
 * @param {string | null} token
 * @param {{ status?: number, retryAfterMs?: number }} [details]
 */
export function fromErrors(errors, token, details = {}) {
  const message = errors[0]?.message ?? 'the gateway reports an error without a message';
  const code = errors[0]?.extensions?.code ?? 'UNKNOWN';
  if (code === 'UNAUTHENTICATED') return new CredentialRejected(token, message);
  return new JobgateError(code, message, { ...details, retryable: PASSING.has(code) });
}

/**
 * The error of a response without data.
 * @param {Response} response
 * @param {string | null} token
 */
export async function fromResponse(response, token) {
  const { status } = response;
  const details = { status, retryAfterMs: retryAfter(response.headers.get('retry-after')) };
  const body = await response.text().catch(() => '');
  const errors = errorsOf(body);
  if (errors) return fromErrors(errors, token, details);
  // an answer of a proxy
  if (status === 401) return new CredentialRejected(token, 'the request has no valid credential (HTTP 401)');
  if (status === 408 || status === 429 || status >= 500) {
    return new JobgateError('UNREACHABLE', `a proxy answers in place of the gateway: HTTP ${status}`, { ...details, retryable: true });
  }
  return new TransportBlocked(`the answer does not come from a gateway: HTTP ${status}; check the URL and the proxies before it`, true);
}

/** @param {string} body */
function errorsOf(body) {
  try {
    const { errors } = JSON.parse(body);
    return Array.isArray(errors) && errors.length > 0 ? errors : undefined;
  } catch {
    return undefined;
  }
}

/** @param {string | null} header seconds; the gateway does not send dates */
function retryAfter(header) {
  const seconds = Number.parseInt(header ?? '', 10);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}

/**
 * The error of a request that got no response.
 * @param {unknown} cause
 */
export function unreachable(cause) {
  const why = cause instanceof Error ? cause.message : String(cause);
  const message = `the gateway cannot be reached, or does not allow the origin of this page: ${why}`;
  return new JobgateError('UNREACHABLE', message, { retryable: true, cause });
}
