//! The normalised job: one type for both upstreams, in which a contradiction cannot be represented.

use jiff::Timestamp;
use serde::Serialize;

use super::details::Details;
use super::id::JobKey;
use super::state::JobState;
use super::upstream::Upstream;

/// A job as reported in one response of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The key of the job.
    pub key: JobKey,
    /// The state, and why the job failed if it did.
    pub life: Life,
    /// The upstream's own name for its state, verbatim.
    pub native_state: Option<String>,
    /// When it was created, by the upstream's clock.
    pub created_at: Option<Timestamp>,
    /// When it was last changed, by the upstream's clock.
    pub updated_at: Option<Timestamp>,
    /// When it was finished, by the upstream's clock.
    pub finished_at: Option<Timestamp>,
    /// The progress; `None` if the upstream does not report it.
    pub progress: Option<Progress>,
    /// The upstream-specific part.
    pub details: Details,
}

/// A state with the data that only it has: only a failed job has a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// See [`JobState::Queued`].
    Queued,
    /// See [`JobState::Running`].
    Running,
    /// See [`JobState::Succeeded`].
    Succeeded,
    /// See [`JobState::Failed`].
    Failed(Failure),
    /// See [`JobState::Canceled`].
    Canceled,
    /// See [`JobState::Expired`].
    Expired,
    /// See [`JobState::Unknown`].
    Unknown,
}

/// Why a job failed. Data, not an error: a failed job is a valid answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The upstream's code, if it reports one.
    pub code: Option<String>,
    /// The upstream's message, if it reports one.
    pub message: Option<String>,
}

/// Completed parts and known parts. The total may grow, so this is never converted to a percentage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Completed parts.
    pub completed: u32,
    /// Parts known so far.
    pub total: u32,
}

impl Progress {
    /// The maximum of the schema's `Int`.
    const MAX: u32 = i32::MAX.cast_unsigned();

    /// Completed parts of known parts; `None` if either is beyond what clients can read.
    pub fn new(completed: u64, total: u64) -> Option<Self> {
        let count = |parts: u64| u32::try_from(parts).ok().filter(|parts| *parts <= Self::MAX);
        Some(Self { completed: count(completed)?, total: count(total)? })
    }
}

impl Job {
    /// A job of which only the state and the upstream-specific part are known.
    pub const fn new(key: JobKey, life: Life, details: Details) -> Self {
        let (created_at, updated_at, finished_at) = (None, None, None);
        Self { key, life, native_state: None, created_at, updated_at, finished_at, progress: None, details }
    }

    /// The state of the job.
    pub const fn state(&self) -> JobState {
        match self.life {
            Life::Queued => JobState::Queued,
            Life::Running => JobState::Running,
            Life::Succeeded => JobState::Succeeded,
            Life::Failed(_) => JobState::Failed,
            Life::Canceled => JobState::Canceled,
            Life::Expired => JobState::Expired,
            Life::Unknown => JobState::Unknown,
        }
    }

    /// Returns whether this run will not change any more.
    pub const fn is_terminal(&self) -> bool {
        self.state().is_terminal()
    }

    /// Why the job failed, if it did.
    pub const fn failure(&self) -> Option<&Failure> {
        match &self.life {
            Life::Failed(failure) => Some(failure),
            Life::Queued
            | Life::Running
            | Life::Succeeded
            | Life::Canceled
            | Life::Expired
            | Life::Unknown => None,
        }
    }

    /// The upstream's own change counter, where it has one (MindBridge `version`).
    pub fn counter(&self) -> Option<i64> {
        self.details.common().counter()
    }

    /// The upstream's own name for the kind of job, where it has kinds (MindBridge `type`).
    pub fn kind(&self) -> Option<&str> {
        self.details.common().kind()
    }

    /// The kind of upstream that reported this job.
    pub const fn upstream(&self) -> Upstream {
        self.details.upstream()
    }

    /// Returns whether two answers are the same for a watcher. The request id of a response and the queue of the whole
    /// licence change all the time and are no change of this job.
    pub fn same_report(&self, other: &Self) -> bool {
        let Self { key, life, native_state, created_at, updated_at, finished_at, progress, details } = self;
        details.same_report(&other.details)
            && (key, life, native_state) == (&other.key, &other.life, &other.native_state)
            && (created_at, updated_at, finished_at)
                == (&other.created_at, &other.updated_at, &other.finished_at)
            && *progress == other.progress
    }

    /// Returns whether both are in one state, and the upstream has the same name for it.
    pub fn is_in_state_of(&self, other: &Self) -> bool {
        (self.state(), &self.native_state) == (other.state(), &other.native_state)
    }

    /// When it was last changed as far as the upstream reports it, by the upstream's clock.
    pub fn changed_at(&self) -> Option<Timestamp> {
        self.finished_at.or(self.updated_at)
    }

    /// The same job, deleted by its upstream before a terminal state was observed. Keeps what was last known of it, its
    /// counter included, so that it still compares with the observation that it replaces.
    #[must_use]
    pub fn expired(&self) -> Self {
        Self { life: Life::Expired, ..self.clone() }
    }
}
