// React hooks over the kit: see index.d.ts.
import { createContext, createElement, useContext, useMemo, useSyncExternalStore } from 'react';

/** @typedef {import('./index.js').JobsState} JobsState */

const Client = createContext(/** @type {import('../index.js').JobgateClient | null} */ (null));

/** @param {{ client: import('../index.js').JobgateClient, children?: import('react').ReactNode }} props */
export function JobgateProvider({ client, children }) {
  return createElement(Client.Provider, { value: client }, children);
}

/** @type {JobsState} */
const START = { changes: new Map(), status: { state: 'connecting' }, error: null };

/** @param {import('../index.js').JobReference} ref */
const keyOf = (ref) => (typeof ref === 'string' ? ref : 'id' in ref ? ref.id : `${ref.source}/${ref.externalId}`);

/** What a watch has reported so far, as an external store: it watches while a component is subscribed. */
class WatchStore {
  #client;
  #refs;
  #options;
  #state = START;
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {() => void} */
  #stop = () => {};

  /**
   * @param {import('../index.js').JobgateClient} client
   * @param {import('../index.js').JobReference[]} refs
   * @param {import('../index.js').ReadOptions} options
   */
  constructor(client, refs, options) {
    this.#client = client;
    this.#refs = refs;
    this.#options = options;
  }

  snapshot = () => this.#state;

  /** @param {() => void} listener */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#start();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#stop();
    };
  };

  #start() {
    const finished = [...this.#state.changes.values()].filter(({ isFinal }) => isFinal).map(({ ref }) => keyOf(ref));
    const refs = this.#refs.filter((ref) => !finished.includes(keyOf(ref)));
    if (refs.length === 0) return;
    this.#stop = this.#client.watchJobs(refs, {
      ...this.#options,
      onUpdate: (change) => this.#set({ changes: new Map(this.#state.changes).set(keyOf(change.ref), change) }),
      onStatus: (status) => this.#set({ status }),
      onError: (error) => this.#set({ error }),
    });
  }

  /** @param {Partial<JobsState>} change */
  #set(change) {
    this.#state = { ...this.#state, ...change };
    for (const listener of [...this.#listeners]) listener();
  }
}

/**
 * @param {Iterable<import('../index.js').JobReference>} refs
 * @param {import('./index.js').UseJobsOptions} [options]
 */
export function useJobs(refs, { client: given, fields, maxStaleness } = {}) {
  const inherited = useContext(Client);
  const client = given ?? inherited;
  if (!client) throw new Error('there is no JobgateProvider around this component, and no option client');
  const all = [...refs];
  // a new list with the same jobs is the same watch
  const key = JSON.stringify(all.map(keyOf));
  const store = useMemo(() => new WatchStore(client, all, { fields, maxStaleness }), [client, key, fields, maxStaleness]);
  return useSyncExternalStore(store.subscribe, store.snapshot, () => START);
}

/**
 * @param {import('../index.js').JobReference | null | undefined} ref
 * @param {import('./index.js').UseJobsOptions} [options]
 */
export function useJob(ref, options) {
  const { changes, status, error } = useJobs(ref == null ? [] : [ref], options);
  const change = ref == null ? undefined : changes.get(keyOf(ref));
  return { job: change?.job ?? null, problem: change?.problem ?? null, isFinal: change?.isFinal ?? false, status, error };
}
