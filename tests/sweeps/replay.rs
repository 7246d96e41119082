//! Batches of jobs with log-normal durations, replayed on a paused clock: a gateway that sweeps needs at most a quarter of
//! the calls of polls at the best fixed interval, which is as late in the median.

use jobgate::domain::upstream::Upstream;

use super::MINUTE;
use crate::support::replay::{DURATIONS, LogNormal, fixed, follow_each};

/// Follows batches that start within ten minutes. Returns the calls that detect ends, in percent of those of the best fixed
/// interval.
fn share_of_fixed_interval(upstream: Upstream, durations: &LogNormal, jobs: usize, batches: usize) -> usize {
    let mut rng = fastrand::Rng::with_seed(2026);
    let batches: Vec<_> = (0..batches).map(|_| durations.batch(jobs, MINUTE * 10, &mut rng)).collect();
    let followed = follow_each(upstream, &batches);
    let ids = upstream.profile().ids_a_request;
    let (_, polled) = fixed::longest(&batches, followed.lags.median, ids).unwrap();
    100 * followed.calls.detecting() / polled.calls
}

#[test]
fn a_thousand_queries_of_any_duration_need_a_quarter_of_the_polls() {
    let share = share_of_fixed_interval(Upstream::Supermetrics, &DURATIONS[0], 1_000, 1);
    assert!(share <= 25, "{share} %");
}

#[test]
fn a_hundred_queries_of_minutes_need_a_quarter_of_the_polls() {
    let share = share_of_fixed_interval(Upstream::Supermetrics, &DURATIONS[2], 100, 5);
    assert!(share <= 25, "{share} %");
}
