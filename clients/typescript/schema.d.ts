// Generated from schema/schema.graphql by clients/generate.mjs. Do not edit.

/** The ways in which a client can be authenticated. */
export type AuthenticationMethod =
  /** No credential is required, because neither clients nor issuers are configured. */
  | 'NONE'
  /** A client key. */
  | 'CLIENT_KEY'
  /** A JSON Web Token of a configured issuer. */
  | 'JWT'
  /** A watch token, created with `createWatchToken`. */
  | 'WATCH_TOKEN';

/** Input for the `createWatchToken` mutation. */
export interface CreateWatchTokenInput {
  /** The jobs that the token gives access to, 1 to 50. */
  refs: JobRef[];
  /** The lifetime of the token, `1s` to `1h`. The token does not outlive the client's own credential. */
  ttl?: Duration;
}

/** The result of the `createWatchToken` mutation. */
export interface CreateWatchTokenPayload {
  /**
   * The watch token: an opaque string that starts with `jgw_`, at most 4 KiB. Secret. It is sent as a bearer token in
   * place of a client key.
   */
  token: String;
  /** The date and time when the token expires. */
  expiresAt: DateTime;
}

/** The states of the gateway's credential for a source. A new value is verified before it becomes active. */
export type CredentialState =
  /** The newest value is active. */
  | 'ACTIVE'
  /**
   * The source rejects the active credential. The gateway retries every 30 seconds, and as soon as a new value is
   * available.
   */
  | 'REJECTED'
  /** No valid credential is available. */
  | 'MISSING'
  /** A new value was read and is not verified yet. The previous value stays active. */
  | 'PENDING_VERIFICATION'
  /** The source rejects the new value. The previous value stays active. */
  | 'PENDING_REJECTED'
  /** The new value cannot be read or is not a valid secret. The previous value stays active. */
  | 'PENDING_INVALID';

/**
 * A date and time in RFC 3339 format, in UTC, for example `2026-11-21T19:10:00Z`. Up to 9 fractional digits. As input,
 * any UTC offset is accepted.
 */
export type DateTime = string;

/**
 * A duration: a whole number and one of the units `ms`, `s`, `m`, `h` and `d`, for example `250ms` or `30d`. No sign,
 * fraction or combination.
 */
export type Duration = string;

/** A reference to a MindBridge object. */
export interface EntityRef {
  /** The MindBridge ID of the object. Null if not reported. */
  id: String | null;
  /** The type of the object, such as `ANALYSIS_RESULT`. MindBridge can add values at any time. Null if not reported. */
  type: String | null;
}

/** Identifies a job by its source and its ID in the upstream's API. */
export interface ExternalJobRef {
  /**
   * The name of the source, as returned in `Source.name`: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter
   * or a digit.
   */
  source: String;
  /**
   * The ID in the upstream's API: `asyncResultId` for MindBridge, `schedule_id` for Supermetrics. Case-sensitive. 1
   * to 200 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`, `~` and `:`, but not only dots; for Supermetrics, without `.`, `~`
   * and `:`.
   */
  externalId: String;
}

/** When this job was last observed, and whether that is older than requested. */
export interface Freshness {
  /** The date and time when the gateway received the upstream's response, by the gateway's clock. */
  observedAt: DateTime;
  /** The time since `observedAt`, in milliseconds. At most 2147483647. */
  ageMs: Int;
  /** Whether the result is older than requested. A terminal job is never stale. */
  isStale: Boolean;
  /** The reason why the result is stale. Null if it is not stale. */
  staleReason: StaleReason | null;
  /** The date and time of the next scheduled poll. Null if no poll is scheduled. Always null in `jobFeed`. */
  nextPollAt: DateTime | null;
}

/** The `Int` scalar type represents non-fractional signed whole numeric values. Int can represent values between -(2^31) and 2^31 - 1. */
export type Int = number;

/**
 * A signed 64-bit integer, encoded as a string of decimal digits, because `Int` is limited to 32 bits and JSON parsers
 * round numbers above 2^53.
 */
export type Int64 = string;

/**
 * Any JSON value, exactly as the upstream sent it: `1.10` is not changed to `1.1`. The value can be JSON `null`, also
 * where the type is `JSON!`.
 */
export type JSON = unknown;

/**
 * A job of any upstream, as of the last observation. A Supermetrics ID can run again after a terminal state; each time
 * is a run. The fields describe the latest run.
 */
export type Job = MindBridgeJob | SupermetricsJob;

/** The `ID` scalar type represents a unique identifier, often used to refetch an object or as key for a cache. The ID type appears in a JSON response as a String; however, it is not intended to be human-readable. When expected as an input type, any string (such as `"4"`) or integer (such as `4`) input value will be accepted as an ID. */
export type ID = string;

/** A page of jobs. */
export interface JobConnection {
  /** A list of edges. */
  edges: JobEdge[];
  /** A list of jobs. */
  nodes: Job[];
  /** Information to aid in pagination. */
  pageInfo: PageInfo;
  /** The number of jobs on all pages that the client is allowed to read, counted to 10,000. */
  totalCount: Int;
}

/** An edge in a connection. */
export interface JobEdge {
  /** The cursor of the job: an opaque string. Pass it as `after`. */
  cursor: String;
  /** The job at the end of the edge. */
  node: Job;
  /** The labels of the job. Empty if the job is not tracked. */
  labels: Label[];
  /** How the gateway knows the job. */
  origin: JobOrigin;
}

/** When a job is expected to finish, by how long completed jobs of its kind took, given how long it has taken already. */
export interface JobEstimate {
  /** The median: half of the jobs that took as long finished before. */
  expectedFinishAt: DateTime;
  /** One in ten of the jobs that took as long finished before. */
  earliest: DateTime;
  /** Nine in ten of the jobs that took as long finished before. */
  latest: DateTime;
  /** The number of completed jobs that took as long, of at most the last 256. */
  sampleSize: Int;
}

/** The failure of a job, as the upstream reports it. */
export interface JobFailure {
  /** The upstream's error code, verbatim. Not from a fixed list. Null if the upstream reports none. */
  code: String | null;
  /**
   * The upstream's error message, for display. For MindBridge, it can be a combination of `error` and `errorMessage`.
   * Null if the upstream reports none.
   */
  message: String | null;
}

/** Filters for jobs. A job must match all filters that are set; each list has at most 100 items. A null or empty filter matches every job. */
export interface JobFilter {
  /** Include only jobs of the sources with these names. A name that the client may not read matches nothing. */
  sources?: String[] | null;
  /** Include only jobs in one of these states. */
  states?: JobState[] | null;
  /** Include only jobs of one of these kinds, as in `MindBridgeJob.kind`. A Supermetrics query has no kind. */
  kinds?: String[] | null;
  /** Include only tracked jobs that have all of these labels. */
  labels?: LabelInput[] | null;
  /** Include only jobs that the gateway knows in one of these ways. */
  origins?: JobOrigin[] | null;
  /**
   * Include only jobs that contain this text in the external ID, the kind, the code or message of the failure, or the
   * value of a label. Case and surrounding white space are ignored. At most 200 bytes.
   */
  text?: String | null;
  /** Include only jobs with `freshness.observedAt` at or after this time. */
  observedSince?: DateTime | null;
  /** Include only jobs that were last changed at or after this time: `finishedAt`, else `updatedAt`, else `stateSince`. */
  updatedSince?: DateTime | null;
}

/** The order of a list of jobs. */
export interface JobOrder {
  /** What to order by. Jobs with the same value are ordered by source and external ID. */
  field: JobOrderField;
  /** The direction of the order. */
  direction?: OrderDirection;
}

/** The values by which jobs can be ordered. */
export type JobOrderField =
  /** When the job was last changed: `finishedAt`, else `updatedAt`, else `stateSince`. */
  | 'UPDATED_AT'
  /** When the job was created: `createdAt`, else `firstSeenAt`. */
  | 'CREATED_AT'
  /** The state, in the order of `JobState`. */
  | 'STATE';

/** The ways in which the gateway knows a job. */
export type JobOrigin =
  /** A client tracks the job; see `trackJobs`. */
  | 'TRACKED'
  /** A list of the source contained the job before any client read it. */
  | 'DISCOVERED'
  /** A client read the job before any list contained it. */
  | 'REQUESTED';

/**
 * The reason why there is no job for a reference, or why rows of a job are missing. Other results of the same request
 * are not affected.
 */
export interface JobProblem {
  __typename: 'JobProblem';
  /** The reference, as the client sent it; for rows, the node ID of the job. */
  ref: ProblemRef;
  /** The machine-readable reason. */
  code: JobProblemCode;
  /** The human-readable reason, with what to do about it. Can change; do not parse. */
  message: String;
  /** Whether the same request can succeed later. */
  retryable: Boolean;
  /**
   * The time to wait before a retry, in milliseconds. At most 2147483647. Null if unknown, or if the request
   * is not retryable.
   */
  retryAfterMs: Int | null;
}

/** The reasons why there is no job for a reference, or why rows of a job are missing. */
export type JobProblemCode =
  /** The job or the source does not exist, or the client is not allowed to read it. The cases cannot be distinguished. */
  | 'NOT_FOUND'
  /**
   * The upstream no longer keeps the rows of the job. Only in `RowConnection.problem`; an expired job is returned with
   * `state: EXPIRED`.
   */
  | 'EXPIRED'
  /** The reference is malformed. No upstream call was made. */
  | 'INVALID_REF'
  /** The source is rate-limited or paused. Retry after `retryAfterMs`. */
  | 'THROTTLED'
  /** The source cannot be reached, or responded with a server error. */
  | 'UNAVAILABLE'
  /** The source did not respond in time. */
  | 'TIMED_OUT'
  /** The source rejects the gateway's credential. The operator of the gateway must renew it. */
  | 'CREDENTIAL_REJECTED'
  /** The gateway has no valid credential for the source. The operator of the gateway must set one. */
  | 'UNCONFIGURED'
  /** The response of the source is not valid, or has fewer rows than the source reports. */
  | 'BAD_ANSWER'
  /**
   * The job was polled for the maximum duration without reaching a terminal state. Query or subscribe again to
   * continue.
   */
  | 'FOLLOW_LIMIT'
  /** An internal error of the gateway. */
  | 'INTERNAL';

/**
 * The progress of a job, as a number of parts; for Supermetrics, the sub-queries of the query. It cannot be shown as a
 * percentage, because the total can grow.
 */
export interface JobProgress {
  /** The number of completed parts. */
  completed: Int;
  /** The number of known parts. Can grow while the job runs. */
  total: Int;
}

/** Identifies a job. Exactly one field must be set. */
export type JobRef = { id: ID; external?: never } | { external: ExternalJobRef; id?: never };

/** The result for a job reference: the job, or the reason why there is none. */
export type JobResult = MindBridgeJob | SupermetricsJob | JobProblem;

/**
 * The possible states of a job, the same for all upstreams. An upstream's state that the gateway does not know is
 * `UNKNOWN`; `nativeState` has the original value.
 */
export type JobState =
  /** The job is waiting to run. */
  | 'QUEUED'
  /** The job is running. */
  | 'RUNNING'
  /** The job completed successfully. Terminal. */
  | 'SUCCEEDED'
  /** The job completed with an error; see `failure`. Terminal. */
  | 'FAILED'
  /** The job was stopped before it completed. Terminal. */
  | 'CANCELED'
  /** The upstream no longer keeps the job, and the gateway did not observe another terminal state. Terminal. */
  | 'EXPIRED'
  /** The upstream reports a state that the gateway does not know; see `nativeState`. Not terminal. */
  | 'UNKNOWN';

/** A change of the state or of the native state of a job, or its first observation. */
export interface JobTransition {
  /** The state from then on. */
  state: JobState;
  /** The state as the upstream reported it, cut to 100 bytes. Null if the upstream reported none. */
  nativeState: String | null;
  /** The date and time when the gateway first observed the state, by the gateway's clock. */
  observedAt: DateTime;
  /**
   * The date and time when the job was last updated, by the upstream's clock, in the response that first had the
   * state. Null if the upstream did not report it, or reported the same time as before.
   */
  upstreamAt: DateTime | null;
}

/** An update to a job. */
export interface JobUpdate {
  /** The kind of the update. */
  kind: JobUpdateKind;
  /** The job, or the reason why there is none. Null if `kind` is `RESUMED` or `RESET`. */
  result: JobResult | null;
  /**
   * In `jobUpdates`: the number of the update within its job, as counted by this gateway process. Increases with each
   * update; a gap means that updates were skipped, because a newer one replaced them. 0 for a reference that cannot be
   * watched. In `jobFeed`: the number of the update within the subscription, from 1; 0 for the first update after a
   * cursor. Starts again with each process and is not comparable after a reconnect; use `cursor` to resume.
   */
  sequence: Int;
  /**
   * Whether this is the last update of the job in this subscription. In `jobFeed`: whether the job is terminal; a new
   * run of the same ID sends further updates.
   */
  isFinal: Boolean;
  /**
   * In `jobFeed`: the position of the update, for the argument `after`. An opaque string of 32 characters, valid at the
   * gateway process that issued it. Null in `jobUpdates`.
   */
  cursor: String | null;
}

/** The kinds of job updates. */
export type JobUpdateKind =
  /** The first update of a job in a subscription: its current state. Not in `jobFeed`. */
  | 'SNAPSHOT'
  /** The job changed, or it became stale or fresh again. */
  | 'CHANGED'
  /**
   * The final update of a job, after at least one other update. In `jobFeed`: the job reached a terminal state, also as
   * the first update of the job.
   */
  | 'ENDED'
  /** The first update of a `jobFeed` with `after`: the changes after the cursor follow. No job. */
  | 'RESUMED'
  /**
   * The first update of a `jobFeed` with `after`: changes after the cursor may be missing, and the changes from now on
   * follow. Read `jobList`. No job.
   */
  | 'RESET';

/** A label: a name and a value that clients set on a tracked job. */
export interface Label {
  /** The name of the label, 1 to 63 bytes of UTF-8 without control characters. */
  name: String;
  /** The value of the label, 1 to 63 bytes of UTF-8 without control characters. */
  value: String;
}

/** A label: a name and a value that clients set on a tracked job. */
export interface LabelInput {
  /** The name of the label, 1 to 63 bytes of UTF-8 without control characters. */
  name: String;
  /** The value of the label, 1 to 63 bytes of UTF-8 without control characters. */
  value: String;
}

/** The task queue of a Supermetrics licence. */
export interface LicenceQueue {
  /** The number of waiting tasks. Null if not reported. */
  tasksScheduled: Int64 | null;
  /** The number of running tasks. Null if not reported. */
  tasksRunning: Int64 | null;
}

/** A MindBridge async result, such as an analysis run, an ingestion or an export. */
export interface MindBridgeJob {
  __typename: 'MindBridgeJob';
  /** The global node ID of the job: an opaque, stable string. Knowing an ID does not grant access. */
  id: ID;
  /** The source that the job belongs to. An error if the source is no longer configured. */
  source: Source;
  /**
   * When the job is expected to finish, as of this result. Null if the job is not queued or running, and if fewer
   * than eight completed jobs of its kind took as long as it has taken.
   */
  estimate: JobEstimate | null;
  /**
   * The grant that allows the client to read the job: one of `Viewer.grants`. Depends on the client. Null if the
   * client is no longer allowed to read the job.
   */
  viewerGrant: ViewerGrant | null;
  /** The `asyncResultId` of the job. */
  externalId: String;
  /** The state of the job. */
  state: JobState;
  /**
   * Whether the state is terminal: the run is completed. A later report of the upstream can still correct
   * the state: for example, another terminal state replaces `EXPIRED`, and the state of a restored backup
   * replaces any other.
   */
  isTerminal: Boolean;
  /**
   * The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if the
   * upstream reports none.
   */
  nativeState: String | null;
  /** The date and time when the job was created, by the upstream's clock. Null if MindBridge does not report it. */
  createdAt: DateTime | null;
  /**
   * The date and time when the job was last updated, by the upstream's clock. Null if MindBridge does not report
   * it.
   */
  updatedAt: DateTime | null;
  /** The date and time when the job finished. Always null: MindBridge does not report it. */
  finishedAt: DateTime | null;
  /** The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown. */
  firstSeenAt: DateTime | null;
  /**
   * The date and time when the gateway first observed the current state, by the gateway's clock. Null if
   * unknown.
   */
  stateSince: DateTime | null;
  /**
   * The date and time when the gateway first observed a terminal state of this run, by the gateway's
   * clock. Null if the job is not terminal, or if unknown.
   */
  terminalSeenAt: DateTime | null;
  /**
   * The changes of the state and of the native state that the gateway observed, oldest first, at most the last
   * 50. Includes earlier runs of the same ID. Changes between two observations are not included. Empty if the
   * gateway kept no history when it observed the current state.
   */
  transitions: JobTransition[];
  /** The progress of the job. Always null: MindBridge does not report it. */
  progress: JobProgress | null;
  /**
   * The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can
   * be null.
   */
  failure: JobFailure | null;
  /** The age of this result, and whether it is stale. */
  freshness: Freshness;
  /**
   * The kind of job (`type` in the MindBridge API). MindBridge can add values at any time. Null if not reported. Known
   * values: `ANALYSIS_RUN`, `ANALYSIS_SOURCE_INGESTION`, `ADMIN_REPORT`, `DATA_TABLE_EXPORT`,
   * `ANALYSIS_ROLL_FORWARD`, `GDPDU_UNPACK_JOB`, `ACCOUNT_GROUPING_EXPORT`, `ACCOUNT_MAPPING_EXPORT`,
   * `DATA_TRANSFORMATION_JOB`.
   */
  kind: String | null;
  /** The MindBridge object that the job processed or created. Null if not reported. */
  entity: EntityRef | null;
  /** The data-integrity version of the job. Increases with each save. Null if not reported. */
  version: Int64 | null;
  /** The user who started the job. Null if not reported. */
  createdBy: UserInfo | null;
  /** The user who last modified the job. Null if not reported. */
  lastModifiedBy: UserInfo | null;
  /**
   * The value of `error` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`. Null if
   * not reported.
   */
  error: String | null;
  /**
   * The value of `errorMessage` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`.
   * Null if not reported.
   */
  errorMessage: String | null;
}

/** The root mutation type. Mutations change the state of the gateway only, never an upstream. */
export interface Mutation {
  /**
   * Tracks jobs: the gateway polls them until they are terminal, also without subscribers. Labels are shared by all
   * clients that are allowed to read the job. A client whose grant is restricted by labels cannot change labels.
   */
  trackJobs: TrackJobsPayload;
  /** Stops tracking jobs and removes their labels. Subscriptions to the jobs continue, and stored results are kept. */
  untrackJobs: UntrackJobsPayload;
  /**
   * Creates a short-lived token for a list of jobs, for use in a browser in place of a client key. The token can read and
   * subscribe to these jobs within the client's own grant. No upstream call is made.
   */
  createWatchToken: CreateWatchTokenPayload;
}

/** The arguments of `Mutation.trackJobs`. */
export interface MutationTrackJobsArgs {
  /** The jobs to track, and their labels. */
  input: TrackJobsInput;
}

/** The arguments of `Mutation.untrackJobs`. */
export interface MutationUntrackJobsArgs {
  /** The jobs to stop tracking. */
  input: UntrackJobsInput;
}

/** The arguments of `Mutation.createWatchToken`. */
export interface MutationCreateWatchTokenArgs {
  /** The jobs and the lifetime of the token. */
  input: CreateWatchTokenInput;
}

/** An object with an ID. */
export type Node = MindBridgeJob | SupermetricsJob;

/** The directions of an order. */
export type OrderDirection =
  /** The smallest or earliest value first. */
  | 'ASC'
  /** The largest or latest value first. */
  | 'DESC';

/** Information about pagination in a connection. */
export interface PageInfo {
  /** Whether there are more items after this page. */
  hasNextPage: Boolean;
  /** Whether there are items before this page. True if `after` was given, except if rows could not be read. */
  hasPreviousPage: Boolean;
  /** The cursor of the first item of this page. Null if the page is empty. */
  startCursor: String | null;
  /**
   * The cursor of the last item of this page: an opaque string. Pass it as `after` to read the next page. If the page
   * is empty, the `after` of the request, which can be null. Null if rows could not be read.
   */
  endCursor: String | null;
}

/**
 * The reference of a job, as the client sent it; for rows, the node ID of the job. Either `id`, or `source` and
 * `externalId` are set.
 */
export interface ProblemRef {
  /** The global node ID. Null if the reference is external. */
  id: ID | null;
  /** The name of the source. Null if the reference is a node ID. */
  source: String | null;
  /** The ID in the upstream's API. Null if the reference is a node ID. */
  externalId: String | null;
}

/** The root query type. */
export interface Query {
  /**
   * Fetches an object by its global node ID. Null if `id` is malformed, the object does not exist, or the client is not
   * allowed to read it. If the source cannot be read: null, with an entry in `errors`.
   */
  node: Node | null;
  /**
   * Fetches a list of objects by their global node IDs. The result has the same length and order as `ids`. An entry is
   * null if the ID is malformed, the object does not exist, or the client is not allowed to read it. If the source
   * cannot be read: null, with an entry in `errors`.
   */
  nodes: (Node | null)[];
  /**
   * Returns a job, from the store if it is fresh enough, else from its source. A `JobProblem` if there is none to
   * return.
   */
  job: JobResult;
  /**
   * Returns a list of jobs, each from the store if it is fresh enough, else from its source. An entry is a `JobProblem`
   * if there is no job to return. The result has the same length and order as `refs`. A job that is listed more than
   * once is fetched once.
   */
  jobs: JobResult[];
  /**
   * Waits until a job reaches a terminal state, and returns it. When `timeout` elapses, returns the job in its current
   * state. A job that is not found yet is waited for as well; a `JobProblem` if it is still not found. `timeout: "0s"`
   * does not wait. Intended for scripts, and for networks that do not support streams.
   */
  jobAwait: JobResult;
  /**
   * A list of the jobs that the gateway has stored and the client is allowed to read. The list is read from the store
   * without upstream calls; `freshness` gives the age of each job. A page without `orderBy` and `totalCount` costs
   * little; each of them reads all jobs that match.
   */
  jobList: JobConnection;
  /** The sources that the client is allowed to read, ordered by name. */
  sources: Source[];
  /** The client that sends the request. */
  viewer: Viewer;
}

/** The arguments of `Query.node`. */
export interface QueryNodeArgs {
  /** The global node ID of the object. */
  id: ID;
}

/** The arguments of `Query.nodes`. */
export interface QueryNodesArgs {
  /** The global node IDs of the objects, 1 to 200. */
  ids: ID[];
}

/** The arguments of `Query.job`. */
export interface QueryJobArgs {
  /** The job to fetch. */
  ref: JobRef;
  /**
   * The maximum age of the result for a job that is not terminal. If no result this fresh is
   * available, an older one is returned and `freshness.staleReason` gives the reason. `0s` always
   * fetches from the source. If null, the gateway's configured default applies.
   */
  maxStaleness?: Duration | null;
}

/** The arguments of `Query.jobs`. */
export interface QueryJobsArgs {
  /** The jobs to fetch, 1 to 200. */
  refs: JobRef[];
  /**
   * The maximum age of the result for a job that is not terminal. If no result this fresh is
   * available, an older one is returned and `freshness.staleReason` gives the reason. `0s` always
   * fetches from the source. If null, the gateway's configured default applies.
   */
  maxStaleness?: Duration | null;
}

/** The arguments of `Query.jobAwait`. */
export interface QueryJobAwaitArgs {
  /** The job to wait for. */
  ref: JobRef;
  /** The maximum time to wait. Limited by the gateway's request timeout. */
  timeout?: Duration;
}

/** The arguments of `Query.jobList`. */
export interface QueryJobListArgs {
  /** Filters for the jobs. If null, all jobs are returned. */
  filter?: JobFilter | null;
  /** The order of the jobs. If null, by source and external ID, ascending. */
  orderBy?: JobOrder | null;
  /** The number of jobs to return, 1 to 100. */
  first: Int;
  /**
   * Returns the items after this cursor, a `cursor` or the `endCursor` of a page in the same order. If
   * null, the first page.
   */
  after?: String | null;
}

/** A field of a Supermetrics query. */
export interface QueryField {
  /** The Supermetrics ID of the field. Null if not reported. */
  id: String | null;
  /** The display name of the field. Null if not reported. */
  name: String | null;
  /** The Supermetrics data type of the field. Null if not reported. */
  dataType: String | null;
  /** The index of the field's column in the rows, starting at 0. Null if not reported. */
  dataColumn: Int64 | null;
}

/** The parameters of a Supermetrics query. */
export interface QueryMeta {
  /** The first day of the date range, verbatim, as Supermetrics reports it. Null if not reported. */
  startDate: String | null;
  /** The last day of the date range, verbatim, as Supermetrics reports it. Null if not reported. */
  endDate: String | null;
  /** The data source accounts, each as Supermetrics reports it. Empty if not reported. */
  accounts: JSON[];
  /** The requested fields. Empty if not reported. */
  fields: QueryField[];
}

/** Statistics of the result of a Supermetrics query. The rows are in `SupermetricsJob.rows`. */
export interface QueryResult {
  /** The number of rows, without the header row. Null if not reported. */
  totalRows: Int64 | null;
  /** The number of columns. Null if not reported. */
  totalColumns: Int64 | null;
  /** The run time of the query, in seconds. Null if not reported. */
  runSeconds: Float | null;
  /** Whether the data source returned sampled data. Null if not reported. */
  dataSampled: Boolean | null;
  /** Whether Supermetrics returned the data from its cache. Null if not reported. */
  cacheUsed: Boolean | null;
  /** The date and time when the cached data was fetched. Null if not reported. */
  cacheTime: DateTime | null;
}

/** The `Float` scalar type represents signed double-precision fractional values as specified by [IEEE 754](https://en.wikipedia.org/wiki/IEEE_floating_point). */
export type Float = number;

/** A row of a query result. */
export interface Row {
  /** The cell values, in the order of `RowConnection.header`. */
  cells: JSON[];
}

/** A page of the rows of a query result. */
export interface RowConnection {
  /**
   * The column names: the header row, or the field names if the query has no header row. Empty if the rows
   * could not be read.
   */
  header: JSON[];
  /** A list of edges. */
  edges: RowEdge[];
  /** A list of rows. */
  nodes: Row[];
  /** Information to aid in pagination. */
  pageInfo: PageInfo;
  /**
   * Why rows are missing, for example `EXPIRED`, `BAD_ANSWER` (fewer rows than reported), `THROTTLED` or `TIMED_OUT`.
   * If it is set, ignore `pageInfo.hasNextPage`; read the page again if `problem.retryable`. Null if no rows are
   * missing.
   */
  problem: JobProblem | null;
}

/** An edge in a connection. */
export interface RowEdge {
  /** The cursor of the row: an opaque string. Pass it as `after`. */
  cursor: String;
  /** The row at the end of the edge. */
  node: Row;
}

/** A configured account of an upstream. */
export interface Source {
  /** The name of the source, as used in `ExternalJobRef.source`. */
  name: String;
  /** The upstream API of the source. */
  upstream: Upstream;
  /** The health of the source. */
  health: SourceHealth;
  /** The state of the gateway's credential for the source. */
  credential: SourceCredential;
  /** The call budget of the source and its usage. Null if the client is allowed to read only some jobs of the source. */
  budget: SourceBudget | null;
  /**
   * The date and time before which the gateway makes no call: the source asked for a pause, its hourly budget is used
   * up, its circuit breaker is open, or its credential is rejected. Null if none of these applies. While the circuit
   * breaker is open, a call for a client can be made earlier.
   */
  throttledUntil: DateTime | null;
  /**
   * The last failed call, however long ago. Null if no call failed, or if the client is allowed to read only some jobs
   * of the source.
   */
  lastError: SourceError | null;
  /**
   * How the gateway lists what changed at the source, in place of polls of single jobs. Null if the source cannot be
   * listed, or if the client is allowed to read only some jobs of the source.
   */
  discovery: SourceDiscovery | null;
}

/**
 * The call budget of a source, shared by all clients and including retries. Replicas that share a store share the budget;
 * otherwise each replica has its own.
 */
export interface SourceBudget {
  /** The maximum number of calls per second, as configured, over all replicas that share a store. */
  perSecond: Int;
  /** The maximum number of calls per hour, as configured, over all replicas that share a store. */
  perHour: Int;
  /** The maximum number of concurrent calls, as configured, over all replicas that share a store. */
  concurrency: Int;
  /** The number of calls in flight of this replica. */
  inFlight: Int;
  /** The number of calls left within a sliding hour, over all replicas that share a store. */
  leftThisHour: Int;
}

/** The state of the gateway's credential for a source. The secret itself is never exposed. */
export interface SourceCredential {
  /** The state of the credential. */
  state: CredentialState;
  /** The date and time of the last change of `state`. Null if unknown. */
  since: DateTime | null;
  /** The date and time when the active credential became active. Null if unknown, or if there is none. */
  activeSince: DateTime | null;
  /** The date and time when the active credential expires. Null if unknown, or if there is no active credential. */
  expiresAt: DateTime | null;
}

/**
 * The sweeps of a source: lists of what changed, in place of polls of single jobs. They are made while they need fewer
 * calls than polls. Replicas that share a store share them.
 */
export interface SourceDiscovery {
  /** Whether jobs that no client requested are discovered. */
  enabled: Boolean;
  /** The date and time when the last sweep was completed. Null if none was completed since sweeps began. */
  lastSweepAt: DateTime | null;
  /** The time of the latest change in a list, by the clock of the source. Null if no list was complete. */
  watermark: DateTime | null;
  /**
   * Whether the lists contained every change that the gateway found otherwise. While they are not trusted, jobs are
   * polled.
   */
  trusted: Boolean;
  /**
   * The number of discovered jobs that are stored, as far as this replica knows: those that it discovered, and those of
   * earlier processes that had not ended.
   */
  jobsDiscovered: Int;
  /**
   * Whether no more jobs are discovered, because there are as many as configured. Jobs are discovered again when earlier
   * ones are not stored any more.
   */
  limitReached: Boolean;
  /**
   * The time in milliseconds between two reads of each followed job by its ID while the source is swept. Null while it
   * is not.
   */
  verifyIntervalMs: Int | null;
}

/** The last failed call to a source. */
export interface SourceError {
  /** The date and time when the call failed, by the gateway's clock. */
  at: DateTime;
  /** The reason for the failure. */
  kind: SourceErrorKind;
  /**
   * A description of the failure, with the error that the source reported. One line; secrets are removed. Can change;
   * do not parse.
   */
  message: String;
}

/** The reasons why a call to a source can fail. */
export type SourceErrorKind =
  /** The connection failed: the host name cannot be resolved, or the address does not accept connections. */
  | 'CONNECT'
  /** The TLS handshake failed, for example because the certificate is not trusted. */
  | 'TLS'
  /** The response was not complete before the timeout. */
  | 'TIMED_OUT'
  /** The connection was closed before the response was complete. */
  | 'BROKEN'
  /** The source responded with a server error. */
  | 'SERVER_ERROR'
  /** The source responded with a redirect. Redirects are not followed. */
  | 'REDIRECT'
  /** The response does not come from the API, for example a proxy's error page. */
  | 'FOREIGN_ANSWER'
  /**
   * The response comes from the API, but the gateway cannot interpret it, for example because of an unexpected status
   * or a missing field.
   */
  | 'BAD_ANSWER'
  /** The response is larger than the configured limit. */
  | 'TOO_LARGE'
  /** The source rejects the gateway's credential. */
  | 'CREDENTIAL_REJECTED'
  /**
   * The source refused the call, but not the gateway's credential, for example because the credential gives no access
   * to the job.
   */
  | 'REFUSED'
  /** The source rate-limited the gateway. */
  | 'THROTTLED'
  /** The request cannot be sent with the present configuration, for example because a certificate file cannot be read. */
  | 'UNSENDABLE';

/** The health of a source, derived from its last calls. */
export type SourceHealth =
  /** The last call succeeded. */
  | 'HEALTHY'
  /** No call has been made yet. */
  | 'UNKNOWN'
  /** The source asked the gateway to wait, or its budget is used up. */
  | 'THROTTLED'
  /** The source responds, but its responses are invalid or do not come from the API. */
  | 'DEGRADED'
  /** The last calls failed, or calls cannot be sent with the present configuration. */
  | 'UNAVAILABLE'
  /** The source rejects the gateway's credential. */
  | 'CREDENTIAL_REJECTED'
  /** The credential is missing or cannot be read, so no calls are made. */
  | 'UNCONFIGURED';

/** The reasons why a result is stale. */
export type StaleReason =
  /** The source is rate-limited or paused. */
  | 'THROTTLED'
  /** The source cannot be reached, or responded with a server error. */
  | 'UNAVAILABLE'
  /** The source did not respond in time. */
  | 'TIMED_OUT'
  /** The source rejects the gateway's credential. */
  | 'CREDENTIAL_REJECTED'
  /** The gateway has no valid credential for the source. */
  | 'UNCONFIGURED'
  /** The response of the source is not valid, or the source does not find a job that it reported before. */
  | 'BAD_ANSWER'
  /**
   * The source reports a lower version of the job than before, for example after a restored backup. The higher version is
   * returned until the source has reported the lower version for the configured time.
   */
  | 'CONFLICTING_VERSION'
  /** An internal error of the gateway. */
  | 'INTERNAL'
  /**
   * The result was read from the store without a request to the source, as in `jobList`, and the gateway
   * does not follow the job.
   */
  | 'NOT_REFRESHED';

/**
 * The root subscription type. An upstream outage is reported in `freshness` and does not end a subscription. A slow
 * client receives fewer updates; the final update of a job is always delivered.
 */
export interface Subscription {
  /** Updates to a list of jobs: a snapshot of each job, then its changes. Completes after the final update of every job. */
  jobUpdates: JobUpdate;
  /**
   * Updates to all jobs that the client is allowed to read, from the time of the subscription, or from a cursor. Includes
   * an update when the state of a polled job becomes stale and when it is fresh again. Completes only if the client falls
   * more than 10,000 jobs behind; then subscribe again and read `jobList`.
   */
  jobFeed: JobUpdate;
}

/** The arguments of `Subscription.jobUpdates`. */
export interface SubscriptionJobUpdatesArgs {
  /** The jobs to subscribe to, 1 to 200. */
  refs: JobRef[];
  /**
   * The maximum age of the state of a job that is not terminal. Applies to the snapshot, and determines
   * the poll interval, within the gateway's configured limits. If null, the gateway's configured default
   * applies to the snapshot, and the gateway chooses the interval.
   */
  maxStaleness?: Duration | null;
}

/** The arguments of `Subscription.jobFeed`. */
export interface SubscriptionJobFeedArgs {
  /** Filters for the jobs. If null, updates to all jobs are delivered. */
  filter?: JobFilter | null;
  /**
   * The `cursor` of the last update that the client received. The first update is then `RESUMED`, and the
   * changes after the cursor follow, of each job the last one; or it is `RESET`, if the gateway no longer
   * has all of them or does not know the cursor. Over SSE, the header `Last-Event-ID` takes precedence.
   */
  after?: String | null;
}

/** A Supermetrics query. */
export interface SupermetricsJob {
  __typename: 'SupermetricsJob';
  /** The global node ID of the job: an opaque, stable string. Knowing an ID does not grant access. */
  id: ID;
  /** The source that the job belongs to. An error if the source is no longer configured. */
  source: Source;
  /**
   * When the job is expected to finish, as of this result. Null if the job is not queued or running, and if fewer
   * than eight completed jobs of its kind took as long as it has taken.
   */
  estimate: JobEstimate | null;
  /**
   * The grant that allows the client to read the job: one of `Viewer.grants`. Depends on the client. Null if the
   * client is no longer allowed to read the job.
   */
  viewerGrant: ViewerGrant | null;
  /** The `schedule_id` of the query. */
  externalId: String;
  /** The state of the job. */
  state: JobState;
  /**
   * Whether the state is terminal: the run is completed. A later report of the upstream can still correct
   * the state: for example, another terminal state replaces `EXPIRED`, and the state of a restored backup
   * replaces any other.
   */
  isTerminal: Boolean;
  /**
   * The state as the upstream reports it, verbatim. Upstreams can add values at any time. Null if the
   * upstream reports none.
   */
  nativeState: String | null;
  /** The date and time when the job was created. Always null: Supermetrics does not report it. */
  createdAt: DateTime | null;
  /** The date and time when the job was last updated. Always null: Supermetrics does not report it. */
  updatedAt: DateTime | null;
  /** The date and time when the job finished. Always null: Supermetrics does not report it. */
  finishedAt: DateTime | null;
  /** The date and time when the gateway first observed this run, by the gateway's clock. Null if unknown. */
  firstSeenAt: DateTime | null;
  /**
   * The date and time when the gateway first observed the current state, by the gateway's clock. Null if
   * unknown.
   */
  stateSince: DateTime | null;
  /**
   * The date and time when the gateway first observed a terminal state of this run, by the gateway's
   * clock. Null if the job is not terminal, or if unknown.
   */
  terminalSeenAt: DateTime | null;
  /**
   * The changes of the state and of the native state that the gateway observed, oldest first, at most the last
   * 50. Includes earlier runs of the same ID. Changes between two observations are not included. Empty if the
   * gateway kept no history when it observed the current state.
   */
  transitions: JobTransition[];
  /** The progress of the job. Null if Supermetrics does not report it. */
  progress: JobProgress | null;
  /**
   * The failure as the upstream reports it. Null if `state` is not `FAILED`. Both fields of the failure can
   * be null.
   */
  failure: JobFailure | null;
  /** The age of this result, and whether it is stale. */
  freshness: Freshness;
  /**
   * The ID of the Supermetrics API request that this result was read with. Different for each request; include it in
   * reports to Supermetrics support. Null if not reported.
   */
  requestId: String | null;
  /** The `schedule_id` of the query, as Supermetrics reports it. Null if not reported. */
  scheduleId: String | null;
  /** The task queue of the whole Supermetrics licence, not of this query. Null if not reported. */
  queue: LicenceQueue | null;
  /** The parameters of the query. Null if not reported; Supermetrics reports them when the query has succeeded. */
  query: QueryMeta | null;
  /**
   * Statistics of the result of the query. Null if not reported; Supermetrics reports them when the query has
   * succeeded.
   */
  result: QueryResult | null;
  /**
   * A page of the rows of the result. Null until the query has succeeded. Supermetrics keeps the rows for about an
   * hour.
   */
  rows: RowConnection | null;
}

/** Input for the `trackJobs` mutation. */
export interface TrackJobsInput {
  /** The jobs to track, 1 to 200. */
  refs: JobRef[];
  /** The labels to set on the jobs, at most 16. They replace all labels that a job has; an empty list removes them. */
  labels?: LabelInput[];
}

/** The result of the `trackJobs` mutation. */
export interface TrackJobsPayload {
  /**
   * The current result for each job, with the same length and order as `refs`. A job that the source does not know yet
   * is tracked as well, unless the client is allowed to read only some jobs of the source. A malformed reference and a
   * reference to a source that the client is not allowed to read are not tracked.
   */
  results: JobResult[];
  /**
   * Whether the tracked jobs were written to the gateway's store. If false, the jobs are tracked until the gateway
   * restarts.
   */
  isStored: Boolean;
}

/** Input for the `untrackJobs` mutation. */
export interface UntrackJobsInput {
  /** The jobs to stop tracking, 1 to 200. */
  refs: JobRef[];
}

/** The result of the `untrackJobs` mutation. */
export interface UntrackJobsPayload {
  /** The number of jobs that were tracked and no longer are. */
  untracked: Int;
}

/** The upstream APIs that the gateway supports. */
export type Upstream =
  /** The MindBridge async results API. */
  | 'MINDBRIDGE'
  /** The Supermetrics query API. */
  | 'SUPERMETRICS';

/** A MindBridge user. */
export interface UserInfo {
  /** The MindBridge ID of the user. Null if not reported. */
  userId: String | null;
  /** The display name of the user. Null if not reported. */
  userName: String | null;
}

/** The client that sends the request. */
export interface Viewer {
  /**
   * The name of the client. With a JWT: the issuer, `#`, and the name in the token. With a watch token: the name of the
   * client that created it. `local` if no credential is required.
   */
  name: String;
  /** What the client is authenticated by. */
  authenticatedBy: AuthenticationMethod;
  /** The date and time when the credential expires. Null if it does not expire. */
  expiresAt: DateTime | null;
  /** The grants of the client, ordered by source: at most one for each source. */
  grants: ViewerGrant[];
}

/** A grant: the client is allowed to read the jobs that meet all of its conditions. */
export interface ViewerGrant {
  /** The name of the source of the jobs. Null for jobs of every source. */
  source: String | null;
  /** The kinds of job that are readable, verbatim. Null for jobs of every kind. */
  kinds: String[] | null;
  /** The labels that a job must have, all of them. Null for jobs with and without labels. */
  labels: Label[] | null;
  /**
   * With a watch token: the global node IDs of its jobs. They are readable as long as the client that created the token
   * is allowed to read them; its own conditions are not listed here. Null with any other credential.
   */
  jobIds: ID[] | null;
}

type Selected<T> = T extends unknown ? Omit<T, 'source' | 'rows' | 'transitions' | 'requestId' | 'queue' | 'query' | 'viewerGrant'> & { source: { name: string } } : never;

/** A job with the fields that the kit selects: all but `rows`, `transitions`, `requestId`, `queue`, `query`, `viewerGrant`; of its source the name. */
export type WatchedJob = Selected<MindBridgeJob> | Selected<SupermetricsJob>;

/** The types of each interface and union, for `new InMemoryCache({ possibleTypes })` of Apollo. */
export const possibleTypes: { [name: string]: string[] };
/** The fields that the kit selects of a job. */
export const jobFields: string;
/** The fields that the kit selects of a problem. */
export const problemFields: string;
