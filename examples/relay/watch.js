// Subscribes with Relay. relay-compiler reads the document below, and the plugin of your bundler puts its result here.
import { createClient } from 'graphql-ws';
import Relay from 'relay-runtime';

const { Environment, graphql, Network, Observable, RecordSource, requestSubscription, Store } = Relay;
const url = process.env.JOBGATE_URL ?? 'http://127.0.0.1:8080';
const key = process.env.JOBGATE_KEY;
const credential = key ? { authorization: `Bearer ${key}` } : {};

const socket = createClient({
  url: `${url.replace('http', 'ws')}/graphql`,
  connectionParams: () => credential,
  // by default it gives up after five attempts
  retryAttempts: Infinity,
});

async function fetchQuery({ text: query }, variables) {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...credential },
    body: JSON.stringify({ query, variables }),
  });
  return response.json();
}

const subscribe = ({ text: query, name: operationName }, variables) =>
  Observable.create((sink) => socket.subscribe({ operationName, query, variables }, sink));

const environment = new Environment({
  network: Network.create(fetchQuery, subscribe),
  store: new Store(new RecordSource()),
});

const subscription = graphql`
  subscription watchSubscription($refs: [JobRef!]!) {
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

requestSubscription(environment, {
  subscription,
  variables: { refs },
  onNext: ({ jobUpdates }) => console.log(jobUpdates.result.state ?? jobUpdates.result.message),
  onError: (error) => console.error(error),
  onCompleted: () => socket.dispose(),
});
