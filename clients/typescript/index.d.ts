// The public interface of the kit. The types of the schema are generated: schema.d.ts.
import type { JobProblem, JobProblemCode, JobResult, JobUpdateKind, WatchedJob } from './schema.js';

export * from './schema.js';

/** A job: `'SOURCE/EXTERNAL_ID'`, or a node ID (`Job.id`), or either as an object. */
export type JobReference = string | { source: string; externalId: string } | { id: string };

/** The ways to get updates: a subscription over WebSocket or server-sent events, or requests that wait (`jobAwait`). */
export type Transport = 'websocket' | 'sse' | 'wait';

export interface ClientOptions {
  /** The URL of the gateway, without `/graphql`. In a browser it can be relative: `'/'`. */
  url: string | URL;
  /**
   * A client key, a JWT or a watch token; or a function that gets one. The function is called before the first request,
   * and again when the gateway rejects its last token. What it throws is retried, except a `JobgateError` that is not
   * `retryable`. Without it no credential is sent.
   */
  token?: string | (() => string | Promise<string>) | null;
  /** What may be used, in this order; all by default. The next one is used where one does not get through. */
  transports?: Transport[];
  /** In place of the global `fetch`. */
  fetch?: typeof fetch;
  /** In place of the global `WebSocket`. Node.js has one since version 22; in version 20 pass that of the package `ws`. */
  WebSocket?: new (url: string, protocol: string) => unknown;
  /** The longest pause between two attempts, 30,000 by default. The pause that the gateway requests can be longer. */
  maxPauseMs?: number;
}

/** The state of the connection behind a watch. */
export type ConnectionStatus =
  /** The first attempt. */
  | { state: 'connecting' }
  /** Updates arrive. */
  | { state: 'live'; transport: Transport }
  /** The connection was lost or refused; what was received may be out of date. */
  | { state: 'reconnecting'; error: JobgateError; retryInMs: number }
  /** Each job had its last update. */
  | { state: 'ended' }
  /** The watch ended with an error that a retry cannot solve. */
  | { state: 'failed'; error: Error };

/** An update of a watched job: either `job` or `problem` is set. */
export interface JobChange<TJob = WatchedJob> {
  /** The reference, as it was passed. */
  ref: JobReference;
  kind: JobUpdateKind;
  /** Whether this is the last update of the job: it is terminal, or cannot be found. */
  isFinal: boolean;
  job: TJob | null;
  problem: JobProblem | null;
}

export interface ReadOptions {
  /** Further fields of a job, in GraphQL, such as `'transitions { state observedAt }'`. */
  fields?: string;
  /** The maximum age of a state that is not terminal, such as `'5s'`. */
  maxStaleness?: string;
  /** Ends the request or the watch. An iteration then throws the reason of the signal. */
  signal?: AbortSignal;
}

export interface WatchOptions extends ReadOptions {
  /** Is called when the state of the connection changes. */
  onStatus?: (status: ConnectionStatus) => void;
}

export interface WatchCallbacks<TJob = WatchedJob> extends WatchOptions {
  /** Is called with each update. */
  onUpdate: (change: JobChange<TJob>) => void;
  /** Is called once, when a retry cannot help. Without it the error is logged. */
  onError?: (error: Error) => void;
  /** Is called once, after the last update of the last job. */
  onEnd?: () => void;
}

export interface AwaitOptions extends WatchOptions {
  /** After this time an error with the code `TIMED_OUT` is thrown. By default the wait has no limit. */
  timeoutMs?: number;
}

/**
 * A client of one gateway. Watches of one client share one WebSocket; jobs that are watched at the same time share a
 * subscription.
 */
export declare class JobgateClient {
  constructor(options: ClientOptions);

  /**
   * Watches a job until its last update: a snapshot, then its changes, across reconnects. A slow reader gets the newest
   * state. Leaving the loop ends the watch.
   */
  watchJob<TJob = WatchedJob>(ref: JobReference, options?: WatchOptions & { onUpdate?: undefined }): AsyncGenerator<JobChange<TJob>, void, void>;
  /** Watches a job by callbacks. The result ends the watch; no callback is called after that. */
  watchJob<TJob = WatchedJob>(ref: JobReference, callbacks: WatchCallbacks<TJob>): () => void;

  /** Watches any number of jobs until the last update of each. A job that is named twice is reported once. */
  watchJobs<TJob = WatchedJob>(refs: Iterable<JobReference>, options?: WatchOptions & { onUpdate?: undefined }): AsyncGenerator<JobChange<TJob>, void, void>;
  /** Watches jobs by callbacks. */
  watchJobs<TJob = WatchedJob>(refs: Iterable<JobReference>, callbacks: WatchCallbacks<TJob>): () => void;

  /**
   * Waits until a job is terminal, across reconnects, and returns it; a failed job is a result. Throws a `JobgateError`
   * with the code of the problem if there is no such job.
   */
  awaitJob<TJob = WatchedJob>(ref: JobReference, options?: AwaitOptions): Promise<TJob>;

  /** Reads jobs once: a job or a problem for each reference, in their order. */
  jobs<TResult = WatchedJob | JobProblem>(refs: Iterable<JobReference>, options?: ReadOptions): Promise<TResult[]>;

  /** Creates a watch token for 1 to 50 jobs, to be passed to a browser. `ttl` is `'1s'` to `'1h'`, `'15m'` by default. */
  createWatchToken(refs: Iterable<JobReference>, options?: { ttl?: string; signal?: AbortSignal }): Promise<{ token: string; expiresAt: string }>;

  /** Runs a query or a mutation once, and returns its data. A rejected token is renewed; other errors are thrown. */
  execute<TData = unknown>(query: string, variables?: Record<string, unknown>, options?: { signal?: AbortSignal }): Promise<TData>;
}

/** Codes of this kit; others are those of the gateway (docs/guide.md). */
export type KitErrorCode =
  /** There is no connection, or a proxy answers in place of the gateway. */
  | 'UNREACHABLE'
  /** An open stream was lost. */
  | 'CONNECTION_LOST'
  /** The URL does not lead to a gateway. */
  | 'NOT_A_GATEWAY'
  /** The function `token` failed. */
  | 'TOKEN_UNAVAILABLE';

export declare class JobgateError extends Error {
  constructor(code: string, message: string, details?: { status?: number; retryable?: boolean; retryAfterMs?: number; problem?: JobProblem; cause?: unknown });
  /** A code of the gateway, of a `JobProblem`, or of the kit. */
  readonly code: JobProblemCode | KitErrorCode | (string & {});
  /** The HTTP status, if there was a response. */
  readonly status?: number;
  /** Whether the same request can succeed later. Watches retry by themselves. */
  readonly retryable: boolean;
  /** How long to wait before a retry. */
  readonly retryAfterMs?: number;
  /** The problem, if there is no such job. */
  readonly problem?: JobProblem;
}

export type { JobResult };
