//! What we ask an upstream, in our own words. An adapter answers; it never calls back up.

use std::error::Error as StdError;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::BoxFuture;
use super::credentials::Credential;
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::job::Job;
use crate::domain::source::{SourceStatus, Upstream};

/// For whom a question is asked. Someone waiting goes before our own curiosity, and those waiting take turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchTrigger {
    /// Nobody waits: a poll, or a re-check behind an answer already given.
    Background,
    /// The operator waits, who tries a source.
    Operator,
    /// The client of this name waits.
    Client(Arc<str>),
}

/// What the polls of a source need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollDemand {
    /// Calls an hour, when each job is polled as seldom as it may be.
    pub calls_per_hour: u32,
    /// Whether someone watches one of the jobs.
    pub awaited: bool,
}

/// What the polls of a source have to keep to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PollPacing {
    /// How far apart polls have to start, so that the hour's budget lasts; zero while there is plenty.
    pub spacing: Duration,
    /// For how long none may start, because what is left is kept for callers.
    pub closed_for: Duration,
    /// The circuit breaker is open: for how long no call may try whether the source is well again.
    pub broken_for: Option<Duration>,
}

/// What came of looking at one job.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// When the question left us.
    pub requested_at: Timestamp,
    /// When the answer was complete, or given up on.
    pub observed_at: Timestamp,
    /// The job, or why it could not be learned.
    pub outcome: Result<Arc<Job>, FetchError>,
}

/// Why something could not be learned: exactly the cases that a use case treats differently.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The upstream knows no such job now; it cannot tell "expired" from "never was".
    #[error("the upstream does not know the job")]
    NotFound,
    /// The upstream refuses our credential.
    #[error("the upstream rejects the credential")]
    CredentialRejected,
    /// There is no credential to send.
    #[error("no credential is configured")]
    Unconfigured,
    /// The source must not be asked before this much time has passed.
    #[error("the source is rate-limited or paused for another {} s", retry_after.as_secs())]
    Throttled {
        /// How long the pause still lasts.
        retry_after: Duration,
    },
    /// It did not answer, or answered with an error of its own; the breaker may be open.
    #[error("the upstream is unavailable")]
    Unavailable(#[source] Detail),
    /// It did not answer in time.
    #[error("the upstream did not respond in time")]
    TimedOut,
    /// It answered with something that cannot be understood.
    #[error("the upstream's response is not valid")]
    BadAnswer(#[source] Detail),
    /// It answered with a lower version of the job than before. No adapter says so: it takes a memory to notice.
    #[error("the upstream reports a lower version of the job than before")]
    ConflictingVersion,
}

impl FetchError {
    /// One word for it, of a closed list: for spans and labels.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::CredentialRejected => "credential_rejected",
            Self::Unconfigured => "unconfigured",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut => "timed_out",
            Self::BadAnswer(_) => "bad_answer",
            Self::ConflictingVersion => "conflicting_version",
        }
    }
}

/// What the log reads beside an error: made by the adapter, free of secrets and URLs. Not for clients.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Detail {
    /// One line, in our words.
    pub text: String,
    /// The error below, already stripped.
    #[source]
    pub source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Detail {
    /// A detail without a deeper cause.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }
}

/// A stretch of rows: `count` of them from the row number `first`, which starts at 0 behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowRange {
    /// The first row wanted.
    pub first: u32,
    /// How many at most; at least 1.
    pub count: u32,
}

/// Rows as they came. Cells keep the upstream's bytes (`1.10` stays `1.10`). There may be fewer than the upstream
/// reports: see [`RowPage::is_whole`].
#[derive(Clone, Debug)]
pub struct RowPage {
    /// The header row.
    pub header: Vec<Box<RawValue>>,
    /// The rows, without the header.
    pub rows: Vec<Vec<Box<RawValue>>>,
    /// How many rows there are in all, where the upstream says so.
    pub total: Option<u32>,
}

impl RowPage {
    /// Says whether this holds all rows of a range that there are, as far as the upstream says how many there are.
    pub fn is_whole(&self, range: RowRange) -> bool {
        let there = self.total.map_or(0, |total| total.saturating_sub(range.first).min(range.count));
        self.rows.len() >= there as usize
    }
}

/// One source, ready to be asked. Budget, pauses, retries and the credential are its own business.
pub trait JobReader: Debug + Send + Sync {
    /// The source's name.
    fn name(&self) -> &SourceName;

    /// The source's kind.
    fn upstream(&self) -> Upstream;

    /// Looks at many jobs at once, in as few requests as the upstream allows: same order, same length. Never empty.
    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>>;

    /// Reads rows of a finished job. A source without rows answers `NotFound`.
    fn rows<'a>(
        &'a self,
        id: &'a ExternalId,
        range: RowRange,
        trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>>;

    /// Tries the source with one harmless read: does it answer, and does it take our credential? With another one than
    /// that in force, it is asked once, and whatever it says about it changes nothing for the one in force:
    /// `CredentialRejected` then means that the source itself has refused the other.
    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>>;

    /// How the source is doing now.
    fn status(&self) -> SourceStatus;

    /// Takes in what the polls of the source need, and says what they have to keep to.
    fn pace_polls(&self, _demand: PollDemand) -> PollPacing {
        PollPacing::default()
    }

    /// Takes the place of one background call that is no poll, if there may be one now: few while polls are spaced.
    fn take_recheck(&self) -> bool {
        true
    }
}
