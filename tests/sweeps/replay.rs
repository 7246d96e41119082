//! Batches of jobs with log-normal durations, replayed on a paused clock: a gateway that sweeps needs at most a quarter of
//! the calls of polls at the best fixed interval, which is as late in the median.

use jobgate::domain::upstream::Upstream;

use super::MINUTE;
use crate::support::replay::{DURATIONS, Followed, LogNormal, fixed, follow_each};

/// Follows batches that start within ten minutes, and compares the calls that detect their ends with those of the best fixed
/// interval, and all calls with those of the schedule of the upstream's own client.
fn check_quarter_of_polls(durations: &LogNormal, jobs: usize, batches: usize) {
    let mut rng = fastrand::Rng::with_seed(2026);
    let batches: Vec<_> = (0..batches).map(|_| durations.batch(jobs, MINUTE * 10, &mut rng)).collect();
    let Followed { calls, lags, .. } = follow_each(Upstream::Supermetrics, &batches);
    let (_, polled) = fixed::longest(&batches, lags.median, 1).unwrap();
    let share = 100 * calls.detecting() / polled.calls;
    assert!(share <= 25, "{}: {share} % at a p90 of {:.1} s", durations.name, lags.p90);
    let client = fixed::one_by_one(&batches, fixed::supermetrics_client);
    assert!(calls.all() < client.calls, "{}: {} calls, {}", durations.name, calls.all(), client.calls);
}

#[test]
fn a_thousand_queries_of_any_duration_need_a_quarter_of_the_polls() {
    check_quarter_of_polls(&DURATIONS[0], 1_000, 1);
}

#[test]
fn a_hundred_queries_of_minutes_need_a_quarter_of_the_polls() {
    check_quarter_of_polls(&DURATIONS[2], 100, 5);
}
