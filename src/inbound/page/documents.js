// The GraphQL documents of the page.

/** What a row of the table shows. */
export const JOB = `
  __typename
  ... on Job {
    id externalId source { name upstream } state isTerminal nativeState
    createdAt updatedAt finishedAt firstSeenAt stateSince terminalSeenAt
    progress { completed total } failure { code message }
    estimate { expectedFinishAt earliest latest sampleSize }
    freshness { observedAt isStale staleReason nextPollAt }
  }
  ... on MindBridgeJob { kind entity { id type } }
  ... on SupermetricsJob { queue { tasksScheduled tasksRunning } result { totalRows runSeconds } }`;

/** What the details show beyond a row. */
const NATIVE = `
  ... on Job {
    transitions { state nativeState observedAt upstreamAt }
    viewerGrant { source kinds labels { name value } jobIds }
  }
  ... on MindBridgeJob {
    version createdBy { userId userName } lastModifiedBy { userId userName } error errorMessage
  }
  ... on SupermetricsJob {
    requestId scheduleId
    query { startDate endDate accounts fields { id name dataType dataColumn } }
    result { totalColumns dataSampled cacheUsed cacheTime }
  }`;

const PROBLEM = '... on JobProblem { code message retryable }';

/** A page of the list, and how many jobs match. */
export const LIST = `query List($filter: JobFilter, $order: JobOrder, $first: Int!, $after: String, $isFirst: Boolean!) {
  jobList(filter: $filter, orderBy: $order, first: $first, after: $after) {
    totalCount @include(if: $isFirst)
    edges { origin labels { name value } node { ${JOB} ... on Job { freshness { ageMs } } } }
    pageInfo { hasNextPage endCursor }
  }
}`;

/** The jobs of the rows in view, as the gateway holds them: the age is so long that none is fetched. */
export const REFRESH = `query Refresh($refs: [JobRef!]!) {
  jobs(refs: $refs, maxStaleness: "3650d") { ${JOB} ... on Job { freshness { ageMs } } ... on JobProblem { code } }
}`;

/** The changes of all jobs. */
export const FEED = `subscription Feed($after: String!) {
  jobFeed(after: $after) { kind cursor result { ${JOB} } }
}`;

/** One job, from now on. */
export const WATCH = `subscription Watch($ref: JobRef!) {
  jobUpdates(refs: [$ref]) { kind result { ${JOB} ${NATIVE} ${PROBLEM} } }
}`;

/** The labels of one job, which only the list has. */
export const LABELS = `query Labels($filter: JobFilter) {
  jobList(filter: $filter, first: 100) { edges { origin labels { name value } node { id } } }
}`;

/** The first rows of the result of a query. */
export const ROWS = `query Rows($ref: JobRef!) {
  job(ref: $ref) {
    ... on SupermetricsJob { rows(first: 10) { header nodes { cells } pageInfo { hasNextPage } problem { message } } }
    ${PROBLEM}
  }
}`;

/** The sources, with everything that an operator asks about them. */
export const SOURCES = `query Sources {
  sources {
    name upstream health throttledUntil
    credential { state since activeSince expiresAt }
    budget { perSecond perHour concurrency inFlight leftThisHour }
    lastError { at kind message }
    discovery { enabled lastSweepAt watermark trusted jobsDiscovered verifyIntervalMs }
  }
}`;

/** Who the page is for. */
export const VIEWER = `query Viewer {
  viewer { name authenticatedBy expiresAt grants { source jobIds } }
}`;

/** How many jobs match a filter, by group of states. */
export function counts(groups) {
  const variables = groups.map((_, at) => `$f${at}: JobFilter`).join(', ');
  const fields = groups.map((_, at) => `c${at}: jobList(filter: $f${at}, first: 1) { totalCount }`).join(' ');
  return `query Counts(${variables}) { ${fields} }`;
}
