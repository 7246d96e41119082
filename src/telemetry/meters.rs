//! What is counted and measured, in one closed list: `table` names each instrument, `book` holds the values, and the functions here
//! are the only way in. One book a process, as `tracing` has one dispatcher, so that recording needs no handle.
//!
//! A label is a word of this code or the name of a configured source: no other type fits, so nothing that a client or an upstream
//! sends can become one. Each value goes to Prometheus, and to a collector where one is configured ([`attach`]).

mod book;
mod otlp;
mod process;
mod readings;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use crate::domain::error::ProblemCode;
use crate::domain::id::SourceName;

use book::{add, observe};
pub use otlp::{attach, attach_readings};
pub use readings::{Read, Readings};
pub use table::{Instrument, Kind};
pub use text::{Format, write};

/// The value of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Word {
    /// The instrument has fewer labels.
    #[default]
    None,
    /// A word of this code.
    Of(&'static str),
    /// The name of a configured source.
    Source(SourceName),
}

/// The values of an instrument's labels, in the order of its table row.
pub type Words = [Word; 3];

impl From<&'static str> for Word {
    fn from(word: &'static str) -> Self {
        Self::Of(word)
    }
}

impl From<&SourceName> for Word {
    fn from(name: &SourceName) -> Self {
        Self::Source(name.clone())
    }
}

/// Which door a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/graphql`.
    Graphql,
    /// Plain REST below `/v1/`.
    Rest,
    /// The pages and their files.
    Page,
    /// A path at which nothing is served.
    Nothing,
}

/// How one call to an upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The upstream answered, whatever it said of the job.
    Answered,
    /// It asked for a pause.
    Throttled,
    /// It refused our credential.
    Rejected,
    /// It answered with a fault of its own, or refused the call for another reason than the credential.
    Sick,
    /// The credential may not make this one call.
    Forbidden,
    /// The answer cannot be understood.
    BadAnswer,
    /// The answer was larger than is read.
    TooLarge,
    /// No whole answer came in time.
    TimedOut,
    /// No connection, or it broke.
    Broken,
    /// The call could not be made from what is configured.
    Unsendable,
}

impl CallEnd {
    /// The word of metrics and spans.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::Sick => "sick",
            Self::Forbidden => "forbidden",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::Unsendable => "unsendable",
        }
    }
}

/// Why a call to an upstream was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Its budget is used up, it asked for a pause, or no slot came free in time.
    Throttled,
    /// It refused our credential a moment ago.
    Rejected,
    /// The breaker is open.
    Broken,
}

/// How a job asked for was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// From what is held.
    Held,
    /// From what is held, and looked at behind the answer.
    HeldAndChecked,
    /// That there is none was heard a moment ago.
    BelievedMissing,
    /// The upstream was asked, or another replica that asks it.
    Asked,
}

/// Where something held was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheTier {
    /// In the memory of this process.
    Near,
    /// On disk, or on the server that replicas share.
    Store,
    /// Nowhere.
    None,
}

/// What an update was told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A watch of single jobs.
    Watch,
    /// The feed of all changes.
    Feed,
}

impl Told {
    const fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Feed => "feed",
        }
    }
}

/// How far a change is behind an update, and how well that is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct News {
    /// From the change to the telling. Where the upstream does not say when it changed, from the look before: at most this.
    pub lag: Duration,
    /// Whether the upstream said when it changed.
    pub said: bool,
    /// From the look before to the one that found it: the change lies somewhere in between.
    pub between: Duration,
    /// From the look that found it to the telling.
    pub since_found: Duration,
}

/// What came of a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// It is in force.
    Applied,
    /// It has a fault; the one before stays in force.
    Refused,
    /// It says the same as the one in force.
    Unchanged,
}

/// Counts a request whose answer began after `took`.
pub fn request(door: Door, method: &str, status: u16, took: Duration) {
    let door = match door {
        Door::Graphql => "graphql",
        Door::Rest => "rest",
        Door::Page => "page",
        Door::Nothing => "nothing",
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
    add(Instrument::HttpRequests, [door.into(), method.into(), class.into()], 1);
    observe(Instrument::HttpRequestDuration, [door.into(), Word::None, Word::None], took.as_secs_f64());
}

/// Counts an operation: its type and its transport, both in the words of the closed lists.
pub fn operation(kind: &'static str, transport: &'static str) {
    add(Instrument::GraphqlOperations, [kind.into(), transport.into(), Word::None], 1);
}

/// Notes how long a query or mutation took.
pub fn operation_took(kind: &'static str, took: Duration) {
    observe(Instrument::GraphqlOperationDuration, one(kind), took.as_secs_f64());
}

/// Counts an error or a refusal by the code that it was sent with.
pub fn error(code: &'static str) {
    add(Instrument::Errors, one(code), 1);
}

/// Counts a job that was not answered for.
pub fn job_problem(code: ProblemCode) {
    add(Instrument::JobProblems, one(code.name()), 1);
}

/// Counts one call to an upstream.
pub fn upstream_call(source: &SourceName, end: CallEnd, took: Duration) {
    add(Instrument::UpstreamCalls, [source.into(), end.word().into(), Word::None], 1);
    observe(Instrument::UpstreamCallDuration, one(source), took.as_secs_f64());
}

/// Counts a further try of a call.
pub fn upstream_retry(source: &SourceName) {
    add(Instrument::UpstreamRetries, one(source), 1);
}

/// Notes how long a call waited for its turn.
pub fn budget_waited(source: &SourceName, waited: Duration) {
    observe(Instrument::BudgetWait, one(source), waited.as_secs_f64());
}

/// Counts a call that was not made.
pub fn call_held_back(source: &SourceName, why: Held) {
    let why = match why {
        Held::Throttled => "throttled",
        Held::Rejected => "rejected",
        Held::Broken => "broken",
    };
    add(Instrument::BudgetRefusals, [source.into(), why.into(), Word::None], 1);
}

/// Counts that a breaker opened.
pub fn breaker_opened(source: &SourceName) {
    add(Instrument::BreakerOpenings, one(source), 1);
}

/// Counts jobs asked for by how they were answered.
pub fn looked_up(how: Looked) {
    let how = match how {
        Looked::Held => "held",
        Looked::HeldAndChecked => "held_and_checked",
        Looked::BelievedMissing => "believed_missing",
        Looked::Asked => "asked",
    };
    add(Instrument::Lookups, one(how), 1);
}

/// Counts reads of held jobs by where each was found.
pub fn cache_reads(tier: CacheTier, count: usize) {
    if count == 0 {
        return;
    }
    let tier = match tier {
        CacheTier::Near => "near",
        CacheTier::Store => "store",
        CacheTier::None => "none",
    };
    add(Instrument::CacheReads, one(tier), count as u64);
}

/// Counts a seat on a shared fetch.
pub fn flight(led: bool) {
    add(Instrument::Flights, one(if led { "led" } else { "joined" }), 1);
}

/// Notes how late a planned look began.
pub fn poll_lag(source: &SourceName, late: Duration) {
    observe(Instrument::PollLag, one(source), late.as_secs_f64());
}

/// Counts an update that was handed to a stream.
pub fn update_told(by: Told) {
    add(Instrument::UpdatesDelivered, one(by.word()), 1);
}

/// Counts updates that a newer one of the same job overtook before they were taken.
pub fn updates_coalesced(by: Told, count: u64) {
    if count > 0 {
        add(Instrument::UpdatesCoalesced, one(by.word()), count);
    }
}

/// Notes how long after the answer that held it news was handed to a stream.
pub fn found_told(source: &SourceName, since_found: Duration) {
    observe(Instrument::FoundToTold, one(source), since_found.as_secs_f64());
}

/// Notes how old the news of an update was when it was handed to a stream.
pub fn news_told(source: &SourceName, news: News) {
    let basis = if news.said { "upstream" } else { "look" };
    observe(Instrument::NotificationLag, [source.into(), basis.into(), Word::None], news.lag.as_secs_f64());
    observe(Instrument::LookInterval, one(source), news.between.as_secs_f64());
    found_told(source, news.since_found);
}

/// Counts a stream that began.
pub fn stream_opened(transport: &'static str) {
    add(Instrument::StreamsOpened, one(transport), 1);
}

/// Counts a stream that ended, with its reason in the words of the closed list.
pub fn stream_ended(transport: &'static str, reason: &'static str) {
    add(Instrument::StreamsEnded, [transport.into(), reason.into(), Word::None], 1);
}

/// Counts a failure of the store that was taken as a miss.
pub fn store_failed() {
    add(Instrument::StoreFailures, Words::default(), 1);
}

/// Counts a command to Redis with what became of it, in a word of a closed list, and how long it took where it was sent.
pub fn redis_command(outcome: &'static str, took: Option<Duration>) {
    add(Instrument::RedisCommands, one(outcome), 1);
    if let Some(took) = took {
        observe(Instrument::RedisCommandDuration, Words::default(), took.as_secs_f64());
    }
}

/// Counts what came of a new configuration.
pub fn reload(outcome: ReloadOutcome) {
    let word = match outcome {
        ReloadOutcome::Applied => "applied",
        ReloadOutcome::Refused => "refused",
        ReloadOutcome::Unchanged => "unchanged",
    };
    add(Instrument::ConfigReloads, one(word), 1);
    process::reloaded(outcome != ReloadOutcome::Refused);
}

/// Counts lines that the log was spared.
pub fn log_suppressed(lines: u64) {
    add(Instrument::LogLinesSuppressed, Words::default(), lines);
}

fn one(word: impl Into<Word>) -> Words {
    [word.into(), Word::None, Word::None]
}
