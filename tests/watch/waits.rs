//! Waits for the terminal state: each returns it, or the current state at its timeout.

use futures_util::future::join_all;
use jobgate::domain::error::ProblemCode;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use tokio::time::Instant;

use super::{SECOND, following, succeeds_after};
use crate::support::ports::reference;

#[tokio::test(start_paused = true)]
async fn a_thousand_waits_share_the_upstream_calls_of_one() {
    let mut calls = Vec::new();
    for waiters in [1, 1_000] {
        let gateway = following();
        succeeds_after(&gateway, SECOND * 10);
        let anyone = Principal::local();
        let wait = || gateway.jobs.await_end(&anyone, reference("mind", "a"), SECOND * 15);
        let answers = join_all((0..waiters).map(|_| wait())).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().observation.job.is_terminal()));
        calls.push(gateway.mindbridge.calls());
    }
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_returns_the_current_state_at_its_timeout() {
    let gateway = following();
    let start = Instant::now();
    let answer =
        gateway.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 5).await.unwrap();
    assert_eq!((answer.observation.job.state(), start.elapsed()), (JobState::Running, SECOND * 5));
    assert!(answer.next_poll.is_some());
    assert!(answer.age >= SECOND / 2, "its age counts until it is delivered");
}

#[tokio::test(start_paused = true)]
async fn a_wait_shorter_than_the_first_fetch_times_out() {
    let gateway = following();
    let start = Instant::now();
    let early =
        gateway.jobs.await_end(&Principal::local(), reference("mind", "c"), SECOND / 20).await.unwrap_err();
    assert_eq!(
        (early.code, start.elapsed()),
        (ProblemCode::TimedOut, SECOND / 20),
        "the first fetch takes longer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_change_returns_the_latest_poll() {
    let gateway = following();
    let answer =
        gateway.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 6).await.unwrap();
    assert!(answer.age < SECOND * 2, "{:?}", answer.age);
}
