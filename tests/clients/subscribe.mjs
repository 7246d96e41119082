// Subscribes with the npm package `graphql-ws` or `graphql-sse`, as published, and prints one JSON line an answer and one
// at the end. Usage: node subscribe.mjs ws|sse URL QUERY VARIABLES [AUTHORIZATION]
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import WebSocket from 'ws';

const [transport, url, query, variables, authorization] = process.argv.slice(2);
const credential = authorization ? { authorization } : {};
const client =
  transport === 'ws'
    ? createWs({ url: `ws://${url}`, webSocketImpl: WebSocket, connectionParams: credential, retryAttempts: 0 })
    : createSse({ url: `http://${url}`, headers: credential, retryAttempts: 0 });

const say = (line) => console.log(JSON.stringify(line));
client.subscribe(
  { query, variables: JSON.parse(variables) },
  {
    next: (answer) => say(answer),
    complete: () => {
      say({ end: 'complete' });
      client.dispose();
    },
    // a list of GraphQL errors, a close event, or the error of a response
    error: (error) => {
      const errors = Array.isArray(error) ? error.map(({ extensions }) => extensions.code) : undefined;
      say({ end: 'error', errors, code: error.code, status: error.response?.status });
      client.dispose();
    },
  },
);
