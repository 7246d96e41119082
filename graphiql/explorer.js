// GraphiQL for this gateway: queries by POST, subscriptions by WebSocket (graphql-transport-ws), the examples as tabs. What is typed
// is kept in the session storage of this browser tab, the headers and so the key nowhere.
import { createGraphiQLFetcher } from '@graphiql/toolkit';
import { GraphiQL } from 'graphiql';
import 'graphiql/style.css';
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';

import everyJob from './examples/every-job.graphql';
import mindbridge from './examples/mindbridge.graphql';
import supermetrics from './examples/supermetrics.graphql';
import sources from './examples/sources.graphql';

// relative to this page, so that it also works below a path that a proxy strips
const graphql = new URL('graphql', location.href);
const socket = new URL(graphql);
socket.protocol = graphql.protocol === 'https:' ? 'wss:' : 'ws:';
const workers = { graphql: 'graphql.worker.js', json: 'json.worker.js' };
globalThis.MonacoEnvironment = {
  getWorker: (_, label) => new Worker(new URL(`graphiql/${workers[label] ?? 'editor.worker.js'}`, location.href)),
};

const reference = (source, externalId) => JSON.stringify({ ref: { external: { source, externalId } } }, null, 2);
const examples = [
  { query: mindbridge, variables: reference('audit', '65f0c0ffee00000000000001') },
  { query: supermetrics, variables: reference('marketing', 'demo_sales_2026') },
  { query: everyJob },
  { query: sources },
];

createRoot(document.getElementById('graphiql')).render(
  createElement(
    GraphiQL,
    {
      fetcher: createGraphiQLFetcher({
        url: graphql.href,
        // the headers of the editor become the payload of connection_init
        subscriptionUrl: socket.href,
        enableIncrementalDelivery: false,
      }),
      defaultTabs: examples,
      // the editor takes those of the first tab from here; a tab that was used before has its own
      initialVariables: sessionStorage.getItem('graphiql:tabState') === null ? examples[0].variables : undefined,
      defaultEditorToolsVisibility: 'variables',
      // no history: it would store the headers of each request
      plugins: [],
      shouldPersistHeaders: false,
      showPersistHeadersSettings: false,
      storage: sessionStorage,
    },
    createElement(GraphiQL.Logo, null, createElement('a', { href: './' }, 'jobgate')),
  ),
);
