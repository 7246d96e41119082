// Subscribes with an npm client, as published and with its default options, and prints one JSON line an answer and one at the
// end. Usage: node subscribe.mjs CLIENT URL QUERY VARIABLES [AUTHORIZATION]; the clients are the keys of `clients` below.
import { ApolloClient, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { Client as Urql, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import Relay from 'relay-runtime';
import { onEnd, pipe, subscribe } from 'wonka';
import WebSocket from 'ws';

const [client, address, query, json, authorization] = process.argv.slice(2);
const variables = JSON.parse(json);
const credential = authorization ? { authorization } : {};
const url = `http://${address}`;

const say = (line) => console.log(JSON.stringify(line));
const ws = () => createWs({ url: `ws://${address}`, webSocketImpl: WebSocket, connectionParams: credential });

/** What is told of an operation, whatever client carries it. */
const sink = (leave) => ({
  next: (answer) => say(answer),
  complete: () => {
    say({ end: 'complete' });
    leave();
  },
  // a list of GraphQL errors, a close event, or the error of a response
  error: (error) => {
    const errors = Array.isArray(error) ? error.map(({ extensions }) => extensions.code) : undefined;
    say({ end: 'error', errors, code: error.code, status: error.response?.status, reason: error.reason });
    leave();
  },
});

function plain(client) {
  client.subscribe({ query, variables }, sink(() => client.dispose()));
}

function apollo(link) {
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  client.subscribe({ query: gql(query), variables }).subscribe(sink(() => process.exit()));
}

function urql(options) {
  const client = new Urql({ url, fetchOptions: { headers: credential }, ...options });
  const { next, complete } = sink(() => process.exit());
  // at the end it repeats the last answer
  const told = ({ data, error, hasNext }) => hasNext && next({ data, errors: error?.graphQLErrors });
  pipe(client.subscription(query, variables), onEnd(complete), subscribe(told));
}

function relay(client) {
  const { Environment, Network, Observable, RecordSource, requestSubscription, Store } = Relay;
  const scalar = (name, alias = null) => ({ alias, args: null, kind: 'ScalarField', name, storageKey: null });
  const on = (type, ...selections) => ({ kind: 'InlineFragment', selections, type, abstractKey: null });
  const link = (name, args, ...selections) => ({ alias: null, args, concreteType: null, kind: 'LinkedField', name, plural: false, selections, storageKey: null });
  const refs = [{ kind: 'Variable', name: 'refs', variableName: 'refs' }];
  const given = [{ defaultValue: null, kind: 'LocalArgument', name: 'refs' }];
  const result = link('result', null, scalar('__typename'), on('MindBridgeJob', scalar('state')), on('JobProblem', scalar('code')));
  const selections = [link('jobUpdates', refs, scalar('__typename'), scalar('kind'), scalar('isFinal'), result)];
  // as relay-compiler writes it
  const text = `subscription Follow($refs: [JobRef!]!) { jobUpdates(refs: $refs) {
    __typename kind isFinal result { __typename ... on MindBridgeJob { state } ... on JobProblem { code } } } }`;
  const subscription = {
    fragment: { argumentDefinitions: given, kind: 'Fragment', metadata: null, name: 'Follow', selections, type: 'Subscription', abstractKey: null },
    kind: 'Request',
    operation: { argumentDefinitions: given, kind: 'Operation', name: 'Follow', selections },
    params: { cacheID: 'follow', id: null, metadata: {}, name: 'Follow', operationKind: 'subscription', text },
  };
  const network = Network.create(
    () => Observable.create(() => {}),
    ({ text, name }, variables) => Observable.create((sink) => client.subscribe({ query: text, operationName: name, variables }, sink)),
  );
  const { next, complete, error } = sink(() => process.exit());
  const environment = new Environment({ network, store: new Store(new RecordSource()) });
  requestSubscription(environment, { subscription, variables, onNext: (data) => next({ data }), onCompleted: complete, onError: error });
}

const clients = {
  'graphql-ws': () => plain(ws()),
  'graphql-sse': () => plain(createSse({ url, headers: credential })),
  'apollo-ws': () => apollo(new GraphQLWsLink(ws())),
  'apollo-multipart': () => apollo(new HttpLink({ uri: url, headers: credential })),
  'urql-ws': () => {
    const client = ws();
    const forwardSubscription = (request) => ({ subscribe: (sink) => ({ unsubscribe: client.subscribe(request, sink) }) });
    urql({ exchanges: [subscriptionExchange({ forwardSubscription })] });
  },
  'urql-fetch': () => urql({ exchanges: [fetchExchange], fetchSubscriptions: true }),
  'relay-ws': () => relay(ws()),
};
clients[client]();
