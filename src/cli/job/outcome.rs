//! The outcome for one job and for all of them: the exit code of `jobgate job`.

use super::mode::JobMode;
use crate::cli::exit::Exit;
use crate::outbound::gateway_client::{JobOutcome, WireResult};

/// The outcomes, the better one first: of several jobs the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExitOutcome {
    /// Succeeded; or answered, if only the current state was requested.
    Good,
    /// Completed without success.
    Bad,
    /// The result, or the current state, is not known.
    Unlearned,
}

impl ExitOutcome {
    /// The outcome of a final answer.
    pub(super) fn of(answer: &WireResult, mode: JobMode) -> Self {
        match &answer.outcome {
            JobOutcome::Job(job) if !job.is_terminal && mode != JobMode::Get => Self::Unlearned,
            JobOutcome::Job(job) if !job.is_terminal || job.state == "SUCCEEDED" => Self::Good,
            JobOutcome::Job(_) => Self::Bad,
            JobOutcome::Problem(_) => Self::Unlearned,
        }
    }
}

impl From<ExitOutcome> for Exit {
    fn from(outcome: ExitOutcome) -> Self {
        match outcome {
            ExitOutcome::Good => Self::Done,
            ExitOutcome::Bad => Self::Failed,
            ExitOutcome::Unlearned => Self::Unlearned,
        }
    }
}
