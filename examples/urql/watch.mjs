// Subscribes with urql.
import { Client, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import { onEnd, pipe, subscribe } from 'wonka';

const url = process.env.JOBGATE_URL ?? 'http://127.0.0.1:8080';
const key = process.env.JOBGATE_KEY;
const credential = key ? { authorization: `Bearer ${key}` } : {};

const socket = createClient({
  url: `${url.replace('http', 'ws')}/graphql`,
  connectionParams: () => credential,
  // by default it gives up after five attempts
  retryAttempts: Infinity,
});
const client = new Client({
  url: `${url}/graphql`,
  fetchOptions: () => ({ headers: credential }),
  exchanges: [
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: ({ query, variables }) => ({
        subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
      }),
    }),
  ],
});

const query = `
  subscription Watch($refs: [JobRef!]!) {
    jobUpdates(refs: $refs) {
      isFinal
      result {
        ... on Job { id state progress { completed total } }
        ... on JobProblem { code message }
      }
    }
  }
`;
const refs = [{ external: { source: 'marketing', externalId: 'demo_sales_2026' } }];

pipe(
  client.subscription(query, { refs }),
  onEnd(() => socket.dispose()),
  // at the end urql repeats the last result
  subscribe(({ data, error, hasNext }) => {
    if (error) console.error(error);
    else if (hasNext) console.log(data.jobUpdates.result.state ?? data.jobUpdates.result.message);
  }),
);
