//! The outcome for one job and for all of them, from which the exit code follows.

use super::gateway::{JobOutcome, WireResult};
use super::mode::JobMode;

/// The outcomes, the better one first: of several jobs the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitOutcome {
    /// Succeeded; or answered, if only the current state was requested.
    Success,
    /// Completed without success.
    Failure,
    /// The result, or the current state, is not known.
    Unknown,
    /// The user stopped the command.
    Interrupted,
}

impl ExitOutcome {
    /// The outcome of a final answer.
    pub(super) fn of(answer: &WireResult, mode: JobMode) -> Self {
        match &answer.outcome {
            JobOutcome::Job(job) if !job.is_terminal && mode != JobMode::Get => Self::Unknown,
            JobOutcome::Job(job) if !job.is_terminal || job.state == "SUCCEEDED" => Self::Success,
            JobOutcome::Job(_) => Self::Failure,
            JobOutcome::Problem(_) => Self::Unknown,
        }
    }
}
