//! What the asking came to, for one job and for all of them: the exit code of `jobgate job`.

use super::JobMode;
use crate::cli::Exit;
use crate::outbound::gateway_client::{JobOutcome, WireResult};

/// How it went, the better one first: of several jobs the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExitOutcome {
    /// Succeeded; or answered for, where only that was asked.
    Good,
    /// Ended otherwise.
    Bad,
    /// How it ended, or stands, is not known.
    Unlearned,
}

impl ExitOutcome {
    /// What an answer that is the last one comes to.
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
