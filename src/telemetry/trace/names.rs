//! The closed list of spans and their attributes. The tables of `docs/tracing.md` are generated from it.

/// The attributes. A new member needs its row in [`SpanAttribute::row`], and an entry in the list of its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanAttribute {
    /// The HTTP method.
    Method,
    /// The matched route.
    Route,
    /// The scheme of a request.
    Scheme,
    /// The path of a request, without what the client wrote.
    Path,
    /// The HTTP status of the response.
    Status,
    /// The error class.
    Error,
    /// The type of a GraphQL operation.
    OperationType,
    /// The operation name.
    OperationName,
    /// The hash of the document.
    DocumentHash,
    /// The number of jobs.
    Jobs,
    /// The cache outcome of a lookup.
    CacheOutcome,
    /// The role of a lookup in single flight.
    SingleFlightRole,
    /// The number of jobs that were not fresh enough in the cache.
    Misses,
    /// The store operation.
    StoreOperation,
    /// The name of the source.
    Source,
    /// The kind of its upstream.
    Upstream,
    /// The path of an upstream call, without ids.
    Template,
    /// The host of an upstream.
    Address,
    /// The port of an upstream.
    Port,
    /// The ordinal number of a retry.
    Resends,
    /// The request id reported by the upstream.
    UpstreamRequest,
    /// The state of a job.
    State,
    /// The trigger of an observation.
    Trigger,
    /// The outcome of an ingestion.
    Kept,
    /// The kind of an update.
    UpdateKind,
    /// The sequence number of an update.
    Sequence,
    /// The age of an update at its delivery.
    Age,
}

impl SpanAttribute {
    /// The attribute name and its description.
    pub const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Method => ("http.request.method", "HTTP method; `_OTHER` for an unknown method"),
            Self::Route => ("http.route", "matched route, as in the access log; absent if no route matches"),
            Self::Scheme => {
                ("url.scheme", "`http` or `https`, as the client sent it to the outermost trusted proxy")
            }
            Self::Path => (
                "url.path",
                "path of the matched route, with `REDACTED` in place of source and job id; `/REDACTED` if no route matches",
            ),
            Self::Status => ("http.response.status_code", "HTTP status of the response"),
            Self::Error => (
                "error.type",
                "error class from a closed list, or the HTTP status; for an operation, the `code` of its first error",
            ),
            Self::OperationType => ("graphql.operation.type", "`query`, `mutation` or `subscription`"),
            Self::OperationName => {
                ("graphql.operation.name", "operation name from the document, truncated to 64 characters")
            }
            Self::DocumentHash => ("graphql.document.hash", "SHA-256 of the document, hexadecimal"),
            Self::Jobs => ("job.count", "number of jobs"),
            Self::CacheOutcome => (
                "cache.outcome",
                "`hit`: all jobs were fresh enough in the cache; `miss`: some were fetched; `stale`: some are older than requested",
            ),
            Self::SingleFlightRole => (
                "singleflight.role",
                "`leader`: started at least one fetch; `joiner`: only waited for fetches in flight; absent on a hit",
            ),
            Self::Misses => ("cache.misses", "number of jobs that were not fresh enough in the cache"),
            Self::StoreOperation => ("store.operation", "`get`, `put` or `put_missing`"),
            Self::Source => ("jobgate.source", "name of the source"),
            Self::Upstream => ("jobgate.upstream", "kind of API, as in the option `upstream` of the source"),
            Self::Template => {
                ("url.template", "path after the `base_url` of the source, with `{id}` in place of an id")
            }
            Self::Address => ("server.address", "host of the upstream"),
            Self::Port => ("server.port", "port of the upstream"),
            Self::Resends => {
                ("http.request.resend_count", "ordinal number of the retry; absent on the first attempt")
            }
            Self::UpstreamRequest => {
                ("upstream.request.id", "request id reported by the upstream; absent if it reports none")
            }
            Self::State => ("job.state", "`JobState` of the schema"),
            Self::Trigger => (
                "job.observe.trigger",
                "`poll` for a scheduled poll, `sweep` for a list of what changed, `client` for a client request",
            ),
            Self::Kept => (
                "ingest.outcome",
                "`new`, `older`, `missing`, `not_found`, `conflicting_version`, `failed` or `lease_lost`",
            ),
            Self::UpdateKind => ("job.update.kind", "`snapshot`, `changed` or `ended`"),
            Self::Sequence => ("job.update.sequence", "sequence number of the update"),
            Self::Age => (
                "job.update.age_ms",
                "milliseconds from the response that contained the change to the delivery",
            ),
        }
    }

    /// The attribute name.
    pub const fn name(self) -> &'static str {
        self.row().0
    }
}

/// One span of the list.
#[derive(Clone, Copy, Debug)]
pub struct SpanDescriptor {
    /// The span name, or its pattern.
    pub name: &'static str,
    /// The span kind.
    pub kind: &'static str,
    /// The parent span.
    pub below: &'static str,
    /// The linked spans; empty for none.
    pub links: &'static str,
    /// The description.
    pub about: &'static str,
    /// The attributes it may have.
    pub keys: &'static [SpanAttribute],
}

/// A request of the public listener.
const REQUEST: SpanDescriptor = SpanDescriptor {
    name: "{method} {route}",
    kind: "server",
    below: "`traceparent` of the client",
    links: "",
    about: "one request on the public listener, until the response starts",
    keys: &[
        SpanAttribute::Method,
        SpanAttribute::Scheme,
        SpanAttribute::Path,
        SpanAttribute::Route,
        SpanAttribute::Status,
        SpanAttribute::Error,
    ],
};

/// A GraphQL operation.
const OPERATION: SpanDescriptor = SpanDescriptor {
    name: "query, mutation, subscription",
    kind: "internal",
    below: "the request; on a WebSocket, `traceparent` of `connection_init` or of the upgrade request",
    links: "",
    about: "one GraphQL operation; for a subscription, until its stream starts",
    keys: &[
        SpanAttribute::OperationType,
        SpanAttribute::OperationName,
        SpanAttribute::DocumentHash,
        SpanAttribute::Error,
    ],
};

/// A lookup of jobs.
const LOOKUP: SpanDescriptor = SpanDescriptor {
    name: "job.lookup",
    kind: "internal",
    below: "the operation, or the REST request",
    links: "",
    about: "resolves the jobs of one field or one subscription",
    keys: &[
        SpanAttribute::Jobs,
        SpanAttribute::CacheOutcome,
        SpanAttribute::Misses,
        SpanAttribute::SingleFlightRole,
    ],
};

/// A store operation.
const STORE: SpanDescriptor = SpanDescriptor {
    name: "store",
    kind: "internal",
    below: "`job.lookup` or `job.ingest`",
    links: "",
    about: "one operation on the job store",
    keys: &[SpanAttribute::StoreOperation, SpanAttribute::Jobs, SpanAttribute::Error],
};

/// A batch of polls.
const POLL: SpanDescriptor = SpanDescriptor {
    name: "job.poll",
    kind: "internal",
    below: "none: root of its own trace",
    links: "",
    about: "one scheduled poll of jobs of one source, including the wait for the budget",
    keys: &[SpanAttribute::Source, SpanAttribute::Jobs],
};

/// A sweep.
const SWEEP: SpanDescriptor = SpanDescriptor {
    name: "job.sweep",
    kind: "internal",
    below: "none: root of its own trace",
    links: "",
    about: "one list of what changed at a source, including the wait for the budget",
    keys: &[SpanAttribute::Source],
};

/// An upstream call.
const UPSTREAM: SpanDescriptor = SpanDescriptor {
    name: "{method} {url.template}",
    kind: "client",
    below: "`job.lookup` of the leader, `job.poll` or `job.sweep`",
    links: "",
    about: "one HTTP call to an upstream; each retry has its own span",
    keys: &[
        SpanAttribute::Method,
        SpanAttribute::Template,
        SpanAttribute::Address,
        SpanAttribute::Port,
        SpanAttribute::Source,
        SpanAttribute::Upstream,
        SpanAttribute::Status,
        SpanAttribute::Resends,
        SpanAttribute::UpstreamRequest,
        SpanAttribute::Error,
    ],
};

/// The result of a fetch for one job.
const OBSERVE: SpanDescriptor = SpanDescriptor {
    name: "job.observe",
    kind: "internal",
    below: "none: root, in the trace of the job",
    links: "the upstream call",
    about: "the result of one fetch for one job, from request to response",
    keys: &[SpanAttribute::Source, SpanAttribute::Trigger, SpanAttribute::State, SpanAttribute::Error],
};

/// The ingestion of a fetch result.
const INGEST: SpanDescriptor = SpanDescriptor {
    name: "job.ingest",
    kind: "internal",
    below: "`job.observe`",
    links: "",
    about: "compares the result with the cached state, stores it and publishes it",
    keys: &[SpanAttribute::Kept],
};

/// The delivery of an update.
const DELIVER: SpanDescriptor = SpanDescriptor {
    name: "job.deliver",
    kind: "producer",
    below: "none: root, in the trace of the job",
    links: "`job.observe` of the change, and the subscription",
    about: "one update, from the stream reading it to its response",
    keys: &[
        SpanAttribute::Source,
        SpanAttribute::State,
        SpanAttribute::UpdateKind,
        SpanAttribute::Sequence,
        SpanAttribute::Age,
    ],
};

/// All spans, in the order of `docs/tracing.md`.
pub const SPANS: [SpanDescriptor; 10] =
    [REQUEST, OPERATION, LOOKUP, STORE, POLL, SWEEP, UPSTREAM, OBSERVE, INGEST, DELIVER];
