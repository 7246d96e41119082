//! When a job is expected to finish, as of a snapshot of it: by the durations of the followed jobs of its kind.

use jiff::Timestamp;

use super::answer::JobSnapshot;
use super::follow::FollowRegistry;
use crate::domain::estimate::TimeLeft;

/// When a job is expected to finish. Times of day, none before the time of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobEstimate {
    /// The median.
    pub expected_finish_at: Timestamp,
    /// One job in ten finishes before.
    pub earliest: Timestamp,
    /// One job in ten finishes later.
    pub latest: Timestamp,
    /// The number of completed jobs that it is based on.
    pub sample_size: u32,
}

/// The estimate of a job. It depends on the time of the snapshot and on what is known of other jobs, so it is no part of
/// the snapshot, and is computed only where it is requested.
pub(super) fn estimate(following: &FollowRegistry, seen: &JobSnapshot) -> Option<JobEstimate> {
    let observation = &seen.observation;
    let since = observation.sightings.state_since?;
    let now = observation.observed_at.checked_add(seen.age).ok()?;
    let left = following.time_left(&observation.job, since, now)?;
    let TimeLeft { expected, earliest, latest, samples } = left;
    let now = seen.observed_at.checked_add(seen.age).ok()?;
    Some(JobEstimate {
        expected_finish_at: now.checked_add(expected).ok()?,
        earliest: now.checked_add(earliest).ok()?,
        latest: now.checked_add(latest).ok()?,
        sample_size: samples,
    })
}
