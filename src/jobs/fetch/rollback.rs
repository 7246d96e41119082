//! Lower versions: what to do when an upstream reports a job with a lower version than it did before.
//!
//! A restored backup reports lower versions from then on; a lagging node of the upstream does so for a moment. So a
//! lower version is accepted only when it was reported at least [`REPORTS_MIN`] times over `poll.verify_interval`,
//! without another version in between. The reports so far are kept here, outside the observation, so that
//! `Observation::supersedes` stays a pure order. An accepted rollback is written as an observation with one more in
//! [`Observation::rollbacks`], which is compared before the version: every store and every replica applies the same
//! rule, and the earlier higher version can never return.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// The maximum number of jobs whose lower versions are remembered, about 200 bytes each. Beyond it the oldest entry is
/// dropped.
const REMEMBERED_MAX: usize = 10_000;

/// The minimum number of reports before a lower version is accepted: two reports, at the start and the end of an
/// interval, do not show what was reported between them.
const REPORTS_MIN: u32 = 3;

/// The jobs whose last report was a lower version.
#[derive(Debug, Default)]
pub(super) struct LowerVersions(Mutex<HashMap<JobKey, LowerVersionReports>>);

/// Since when an upstream has reported nothing but lower versions.
#[derive(Clone, Copy, Debug)]
struct LowerVersionReports {
    since: Instant,
    reports: u32,
    /// When the contradicted observation was made. A replica that receives the higher version again renews it, and that
    /// ends the series.
    contradicted: Timestamp,
}

impl LowerVersions {
    /// Records that an answer contradicts `held`. Returns whether it is to be accepted, because the upstream has
    /// reported only lower versions for this long.
    pub(super) fn reported(&self, held: &Observation, verify_interval: Duration) -> bool {
        let key = &held.job.key;
        let mut all = self.lock();
        if let Some(series) = all.get_mut(key).filter(|series| series.contradicted == held.observed_at) {
            series.reports = series.reports.saturating_add(1);
            return series.reports >= REPORTS_MIN && series.since.elapsed() >= verify_interval;
        }
        if all.len() >= REMEMBERED_MAX && !all.contains_key(key) {
            let oldest = all.iter().min_by_key(|(_, series)| series.since).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        let series =
            LowerVersionReports { since: Instant::now(), reports: 1, contradicted: held.observed_at };
        all.insert(key.clone(), series);
        false
    }

    /// Returns whether the last report of the upstream contradicts `held`.
    pub(super) fn contradict(&self, held: &Observation) -> bool {
        let all = self.lock();
        !all.is_empty()
            && all.get(&held.job.key).is_some_and(|series| series.contradicted == held.observed_at)
    }

    /// Forgets the reports of a job, since the last one does not contradict the cached observation.
    pub(super) fn settled(&self, key: &JobKey) {
        let mut all = self.lock();
        if !all.is_empty() {
            all.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, LowerVersionReports>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::{Job, Life};

    const INTERVAL: Duration = Duration::from_mins(10);

    fn held(id: &str, second: i64) -> Observation {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse(id).unwrap() };
        let job = Job::new(key, Life::Running, Details::MindBridge(Box::default()));
        let at = Timestamp::from_second(second).unwrap();
        Observation::new(Arc::new(job), at, at)
    }

    #[tokio::test(start_paused = true)]
    async fn lower_version_is_accepted_after_the_verify_interval() {
        let lower = LowerVersions::default();
        let held = held("a", 1);
        for _ in 0..10 {
            assert!(!lower.reported(&held, INTERVAL));
            assert!(lower.contradict(&held));
            tokio::time::advance(INTERVAL / 10).await;
        }
        assert!(lower.reported(&held, INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn settled_job_begins_a_new_series_of_lower_versions() {
        let lower = LowerVersions::default();
        let held = held("a", 1);
        assert!(!lower.reported(&held, INTERVAL));
        tokio::time::advance(INTERVAL).await;
        lower.settled(&held.job.key);
        assert!(!lower.contradict(&held));
        assert!(!lower.reported(&held, INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn two_reports_do_not_accept_a_lower_version() {
        let lower = LowerVersions::default();
        let held = held("a", 1);
        assert!(!lower.reported(&held, INTERVAL));
        tokio::time::advance(INTERVAL * 10).await;
        assert!(!lower.reported(&held, INTERVAL), "nothing was reported in between");
        assert!(lower.reported(&held, INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn renewed_higher_version_restarts_the_verify_interval() {
        let lower = LowerVersions::default();
        assert!(!lower.reported(&held("a", 1), INTERVAL));
        tokio::time::advance(INTERVAL * 2).await;
        assert!(!lower.reported(&held("a", 2), INTERVAL), "another replica received it again");
        tokio::time::advance(INTERVAL).await;
        assert!(!lower.reported(&held("a", 2), INTERVAL), "the second of this series");
        assert!(lower.reported(&held("a", 2), INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_lower_versions_are_bounded() {
        let lower = LowerVersions::default();
        for number in 0..REMEMBERED_MAX + 50 {
            lower.reported(&held(&format!("j{number}"), 1), INTERVAL);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(lower.lock().len(), REMEMBERED_MAX);
        assert!(!lower.contradict(&held("j0", 1)), "the oldest was dropped first");
    }
}
