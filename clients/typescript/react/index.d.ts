// React hooks over the kit. The peer dependency is react 18 or later.
import type { ReactNode } from 'react';
import type { ConnectionStatus, JobChange, JobgateClient, JobProblem, JobReference, WatchedJob } from '../index.js';

/** Makes a client available to the hooks below it. Create the client once, outside of components. */
export declare function JobgateProvider(props: { client: JobgateClient; children?: ReactNode }): ReactNode;

export interface UseJobsOptions {
  /** In place of the client of the provider. */
  client?: JobgateClient;
  /** Further fields of a job, in GraphQL. */
  fields?: string;
  /** The maximum age of a state that is not terminal, such as `'5s'`. */
  maxStaleness?: string;
}

/** What a component shows of its jobs. */
export interface JobsState<TJob = WatchedJob> {
  /** The last update of each job by its reference: `SOURCE/EXTERNAL_ID`, or the node ID. */
  changes: ReadonlyMap<string, JobChange<TJob>>;
  /** While it is not `live` or `ended`, the changes may be out of date. */
  status: ConnectionStatus;
  /** Why the watch ended, if a retry cannot help. */
  error: Error | null;
}

/** Watches jobs while the component is mounted. Components that watch the same job share its subscription. */
export declare function useJobs<TJob = WatchedJob>(refs: Iterable<JobReference>, options?: UseJobsOptions): JobsState<TJob>;

/** Watches one job while the component is mounted; none while `ref` is null. */
export declare function useJob<TJob = WatchedJob>(ref: JobReference | null | undefined, options?: UseJobsOptions): {
  job: TJob | null;
  problem: JobProblem | null;
  /** Whether no update follows. */
  isFinal: boolean;
  status: ConnectionStatus;
  error: Error | null;
};
