//! The rules of freshness, and the decision whether a cached observation can be served: a table over age, state and
//! what the caller allows.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::domain::job::Job;
use crate::domain::state::JobState;
use crate::domain::upstream::Upstream;

/// How fresh an answer is, and how long a caller waits for one.
#[derive(Clone, Copy, Debug)]
pub struct FreshnessRules {
    /// The maximum age of a cached job that is not terminal, unless the caller sets another one.
    pub fresh_for: Duration,
    /// How long "no such job" is cached, unless the caller sets another limit.
    pub missing_for: Duration,
    /// A terminal job whose id may run again is revalidated in the background when it was last observed this long ago.
    pub rerun_check: Duration,
    /// A caller gets an answer within this time, regardless of the upstream.
    pub answer_within: Duration,
}

/// The current rules, which a reload can change.
#[derive(Debug)]
pub(super) struct Freshness(ArcSwap<FreshnessRules>);

impl Freshness {
    pub(super) fn new(rules: FreshnessRules) -> Self {
        Self(ArcSwap::from_pointee(rules))
    }

    /// The rules at this moment.
    pub(super) fn rules(&self) -> FreshnessRules {
        **self.0.load()
    }

    /// Replaces the rules.
    pub(super) fn set(&self, rules: FreshnessRules) {
        self.0.store(Arc::new(rules));
    }
}

/// What to do about a cached job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cacheability {
    /// Serve it.
    Serve,
    /// Serve it, and check in the background whether the id has started another run.
    ServeAndCheck,
    /// Fetch it from the upstream first.
    Fetch,
}

/// Classifies a job that is cached for `age`, for a caller that allows an age of `allowed` while it is not terminal.
///
/// A terminal state is always fresh: no caller waits for a new fetch. But an id that can run again, or one that may
/// have been missing only for a while (EXPIRED, which only Supermetrics produces), is fetched again in the background
/// every `rerun_check`.
pub(super) fn cacheability(
    job: &Job,
    upstream: Upstream,
    age: Duration,
    allowed: Duration,
    rerun_check: Duration,
) -> Cacheability {
    if !job.is_terminal() {
        return if age <= allowed { Cacheability::Serve } else { Cacheability::Fetch };
    }
    let may_live_again = upstream.profile().runs_again || job.state() == JobState::Expired;
    if may_live_again && age > rerun_check { Cacheability::ServeAndCheck } else { Cacheability::Serve }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::Life;

    #[test]
    fn terminal_state_is_fresh_and_others_expire_with_age() {
        use Upstream::{MindBridge, Supermetrics};
        let cases = [
            (Life::Running, MindBridge, 1, 2, Cacheability::Serve),
            (Life::Running, MindBridge, 2, 2, Cacheability::Serve),
            (Life::Running, MindBridge, 3, 2, Cacheability::Fetch),
            (Life::Queued, Supermetrics, 1, 0, Cacheability::Fetch),
            (Life::Unknown, Supermetrics, 0, 0, Cacheability::Serve),
            (Life::Succeeded, MindBridge, 1_000_000, 0, Cacheability::Serve),
            (Life::Succeeded, Supermetrics, 300, 0, Cacheability::Serve),
            (Life::Succeeded, Supermetrics, 301, 0, Cacheability::ServeAndCheck),
            (Life::Canceled, Supermetrics, 301, 0, Cacheability::ServeAndCheck),
            (Life::Expired, Supermetrics, 301, 0, Cacheability::ServeAndCheck),
            (Life::Expired, Supermetrics, 300, 0, Cacheability::Serve),
        ];
        for (life, upstream, age, allowed, expected) in cases {
            let key = JobKey {
                source: SourceName::parse("s").unwrap(),
                external_id: ExternalId::parse("j").unwrap(),
            };
            let label = format!("{life:?} {upstream:?} {age} {allowed}");
            let job = Job::new(key, life, upstream.no_details());
            let seconds = Duration::from_secs;
            assert_eq!(
                cacheability(&job, upstream, seconds(age), seconds(allowed), seconds(300)),
                expected,
                "{label}"
            );
        }
    }
}
