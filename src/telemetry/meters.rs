//! The metrics of the gateway. `table` lists every instrument, `registry` stores the values, and the functions here
//! record them. There is one registry per process, as `tracing` has one dispatcher, so recording needs no handle.
//!
//! A label value is a constant of this code or the name of a configured source: no other type is accepted, so data from
//! a client or an upstream cannot become a label. Values are exposed to Prometheus, and exported by OTLP if a collector
//! is configured ([`attach`]).

mod labels;
mod otlp;
mod process;
mod registry;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use crate::domain::error::ProblemCode;
use crate::domain::id::SourceName;

pub use self::labels::{LabelValue, LabelValues};
pub use self::otlp::{attach, attach_readings};
use self::registry::{add, observe};
pub use self::snapshot::{GaugeSnapshot, ObservableSource};
pub use self::table::{Group, Instrument, InstrumentKind};
pub use self::text::{ExpositionFormat, write};

/// The handler of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// `/graphql`.
    Graphql,
    /// REST, `/v1/`.
    Rest,
    /// The live page and its assets.
    Page,
    /// `GraphiQL` and its files.
    Graphiql,
    /// No handler: the path does not exist.
    Nothing,
}

/// The outcome of one upstream call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// A usable response.
    Answered,
    /// The upstream requested a pause (429, or 503 with `Retry-After`).
    Throttled,
    /// The upstream rejected the credential.
    Rejected,
    /// An error response of the upstream, not about the credential.
    Sick,
    /// The credential lacks permission for this call.
    Forbidden,
    /// A response that cannot be parsed.
    BadAnswer,
    /// A response larger than the limit.
    TooLarge,
    /// No complete response before the timeout.
    TimedOut,
    /// The connection failed or was closed before the response was complete.
    Broken,
    /// The proxy or certificate options of the source cannot be used, so nothing was sent.
    Egress,
    /// The call could not be sent with the configured options.
    Unsendable,
}

impl CallEnd {
    /// The label value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Throttled => "throttled",
            Self::Rejected => "credential_rejected",
            Self::Sick => "upstream_error",
            Self::Forbidden => "forbidden",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Broken => "connection_error",
            Self::Egress => "egress_error",
            Self::Unsendable => "invalid_request",
        }
    }
}

/// Why an upstream call was rejected before it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRejection {
    /// The budget is exhausted, the source is paused, or the wait for the budget timed out.
    Throttled,
    /// The credential was rejected recently.
    Rejected,
    /// The circuit breaker is open.
    Broken,
}

/// The cache outcome of one requested job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupOutcome {
    /// Returned from the cache.
    Held,
    /// Returned from the cache and revalidated in the background.
    HeldAndChecked,
    /// A cached `NOT_FOUND`.
    BelievedMissing,
    /// Fetched from the upstream, by this replica or another one.
    Miss,
}

/// The cache outcomes of the jobs of one lookup, which are recorded together.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookupOutcomes {
    held: u64,
    held_and_checked: u64,
    believed_missing: u64,
    misses: u64,
}

/// The cache tier that had a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheTier {
    /// The memory of this process.
    Memory,
    /// The store on disk, or Redis.
    Store,
    /// No tier: a cache miss.
    None,
}

/// The subscription field that delivered an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionKind {
    /// `jobUpdates`.
    Watch,
    /// `jobFeed`.
    Feed,
}

impl SubscriptionKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Watch => "job_updates",
            Self::Feed => "job_feed",
        }
    }
}

/// The delays of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliveryLag {
    /// From the change to the delivery. Without an upstream timestamp: from the previous poll, an upper bound.
    pub lag: Duration,
    /// Whether the upstream reported the time of the change.
    pub from_upstream: bool,
    /// Time between the two polls that bracket the change.
    pub between: Duration,
    /// From the poll that detected the change to the delivery.
    pub since_found: Duration,
}

/// The outcome of a configuration reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The new configuration is active.
    Applied,
    /// The new configuration is invalid; the previous one stays active.
    Refused,
    /// The new configuration equals the active one.
    Unchanged,
}

/// Counts an HTTP request whose response started after `took`.
pub fn request(handler: Handler, method: &str, status: u16, took: Duration) {
    let handler = match handler {
        Handler::Graphql => "graphql",
        Handler::Rest => "rest",
        Handler::Page => "page",
        Handler::Graphiql => "graphiql",
        Handler::Nothing => "none",
    };
    let method = match method {
        "GET" => "GET",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    };
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    add(Instrument::HttpRequests, &[handler.into(), method.into(), class.into()], 1);
    observe(
        Instrument::HttpRequestDuration,
        &[handler.into(), LabelValue::None, LabelValue::None],
        took.as_secs_f64(),
    );
}

/// Counts a GraphQL operation by type and transport.
pub fn operation(kind: &'static str, transport: &'static str) {
    add(Instrument::GraphqlOperations, &[kind.into(), transport.into(), LabelValue::None], 1);
}

/// Records the execution time of a query or mutation.
pub fn operation_took(kind: &'static str, took: Duration) {
    observe(Instrument::GraphqlOperationDuration, &one(kind), took.as_secs_f64());
}

/// Counts an error response by its code.
pub fn error(code: &'static str) {
    add(Instrument::Errors, &one(code), 1);
}

/// Counts a `JobProblem` by its code.
pub fn job_problem(code: ProblemCode) {
    add(Instrument::JobProblems, &one(code.name()), 1);
}

/// Counts one upstream call.
pub fn upstream_call(source: &SourceName, end: CallEnd, took: Duration) {
    add(Instrument::UpstreamCalls, &[source.into(), end.word().into(), LabelValue::None], 1);
    observe(Instrument::UpstreamCallDuration, &one(source), took.as_secs_f64());
}

/// Counts a retry of an upstream call.
pub fn upstream_retry(source: &SourceName) {
    add(Instrument::UpstreamRetries, &one(source), 1);
}

/// Records how long a call waited for the budget.
pub fn budget_waited(source: &SourceName, waited: Duration) {
    observe(Instrument::BudgetWait, &one(source), waited.as_secs_f64());
}

/// Counts a call rejected before it was sent.
pub fn call_rejected(source: &SourceName, why: CallRejection) {
    let why = match why {
        CallRejection::Throttled => "throttled",
        CallRejection::Rejected => "credential_rejected",
        CallRejection::Broken => "circuit_open",
    };
    add(Instrument::BudgetRefusals, &[source.into(), why.into(), LabelValue::None], 1);
}

/// Counts the opening of a circuit breaker.
pub fn breaker_opened(source: &SourceName) {
    add(Instrument::BreakerOpenings, &one(source), 1);
}

impl LookupOutcomes {
    /// Of this many jobs that were returned from the cache.
    pub const fn held(jobs: usize) -> Self {
        Self { held: jobs as u64, held_and_checked: 0, believed_missing: 0, misses: 0 }
    }

    /// Counts one job.
    pub const fn count(&mut self, how: LookupOutcome) {
        match how {
            LookupOutcome::Held => self.held += 1,
            LookupOutcome::HeldAndChecked => self.held_and_checked += 1,
            LookupOutcome::BelievedMissing => self.believed_missing += 1,
            LookupOutcome::Miss => self.misses += 1,
        }
    }

    /// Records the counts.
    pub fn record(self) {
        let Self { held, held_and_checked, believed_missing, misses } = self;
        for (how, count) in [
            ("hit", held),
            ("hit_revalidated", held_and_checked),
            ("negative_hit", believed_missing),
            ("miss", misses),
        ] {
            if count > 0 {
                add(Instrument::Lookups, &one(how), count);
            }
        }
    }
}

/// Counts reads of cached jobs by tier.
pub fn cache_reads(tier: CacheTier, count: usize) {
    if count == 0 {
        return;
    }
    let tier = match tier {
        CacheTier::Memory => "memory",
        CacheTier::Store => "store",
        CacheTier::None => "none",
    };
    add(Instrument::CacheReads, &one(tier), count as u64);
}

/// Counts a leader or joiner of a fetch.
pub fn singleflight(led: bool) {
    add(Instrument::SingleFlightCalls, &one(if led { "leader" } else { "joiner" }), 1);
}

/// Records how late a scheduled poll started.
pub fn poll_lag(source: &SourceName, late: Duration) {
    observe(Instrument::PollLag, &one(source), late.as_secs_f64());
}

/// The outcome of a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepOutcome {
    /// The list was complete.
    Completed,
    /// The list was complete, and did not contain a change that a poll found.
    Missed,
    /// A call failed.
    Failed,
    /// The source refuses to list jobs.
    Refused,
    /// The list has more pages than are read.
    TooLong,
}

/// Counts a sweep by its outcome.
pub fn sweep(source: &SourceName, outcome: SweepOutcome) {
    let word = match outcome {
        SweepOutcome::Completed => "completed",
        SweepOutcome::Missed => "missed",
        SweepOutcome::Failed => "failed",
        SweepOutcome::Refused => "refused",
        SweepOutcome::TooLong => "oversized",
    };
    add(Instrument::Sweeps, &[source.into(), word.into(), LabelValue::None], 1);
}

/// Counts a delivered update.
pub fn update_delivered(by: SubscriptionKind) {
    add(Instrument::UpdatesDelivered, &one(by.word()), 1);
}

/// Counts updates replaced by a newer one before they were read.
pub fn updates_coalesced(by: SubscriptionKind, count: u64) {
    if count > 0 {
        add(Instrument::UpdatesCoalesced, &one(by.word()), count);
    }
}

/// Records the time from the detection of a change to its delivery.
pub fn detection_to_delivery(source: &SourceName, since_found: Duration) {
    observe(Instrument::DetectionToDelivery, &one(source), since_found.as_secs_f64());
}

/// Records the delays of an update at its delivery.
pub fn change_to_delivery(source: &SourceName, lag: DeliveryLag) {
    let basis = if lag.from_upstream { "upstream" } else { "previous_poll" };
    observe(
        Instrument::NotificationLag,
        &[source.into(), basis.into(), LabelValue::None],
        lag.lag.as_secs_f64(),
    );
    observe(Instrument::ChangeDetectionWindow, &one(source), lag.between.as_secs_f64());
    detection_to_delivery(source, lag.since_found);
}

/// Counts an opened stream.
pub fn stream_opened(transport: &'static str) {
    add(Instrument::StreamsOpened, &one(transport), 1);
}

/// Counts an ended stream by reason.
pub fn stream_ended(transport: &'static str, reason: &'static str) {
    add(Instrument::StreamsEnded, &[transport.into(), reason.into(), LabelValue::None], 1);
}

/// Counts a failed store operation.
pub fn store_failed() {
    add(Instrument::StoreFailures, &LabelValues::default(), 1);
}

/// Counts a Redis command by outcome, and records its duration if it was sent.
pub fn redis_command(outcome: &'static str, took: Option<Duration>) {
    add(Instrument::RedisCommands, &one(outcome), 1);
    if let Some(took) = took {
        observe(Instrument::RedisCommandDuration, &LabelValues::default(), took.as_secs_f64());
    }
}

/// Counts a configuration reload by outcome.
pub fn reload(outcome: ReloadOutcome) {
    let word = match outcome {
        ReloadOutcome::Applied => "applied",
        ReloadOutcome::Refused => "rejected",
        ReloadOutcome::Unchanged => "unchanged",
    };
    add(Instrument::ConfigReloads, &one(word), 1);
    process::reloaded(outcome != ReloadOutcome::Refused);
}

fn one(word: impl Into<LabelValue>) -> LabelValues {
    [word.into(), LabelValue::None, LabelValue::None]
}
