//! The result of a command, and its exit code.

use jobgate_client::ExitOutcome;

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Success.
    Done,
    /// Failure; the reason was printed.
    Failed,
    /// The requested state could not be determined; the reason was printed.
    Unknown,
    /// The user stopped the command with Ctrl-C. 128 and the number of SIGINT, as shells report it.
    Interrupted,
    /// The gateway lost a part that it cannot run without. `EX_SOFTWARE` of sysexits.h.
    Broken,
    /// The configuration is invalid; each error was printed. `EX_CONFIG` of sysexits.h.
    BadConfiguration,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Unknown => 2,
            Exit::Broken => 70,
            Exit::BadConfiguration => 78,
            Exit::Interrupted => 130,
        }
    }
}

impl From<ExitOutcome> for Exit {
    fn from(outcome: ExitOutcome) -> Self {
        match outcome {
            ExitOutcome::Success => Self::Done,
            ExitOutcome::Failure => Self::Failed,
            ExitOutcome::Unknown => Self::Unknown,
            ExitOutcome::Interrupted => Self::Interrupted,
        }
    }
}
