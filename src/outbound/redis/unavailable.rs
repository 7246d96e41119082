//! Why a command was not done.

/// Redis did not report the command as done. It may have been done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    /// The breaker is open after recent failures.
    #[error("redis failed a moment ago and is left alone")]
    Left,
    /// It did not reply in time.
    #[error("redis did not answer in time")]
    Slow,
    /// It is unreachable, is not the server that accepts writes, or rejects the command.
    #[error("redis: {0}")]
    Failed(String),
}
