// Generated from schema/schema.graphql by clients/generate.mjs. Do not edit.

export const possibleTypes = {
  "Job": [
    "MindBridgeJob",
    "SupermetricsJob"
  ],
  "JobResult": [
    "MindBridgeJob",
    "SupermetricsJob",
    "JobProblem"
  ],
  "Node": [
    "MindBridgeJob",
    "SupermetricsJob"
  ]
};

export const jobFields = `
  __typename ... on Job { id source { name } externalId state isTerminal nativeState createdAt
  updatedAt finishedAt firstSeenAt stateSince terminalSeenAt estimate { expectedFinishAt earliest
  latest sampleSize } progress { completed total } failure { code message } freshness { observedAt
  ageMs isStale staleReason nextPollAt } } ... on MindBridgeJob { kind entity { id type } version
  createdBy { userId userName } lastModifiedBy { userId userName } error errorMessage } ... on
  SupermetricsJob { scheduleId result { totalRows totalColumns runSeconds dataSampled cacheUsed
  cacheTime } }`;

export const problemFields = 'ref { id source externalId } code message retryable retryAfterMs';
