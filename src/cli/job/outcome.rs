//! What the asking came to, for one job and for all of them: the exit code of `jobgate job`.

use super::Mode;
use crate::cli::Exit;
use crate::outbound::gateway::{Answer, Told};

/// How it went, the better one first: of several jobs the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Succeeded; or answered for, where only that was asked.
    Good,
    /// Ended otherwise.
    Bad,
    /// How it ended, or stands, is not known.
    Unlearned,
}

impl Outcome {
    /// What an answer that is the last one comes to.
    pub(super) fn of(answer: &Answer, mode: Mode) -> Self {
        match &answer.told {
            Told::Job(job) if !job.is_terminal && mode != Mode::Get => Self::Unlearned,
            Told::Job(job) if !job.is_terminal || job.state == "SUCCEEDED" => Self::Good,
            Told::Job(_) => Self::Bad,
            Told::Problem(_) => Self::Unlearned,
        }
    }
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Good => Self::Done,
            Outcome::Bad => Self::Failed,
            Outcome::Unlearned => Self::Unlearned,
        }
    }
}
