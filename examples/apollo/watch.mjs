// Subscribes with Apollo Client. Without `possibleTypes` its cache drops every field of `... on Job`.
import { ApolloClient, gql, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { possibleTypes } from '@jobgate/client';
import { createClient } from 'graphql-ws';

const url = process.env.JOBGATE_URL ?? 'http://127.0.0.1:8080';
const key = process.env.JOBGATE_KEY;

const socket = createClient({
  url: `${url.replace('http', 'ws')}/graphql`,
  connectionParams: () => (key ? { authorization: `Bearer ${key}` } : {}),
  // by default it gives up after five attempts
  retryAttempts: Infinity,
});
const client = new ApolloClient({ link: new GraphQLWsLink(socket), cache: new InMemoryCache({ possibleTypes }) });

const query = gql`
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

client.subscribe({ query, variables: { refs } }).subscribe({
  next: ({ data }) => console.log(data.jobUpdates.result.state ?? data.jobUpdates.result.message),
  error: (error) => console.error(error),
  complete: () => socket.dispose(),
});
