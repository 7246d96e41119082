//! How the server that replicas share is doing, by what one process has met. Numbers only: what they mean for answers is
//! the store's business.

use std::time::Duration;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// The server did it.
    Done,
    /// The server answered, and would not do it.
    Refused,
    /// There is no way to the server, or it cannot do anything now.
    Failed,
    /// It did not answer in time.
    Slow,
    /// It was not sent, because the server is left alone.
    Left,
}

impl CommandOutcome {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Failed, Self::Slow, Self::Left];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Left => "left",
        }
    }
}

/// How the server that replicas share is doing. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierHealth {
    /// A connection for commands stands.
    pub connected: bool,
    /// For how long it has been left alone, because it did not answer; none while it is asked.
    pub away_for: Option<Duration>,
    /// How many replicas there are, by what was last known, this one included.
    pub replicas: u32,
    /// Connections made for commands: each but the first came after a loss.
    pub connections: u64,
    /// Times when sentinels named another server than before.
    pub failovers: u64,
    /// Times when it was found emptied.
    pub emptied: u64,
    /// Commands by what became of them, in the order of [`CommandOutcome::ALL`].
    pub commands: [u64; CommandOutcome::ALL.len()],
    /// Turns that were taken over from another replica which did not end them.
    pub takeovers: u64,
    /// Writes that were refused because their turn was over.
    pub fence_refusals: u64,
    /// Calls to sources that were counted against this replica's even share, because the common budget was out of reach.
    pub own_share: u64,
    /// Hints heard from other replicas.
    pub hints: u64,
    /// Times when hints may have been missed.
    pub gaps: u64,
    /// Times when everything followed was read again.
    pub reconciled: u64,
}
