// Runs the server audits of the npm package `graphql-http` against a gateway and prints one JSON line an audit.
// Usage: node audit.mjs URL [AUTHORIZATION]
import { serverAudits } from 'graphql-http';

const [url, authorization] = process.argv.slice(2);
const fetchFn = (input, init = {}) =>
  fetch(input, { ...init, headers: { ...init.headers, ...(authorization ? { authorization } : {}) } });

for (const audit of serverAudits({ url, fetchFn })) {
  const result = await audit.fn();
  console.log(JSON.stringify({ id: audit.id, name: audit.name, status: result.status, reason: result.reason }));
}
