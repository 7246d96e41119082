// Sign-in at an issuer: OpenID Connect, authorization code with PKCE. Between leaving and returning, `sessionStorage` has the
// state and the code verifier, and nothing else; the token stays in memory.

const STATE = 'state';
const VERIFIER = 'code_verifier';
const WITHIN_MS = 15_000;

/** The public settings of the gateway; `known` if it does not answer. */
export async function readSettings(known) {
  try {
    const response = await fetch('page/settings.json', { cache: 'no-store', signal: AbortSignal.timeout(WITHIN_MS) });
    return response.ok ? await response.json() : known;
  } catch {
    return known;
  }
}

/**
 * Leaves the page for that of an issuer. `number` is its place in the settings, `search` the view to return to. Returns only
 * if that is not possible: why, for people.
 */
export async function beginLogin(login, number, search) {
  if (!crypto.subtle) return 'Signing in at an issuer needs a page over HTTPS.';
  try {
    const { authorization_endpoint: endpoint } = await discover(login);
    const verifier = text(crypto.getRandomValues(new Uint8Array(32)));
    // the issuer returns the state unchanged, so it also carries the view
    const state = [text(crypto.getRandomValues(new Uint8Array(16))), number, text(new TextEncoder().encode(search))].join('.');
    sessionStorage.setItem(STATE, state);
    sessionStorage.setItem(VERIFIER, verifier);
    const url = new URL(endpoint);
    const challenge = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
    const parameters = {
      response_type: 'code', client_id: login.clientId, redirect_uri: ownAddress(), scope: login.scopes, state,
      code_challenge: text(new Uint8Array(challenge)), code_challenge_method: 'S256',
    };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    location.assign(url);
    return null;
  } catch (error) {
    return `The issuer cannot be used: ${error.message}.`;
  }
}

/**
 * Finishes a sign-in when the page was opened by an issuer: `{search}` with the view, and `token` or `problem`. Null if it was
 * opened in any other way.
 */
export async function finishLogin(logins) {
  const answer = new URLSearchParams(location.search);
  if (!answer.has('state') || !(answer.has('code') || answer.has('error'))) return null;
  const [state, verifier] = [sessionStorage.getItem(STATE), sessionStorage.getItem(VERIFIER)];
  sessionStorage.removeItem(STATE);
  sessionStorage.removeItem(VERIFIER);
  if (state === null || verifier === null || state !== answer.get('state')) {
    return { search: '', problem: 'This answer of an issuer does not belong to a sign-in of this tab. Sign in again.' };
  }
  const [, number, view] = state.split('.');
  const search = new TextDecoder().decode(bytes(view));
  if (answer.has('error')) {
    return { search, problem: `The issuer refused the sign-in: ${answer.get('error_description') ?? answer.get('error')}.` };
  }
  try {
    return { search, token: await redeem(logins[number], answer.get('code'), verifier) };
  } catch (error) {
    return { search, problem: `The sign-in failed: ${error.message}. Sign in again.` };
  }
}

/** Exchanges the code for a token: the access token if it is a JWT, else the ID token. */
async function redeem(login, code, verifier) {
  if (!login) throw new Error('the issuer is not configured any more');
  const { token_endpoint: endpoint } = await discover(login);
  const body = new URLSearchParams({
    grant_type: 'authorization_code', code, redirect_uri: ownAddress(), client_id: login.clientId, code_verifier: verifier,
  });
  const tokens = await json(endpoint, { method: 'POST', body });
  const isSigned = (token) => typeof token === 'string' && token.split('.').length === 3;
  const token = [tokens.access_token, tokens.id_token].find(isSigned);
  if (!token) throw new Error('the issuer returned no JWT');
  return token;
}

/** The endpoints of an issuer, from its own document. */
async function discover({ issuer }) {
  const found = await json(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, {});
  if (found.issuer !== issuer) throw new Error('its configuration is that of another issuer');
  for (const name of ['authorization_endpoint', 'token_endpoint']) {
    // other schemes could run a script, and the page may connect to the issuer's origin only
    const url = new URL(found[name]);
    if (url.protocol !== 'https:' && url.origin !== new URL(issuer).origin) throw new Error(`its ${name} is not safe`);
  }
  if (new URL(found.token_endpoint).origin !== new URL(issuer).origin) throw new Error('its token_endpoint has another origin');
  return found;
}

async function json(url, options) {
  let response;
  try {
    response = await fetch(url, { ...options, cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(WITHIN_MS) });
  } catch {
    throw new Error('it does not answer this page; it must allow its origin (CORS)');
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error_description ?? answer.error ?? `status ${response.status}`);
  return answer;
}

/** The address to which the issuer returns: the page without a view. */
const ownAddress = () => `${location.origin}${location.pathname}`;

const text = (data) => btoa(String.fromCharCode(...data)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const bytes = (data) => Uint8Array.from(atob(data.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));
