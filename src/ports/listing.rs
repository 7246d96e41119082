//! Lists of jobs, where an upstream can list them: what a sweep needs of all jobs of a source, in a few calls for any number
//! of them. What a list does not contain proves nothing.

use jiff::Timestamp;

use super::fetch_error::FetchError;
use crate::domain::id::ExternalId;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;

/// How a source lists jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListSupport {
    /// The jobs that changed since a moment, each completely.
    Changes,
    /// The jobs that are not terminal, each with its state alone.
    Unfinished,
}

/// One list of jobs.
#[derive(Clone, Debug)]
pub struct JobListing {
    /// When the first request was sent.
    pub requested_at: Timestamp,
    /// When the first response was sent, by the upstream's clock.
    pub upstream_time: Option<Timestamp>,
    /// The calls that the list needed.
    pub calls: u32,
    /// The jobs, or why there is no list.
    pub outcome: Result<Listed, ListError>,
}

/// The jobs of a list, in no order.
#[derive(Clone, Debug)]
pub enum Listed {
    /// Of [`ListSupport::Changes`]. A job may be contained more than once.
    Changes(Vec<Observation>),
    /// Of [`ListSupport::Unfinished`], each job once.
    Unfinished(Vec<UnfinishedJob>),
}

/// A job that is not terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedJob {
    /// Its id.
    pub id: ExternalId,
    /// Its state.
    pub state: JobState,
    /// The upstream's own name for its state, verbatim.
    pub native_state: Option<String>,
    /// When its run was scheduled, in the words of the upstream: another time is another run.
    pub begun: Option<String>,
    /// When the request was sent.
    pub requested_at: Timestamp,
    /// When the response was complete.
    pub observed_at: Timestamp,
}

/// Why there is no list.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ListError {
    /// The source refuses to list jobs, with this HTTP status.
    #[error("the source refuses to list jobs, with status {0}")]
    Refused(u16),
    /// The list has more pages than are read.
    #[error("the list has more pages than are read")]
    TooLong,
    /// A call failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}
