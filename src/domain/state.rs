//! The state of a job: a closed list, and which of its members are terminal.

/// The state of a job. HTTP has *status*; a job has *state*.
///
/// Closed on purpose: a new member does not compile until every table has its row. An unknown native state is mapped to
/// [`JobState::Unknown`], and the native state is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Waiting to be started.
    Queued,
    /// Running.
    Running,
    /// Completed successfully.
    Succeeded,
    /// Completed with a failure.
    Failed,
    /// Stopped before completion.
    Canceled,
    /// Observed before, and now deleted by the upstream, without an observed terminal state.
    Expired,
    /// The upstream reported a native state that is not known. Not terminal.
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

    /// Returns whether this run will not change any more.
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
