//! The answer for one job: an observation with its freshness, or a problem.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::history::Transition;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;
use crate::ports::clock::{ClockReading, to_time_of_day};
use crate::ports::upstream::FetchError;

use super::reference::not_found;

/// The result for one reference.
pub type LookupResult = Result<JobSnapshot, Problem>;

/// The newest observation of a job, and why it is stale.
#[derive(Clone, Debug)]
pub(super) struct KnownJob {
    pub(super) observation: Observation,
    /// `None` while it is fresh.
    pub(super) stale: Option<StaleReason>,
}

/// A job and the freshness of its observation.
#[derive(Clone, Debug)]
pub struct JobSnapshot {
    /// The observation of the job.
    pub observation: Observation,
    /// When the response was complete, by the system clock.
    pub observed_at: Timestamp,
    /// How long ago the response was complete.
    pub age: Duration,
    /// Why it is older than requested; `None` if it is not.
    pub stale: Option<StaleReason>,
    /// When the gateway polls the job next; `None` if the job is not followed.
    pub next_poll: Option<Timestamp>,
    /// What is added to process time to get the time of day.
    pub correction: SignedDuration,
}

/// Why an answer is older than requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaleReason {
    /// The source must not be called now.
    Throttled,
    /// The source did not respond, or responded with an error of its own.
    Unavailable,
    /// The response did not arrive in time.
    TimedOut,
    /// The source rejects the credential that the gateway sends.
    CredentialRejected,
    /// The gateway has no usable credential for the source.
    Unconfigured,
    /// The response of the source is not valid.
    BadAnswer,
    /// The upstream reports a lower version of the job than before, and not yet for long enough to be accepted.
    ConflictingVersion,
    /// An internal error of the gateway.
    Internal,
    /// The result was read from the store without a request to the source.
    NotRefreshed,
}

impl StaleReason {
    /// The name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throttled => "THROTTLED",
            Self::Unavailable => "UNAVAILABLE",
            Self::TimedOut => "TIMED_OUT",
            Self::CredentialRejected => "CREDENTIAL_REJECTED",
            Self::Unconfigured => "UNCONFIGURED",
            Self::BadAnswer => "BAD_ANSWER",
            Self::ConflictingVersion => "CONFLICTING_VERSION",
            Self::Internal => "INTERNAL",
            Self::NotRefreshed => "NOT_REFRESHED",
        }
    }
}

impl JobSnapshot {
    /// An observation that is as fresh as requested.
    pub(super) fn fresh(observation: Observation, now: ClockReading) -> Self {
        Self::new(observation, now, None)
    }

    /// An observation that could not be renewed. A terminal state needs no renewal, so it is never stale.
    pub(super) fn stale(observation: Observation, now: ClockReading, reason: Option<StaleReason>) -> Self {
        let stale = reason.filter(|_| !observation.job.is_terminal());
        Self::new(observation, now, stale)
    }

    fn new(observation: Observation, now: ClockReading, stale: Option<StaleReason>) -> Self {
        let (age, observed_at) = (age(&observation, now), now.date(observation.observed_at));
        let (next_poll, correction) = (None, now.correction);
        Self { observation, observed_at, age, stale, next_poll, correction }
    }

    /// When the run and its state were first observed, by the system clock.
    pub fn sightings(&self) -> Sightings {
        self.observation.sightings.map(|at| to_time_of_day(at, self.correction))
    }

    /// The transitions of the job, oldest first, by the system clock.
    pub fn transitions(&self) -> impl Iterator<Item = Transition> {
        self.observation.history.transitions().iter().map(|one| {
            let observed_at = to_time_of_day(one.observed_at, self.correction);
            Transition { observed_at, ..one.clone() }
        })
    }
}

/// The age of an observation. Both times are process time, so setting the system clock changes no age.
pub(super) fn age(observation: &Observation, now: ClockReading) -> Duration {
    Duration::try_from(now.now.duration_since(observation.observed_at)).unwrap_or_default()
}

/// Why a lookup failed.
#[derive(Clone, Debug)]
pub enum LookupError {
    /// The fetch failed.
    Fetch(FetchError),
    /// The caller's time limit was reached before the source's.
    Impatient,
    /// The fetch was aborted.
    Lost,
}

impl LookupError {
    /// Whether the upstream does not know the job now.
    pub(super) const fn is_not_found(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::NotFound))
    }

    /// The stale reason of an older observation.
    ///
    /// A job that is not found although it was observed before is an invalid response: where the upstream documents
    /// that it deletes jobs, ingest has already turned this into EXPIRED.
    pub(super) const fn stale_reason(&self) -> StaleReason {
        match self {
            Self::Fetch(FetchError::NotFound | FetchError::BadAnswer(_)) => StaleReason::BadAnswer,
            Self::Fetch(FetchError::Throttled { .. }) => StaleReason::Throttled,
            Self::Fetch(FetchError::Unavailable(_)) => StaleReason::Unavailable,
            Self::Fetch(FetchError::TimedOut) | Self::Impatient => StaleReason::TimedOut,
            Self::Fetch(FetchError::CredentialRejected) => StaleReason::CredentialRejected,
            Self::Fetch(FetchError::Unconfigured) => StaleReason::Unconfigured,
            Self::Fetch(FetchError::ConflictingVersion) => StaleReason::ConflictingVersion,
            Self::Lost => StaleReason::Internal,
        }
    }

    /// The problem to answer with when no older observation is cached.
    pub(super) fn problem(&self, key: &JobKey) -> Problem {
        let source = &key.source;
        let (code, retry, message) = match self {
            Self::Fetch(FetchError::NotFound) => return not_found(key),
            Self::Fetch(FetchError::CredentialRejected) => (
                ProblemCode::CredentialRejected,
                Retry::Whenever,
                format!(
                    "source \"{source}\" rejects the gateway's credential; the gateway's operator must renew it"
                ),
            ),
            Self::Fetch(FetchError::Unconfigured) => (
                ProblemCode::Unconfigured,
                Retry::Whenever,
                format!(
                    "the gateway has no valid credential for source \"{source}\"; the gateway's \
                        operator must set one"
                ),
            ),
            Self::Fetch(FetchError::Throttled { retry_after }) => (
                ProblemCode::Throttled,
                Retry::After(*retry_after),
                format!("source \"{source}\" is rate-limited or paused; retry after retryAfterMs"),
            ),
            Self::Fetch(FetchError::Unavailable(_)) => (
                ProblemCode::Unavailable,
                Retry::Whenever,
                format!(
                    "source \"{source}\" cannot be reached, or responds with a server error; retry later"
                ),
            ),
            Self::Fetch(FetchError::TimedOut) | Self::Impatient => (
                ProblemCode::TimedOut,
                Retry::Whenever,
                format!("source \"{source}\" did not respond in time; retry later"),
            ),
            // Without the cached observation, which has the higher version, there is nothing to answer with.
            Self::Fetch(FetchError::BadAnswer(_) | FetchError::ConflictingVersion) => (
                ProblemCode::BadAnswer,
                Retry::Whenever,
                format!("source \"{source}\" returned an invalid response; retry later"),
            ),
            Self::Lost => (ProblemCode::Internal, Retry::Whenever, "the fetch was aborted; retry".to_owned()),
        };
        let problem = Problem::new(code, retry, message);
        match self {
            Self::Fetch(error) => Problem { cause: Some(Arc::new(error.clone())), ..problem },
            Self::Impatient | Self::Lost => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::{Job, Life};

    #[test]
    fn first_seen_times_use_the_observations_clock_correction() {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, Life::Succeeded, Details::Supermetrics(Box::default()));
        let at = |second| Timestamp::from_second(1_000_000 + second).unwrap();
        let observation = Observation::new(Arc::new(job), at(0), at(0));
        for step in [-3_600, 0, 3_600] {
            let now = ClockReading { now: at(5), correction: SignedDuration::from_secs(step) };
            let seen = JobSnapshot::fresh(observation.clone(), now);
            let dated = Some(at(step));
            let expected = Sightings {
                first_seen_at: dated,
                state_since: dated,
                terminal_seen_at: dated,
                discovered: false,
            };
            assert_eq!((seen.observed_at, seen.sightings()), (at(step), expected));
            let replaced = JobSnapshot::fresh(observation.clone().replacing(None), now);
            assert_eq!(replaced.transitions().map(|one| one.observed_at).collect::<Vec<_>>(), [at(step)]);
        }
    }
}
