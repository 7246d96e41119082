// Who the page is for, as far as the credential itself shows. It is kept in the memory of this tab alone.

/** What a credential says about its holder: `{ name, detail, expiresAt }`. Nothing here is verified: the gateway does that. */
export function holderOf(token) {
  if (!token) return { name: 'open access', detail: 'no sign-in configured', expiresAt: null };
  if (token.startsWith('jgw_')) return watchToken(token);
  const claims = token.split('.').length === 3 ? decode(token.split('.')[1]) : null;
  if (claims) {
    const name = [claims.name, claims.preferred_username, claims.email, claims.client_id, claims.azp, claims.sub].find(isName);
    return { name: name ?? 'token', detail: 'JWT', expiresAt: time(claims.exp) };
  }
  return { name: 'client key', detail: `ends in …${token.slice(-4)}`, expiresAt: null };
}

function watchToken(token) {
  const payload = decode(token.slice(4).split('.')[0]);
  const [kind] = Object.values(payload?.by ?? {});
  const name = [kind].flat().find(isName);
  const jobs = Object.values(payload?.jobs ?? {}).flat().length;
  return {
    name: name ? `watch token of ${name}` : 'watch token', detail: jobs ? `${jobs} ${jobs === 1 ? 'job' : 'jobs'}` : '',
    expiresAt: time(payload?.until),
  };
}

const isName = (value) => typeof value === 'string' && value.length > 0 && value.length <= 80;
const time = (seconds) => (Number.isFinite(seconds) ? seconds * 1000 : null);

function decode(part) {
  try {
    const bytes = Uint8Array.from(atob(part.replaceAll('-', '+').replaceAll('_', '/')), (char) => char.charCodeAt(0));
    const value = JSON.parse(new TextDecoder().decode(bytes));
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}
