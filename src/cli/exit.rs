//! The result of a command, and its exit code.

/// The result of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Success.
    Done,
    /// Failure; the reason was printed.
    Failed,
    /// The requested state could not be determined; the reason was printed.
    Unlearned,
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
            Exit::Unlearned => 2,
            Exit::Broken => 70,
            Exit::BadConfiguration => 78,
        }
    }
}
