//! Where a job is in its life: our closed list, and which of its members are an end.

/// Where a job is in its life. HTTP has *status*; a job has *state*.
///
/// Closed on purpose: a new member does not compile until every table has its row. What an upstream says that we
/// do not know is [`JobState::Unknown`], with the upstream's word kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waiting for its turn.
    Queued,
    /// Being worked on.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended, and did not do what was asked.
    Failed,
    /// Stopped by someone before its end.
    Canceled,
    /// Seen before, now gone upstream, and no end was ever seen.
    Expired,
    /// The upstream used a word we do not know. Not an end.
    Unknown,
}

impl JobState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
        Self::Expired,
        Self::Unknown,
    ];

    /// The name in the schema, in logs and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
            Self::Expired => "EXPIRED",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Says whether this run will not change any more.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Canceled | Self::Expired => true,
            Self::Queued | Self::Running | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_are_succeeded_failed_canceled_expired() {
        let ends: Vec<JobState> = JobState::ALL.into_iter().filter(|state| state.is_terminal()).collect();
        assert_eq!(ends, [JobState::Succeeded, JobState::Failed, JobState::Canceled, JobState::Expired]);
    }
}
