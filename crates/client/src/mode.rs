//! Which of the three subcommands runs.

/// The subcommand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobMode {
    /// Prints the current states.
    Get,
    /// Prints every change.
    Watch,
    /// Prints the terminal states.
    Await,
}
