"""Generated from schema/schema.graphql by clients/generate.mjs. Do not edit."""

from typing import Literal

AuthenticationMethod = Literal[
    "NONE",
    "CLIENT_KEY",
    "JWT",
    "WATCH_TOKEN",
]
CredentialState = Literal[
    "ACTIVE",
    "REJECTED",
    "MISSING",
    "PENDING_VERIFICATION",
    "PENDING_REJECTED",
    "PENDING_INVALID",
]
JobOrderField = Literal[
    "UPDATED_AT",
    "CREATED_AT",
    "STATE",
]
JobOrigin = Literal[
    "TRACKED",
    "DISCOVERED",
    "REQUESTED",
]
JobProblemCode = Literal[
    "NOT_FOUND",
    "EXPIRED",
    "INVALID_REF",
    "THROTTLED",
    "UNAVAILABLE",
    "TIMED_OUT",
    "CREDENTIAL_REJECTED",
    "UNCONFIGURED",
    "BAD_ANSWER",
    "FOLLOW_LIMIT",
    "INTERNAL",
]
JobState = Literal[
    "QUEUED",
    "RUNNING",
    "SUCCEEDED",
    "FAILED",
    "CANCELED",
    "EXPIRED",
    "UNKNOWN",
]
JobUpdateKind = Literal[
    "SNAPSHOT",
    "CHANGED",
    "ENDED",
    "RESUMED",
    "RESET",
]
OrderDirection = Literal[
    "ASC",
    "DESC",
]
SourceErrorKind = Literal[
    "CONNECT",
    "TLS",
    "TIMED_OUT",
    "BROKEN",
    "SERVER_ERROR",
    "REDIRECT",
    "FOREIGN_ANSWER",
    "BAD_ANSWER",
    "TOO_LARGE",
    "CREDENTIAL_REJECTED",
    "REFUSED",
    "THROTTLED",
    "UNSENDABLE",
]
SourceHealth = Literal[
    "HEALTHY",
    "UNKNOWN",
    "THROTTLED",
    "DEGRADED",
    "UNAVAILABLE",
    "CREDENTIAL_REJECTED",
    "UNCONFIGURED",
]
StaleReason = Literal[
    "THROTTLED",
    "UNAVAILABLE",
    "TIMED_OUT",
    "CREDENTIAL_REJECTED",
    "UNCONFIGURED",
    "BAD_ANSWER",
    "CONFLICTING_VERSION",
    "INTERNAL",
    "NOT_REFRESHED",
]
Upstream = Literal[
    "MINDBRIDGE",
    "SUPERMETRICS",
]

#: The types of each interface and union.
POSSIBLE_TYPES: dict[str, list[str]] = {
    "Job": ["MindBridgeJob", "SupermetricsJob"],
    "JobResult": ["MindBridgeJob", "SupermetricsJob", "JobProblem"],
    "Node": ["MindBridgeJob", "SupermetricsJob"],
}

#: The fields that the kit selects of a job.
JOB_FIELDS = """
  __typename ... on Job { id source { name } externalId state isTerminal nativeState createdAt
  updatedAt finishedAt firstSeenAt stateSince terminalSeenAt estimate { expectedFinishAt earliest
  latest sampleSize } progress { completed total } failure { code message } freshness { observedAt
  ageMs isStale staleReason nextPollAt } } ... on MindBridgeJob { kind entity { id type } version
  createdBy { userId userName } lastModifiedBy { userId userName } error errorMessage } ... on
  SupermetricsJob { scheduleId result { totalRows totalColumns runSeconds dataSampled cacheUsed
  cacheTime } }"""

#: The fields that the kit selects of a problem.
PROBLEM_FIELDS = "ref { id source externalId } code message retryable retryAfterMs"
