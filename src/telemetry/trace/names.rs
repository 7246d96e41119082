//! The closed list of spans and of what they say. `docs/telemetry.md` is compared with it by a test.

/// What a span may say. A new member needs its row in [`Key::row`], and in the list of its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The method of a request.
    Method,
    /// The route it matched.
    Route,
    /// The status of its answer.
    Status,
    /// What went wrong.
    Error,
    /// The type of a GraphQL operation.
    OperationType,
    /// Its name.
    OperationName,
    /// The hash of its document.
    DocumentHash,
    /// How many jobs it is about.
    Jobs,
    /// What the cache made of a lookup.
    CacheOutcome,
    /// The part of a lookup in its flights.
    FlightRole,
    /// How many of a lookup's jobs were not held fresh enough.
    Misses,
    /// What is asked of the store.
    StoreOperation,
    /// The source.
    Source,
    /// The kind of its upstream.
    Upstream,
    /// The path of an upstream call, without ids.
    Template,
    /// The host of an upstream.
    Address,
    /// Its port.
    Port,
    /// The further tries of a question.
    Resends,
    /// What the upstream calls the request.
    UpstreamRequest,
    /// The state of a job.
    State,
    /// Who had a job looked at.
    Asker,
    /// What became of an observation.
    Kept,
    /// Where an update stands among those of its job.
    UpdateKind,
    /// The number of an update.
    Sequence,
    /// How old the news is.
    Age,
}

impl Key {
    /// The name on the wire, and what it says.
    pub const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::Method => ("http.request.method", "the method, `_OTHER` for one that is not of HTTP"),
            Self::Route => ("http.route", "the route, never the path; missing where none fits"),
            Self::Status => ("http.response.status_code", "the status of the answer"),
            Self::Error => ("error.type", "what went wrong, a word of a closed list or an HTTP status"),
            Self::OperationType => ("graphql.operation.type", "`query`, `mutation` or `subscription`"),
            Self::OperationName => {
                ("graphql.operation.name", "the operation's name in the document, at most 64 characters")
            }
            Self::DocumentHash => ("graphql.document.hash", "the SHA-256 of the document, in hexadecimal"),
            Self::Jobs => ("job.count", "how many jobs it is about"),
            Self::CacheOutcome => (
                "cache.outcome",
                "`hit`: all were held fresh enough; `miss`: some were asked for; `stale`: some are older than was asked for",
            ),
            Self::FlightRole => (
                "flight.role",
                "`leader`: some question is its own; `joiner`: it waited for those of others; missing on a hit",
            ),
            Self::Misses => ("cache.misses", "how many of the jobs were not held fresh enough"),
            Self::StoreOperation => ("store.operation", "`get`, `keep` or `missing`"),
            Self::Source => ("jobgate.source", "the name of the source"),
            Self::Upstream => ("jobgate.upstream", "`mindbridge` or `supermetrics`"),
            Self::Template => {
                ("url.template", "the path behind the source's `base_url`, with `{id}` in the place of an id")
            }
            Self::Address => ("server.address", "the host of the upstream"),
            Self::Port => ("server.port", "its port"),
            Self::Resends => (
                "http.request.resend_count",
                "which further try of the same question this is; missing on the first",
            ),
            Self::UpstreamRequest => {
                ("upstream.request.id", "what the upstream calls the request, if it says so")
            }
            Self::State => ("job.state", "the state of the job, a word of the schema"),
            Self::Asker => ("look.asker", "`poll` where the loop looked by itself, else `client`"),
            Self::Kept => (
                "ingest.outcome",
                "`new`, `older`, `missing`, `not_found`, `conflicting_version`, `failed` or `lost_turn`",
            ),
            Self::UpdateKind => ("update.kind", "`snapshot`, `changed` or `ended`"),
            Self::Sequence => ("update.sequence", "the number of the update"),
            Self::Age => (
                "update.age_ms",
                "milliseconds from the end of the look that brought the news to the delivery",
            ),
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        self.row().0
    }
}

/// One sort of span.
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    /// Its name on the wire; where that differs, its form.
    pub name: &'static str,
    /// Its kind on the wire.
    pub kind: &'static str,
    /// What it stands below.
    pub below: &'static str,
    /// What it is linked to; nothing for most.
    pub links: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What it may say.
    pub keys: &'static [Key],
}

/// A request of the public door.
const REQUEST: Sort = Sort {
    name: "{method} {route}",
    kind: "server",
    below: "the client's `traceparent`",
    links: "",
    about: "one request of the public door, until its answer starts",
    keys: &[Key::Method, Key::Route, Key::Status, Key::Error],
};

/// A GraphQL operation.
const OPERATION: Sort = Sort {
    name: "query, mutation, subscription",
    kind: "internal",
    below: "the request; on a WebSocket the `traceparent` of `connection_init`, else that of the upgrade",
    links: "",
    about: "one GraphQL operation; a subscription's ends when it has begun",
    keys: &[Key::OperationType, Key::OperationName, Key::DocumentHash],
};

/// A lookup of jobs.
const LOOKUP: Sort = Sort {
    name: "lookup",
    kind: "internal",
    below: "the operation, or the request of plain REST",
    links: "",
    about: "finding the answers for the jobs of one field or one subscription",
    keys: &[Key::Jobs, Key::CacheOutcome, Key::Misses, Key::FlightRole],
};

/// A question to the store.
const STORE: Sort = Sort {
    name: "store",
    kind: "internal",
    below: "the lookup, or the ingest",
    links: "",
    about: "one question to the job store",
    keys: &[Key::StoreOperation, Key::Jobs, Key::Error],
};

/// A batch of polls.
const POLL: Sort = Sort {
    name: "poll",
    kind: "internal",
    below: "nothing: it begins a trace of its own",
    links: "",
    about: "the loop's look at some jobs of one source together, waiting for its turn included",
    keys: &[Key::Source, Key::Jobs],
};

/// A call of an upstream.
const UPSTREAM: Sort = Sort {
    name: "{method} {url.template}",
    kind: "client",
    below: "the lookup whose flight it is, or the poll",
    links: "",
    about: "one HTTP call of an upstream; a further try is a further span",
    keys: &[
        Key::Method,
        Key::Template,
        Key::Address,
        Key::Port,
        Key::Source,
        Key::Upstream,
        Key::Status,
        Key::Resends,
        Key::UpstreamRequest,
        Key::Error,
    ],
};

/// A look at one job.
const LOOK: Sort = Sort {
    name: "look",
    kind: "internal",
    below: "nothing: it stands in the trace of its job",
    links: "the upstream call that asked",
    about: "what one look learned of one job, from question to answer",
    keys: &[Key::Source, Key::Asker, Key::State, Key::Error],
};

/// What became of a look.
const INGEST: Sort = Sort {
    name: "ingest",
    kind: "internal",
    below: "the look",
    links: "",
    about: "comparing with what is held, keeping, and telling those who watch",
    keys: &[Key::Kept],
};

/// The delivery of an update.
const DELIVER: Sort = Sort {
    name: "deliver",
    kind: "producer",
    below: "nothing: it stands in the trace of its job",
    links: "the look that brought the news, and the subscription",
    about: "one update, from when the transport takes it to its answer",
    keys: &[Key::Source, Key::State, Key::UpdateKind, Key::Sequence, Key::Age],
};

/// All sorts of span, in the order of the page.
pub const SPANS: [Sort; 9] = [REQUEST, OPERATION, LOOKUP, STORE, POLL, UPSTREAM, LOOK, INGEST, DELIVER];
