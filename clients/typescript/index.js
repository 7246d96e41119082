// The client kit of jobgate for TypeScript and JavaScript: see README.md and index.d.ts.
export { JobgateClient } from './src/client.js';
export { JobgateError } from './src/errors.js';
export { jobFields, possibleTypes, problemFields } from './schema.js';
