//! Watches on a paused clock: each yields a snapshot, then changes, then one terminal state or problem.

mod failures;
mod feed;
mod polling;
mod random;
mod shared;
mod waits;

use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::FetchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, TestGateway, gateway, reference};

const SECOND: Duration = Duration::from_secs(1);

/// A gateway with a running poll loop.
fn following() -> TestGateway {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    gateway
}

fn watch(
    gateway: &TestGateway,
    refs: &[(&str, &str)],
) -> impl Stream<Item = WatchUpdate> + Send + Unpin + use<> {
    let refs: Vec<RequestedRef> = refs.iter().map(|(source, id)| reference(source, id)).collect();
    gateway.jobs.watch(Principal::local(), refs, None).boxed()
}

/// An update in short form: its kind, its state or problem, whether stale, whether final.
type Short = (UpdateKind, Result<JobState, ProblemCode>, Option<StaleReason>, bool);

fn short(update: &WatchUpdate) -> Short {
    let state =
        update.answer.as_ref().map(|seen| seen.observation.job.state()).map_err(|problem| problem.code);
    let stale = update.answer.as_ref().ok().and_then(|seen| seen.stale);
    (update.kind, state, stale, update.is_final)
}

/// A job that runs for a while and then succeeds, by the paused clock.
fn succeeds_after(gateway: &TestGateway, span: Duration) {
    let start = Instant::now();
    gateway
        .mindbridge
        .respond_with(move |_| Ok(if start.elapsed() < span { Life::Running } else { Life::Succeeded }));
}

#[tokio::test(start_paused = true)]
async fn a_watch_yields_a_snapshot_and_the_terminal_state() {
    let gateway = following();
    succeeds_after(&gateway, SECOND * 10);
    let updates: Vec<Short> = watch(&gateway, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
    ];
    assert_eq!(updates, expected, "and then the stream is complete");
}

#[tokio::test(start_paused = true)]
async fn watching_a_finished_job_yields_one_final_snapshot() {
    let gateway = following();
    succeeds_after(&gateway, Duration::ZERO);
    let updates: Vec<Short> =
        watch(&gateway, &[("mind", "a"), ("mind", "a")]).map(|update| short(&update)).collect().await;
    assert_eq!(
        updates,
        [(UpdateKind::Snapshot, Ok(JobState::Succeeded), None, true); 2],
        "once per reference"
    );
    assert_eq!(gateway.mindbridge.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_state_during_subscribe_is_delivered_once() {
    let gateway = following();
    for run in 0..10_000_u64 {
        // The job completes up to five milliseconds before the fetch is sent, or after.
        succeeds_after(&gateway, Duration::from_micros(run));
        tokio::time::sleep(Duration::from_millis(5)).await;
        let id = format!("job{run}");
        let updates: Vec<Short> =
            watch(&gateway, &[("mind", &id)]).map(|update| short(&update)).collect().await;
        assert_eq!(updates.iter().filter(|update| update.3).count(), 1, "{updates:?}");
        assert_eq!(updates.last().unwrap().1, Ok(JobState::Succeeded));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_never_completes_ends_with_a_typed_problem() {
    type Answer = fn() -> Result<Life, FetchError>;
    let cases: [(Answer, ProblemCode, Duration); 3] = [
        (|| Err(FetchError::NotFound), ProblemCode::NotFound, FOLLOW.missing_for),
        (|| Ok(Life::Unknown), ProblemCode::FollowLimit, FOLLOW.unknown_for),
        (|| Ok(Life::Running), ProblemCode::FollowLimit, FOLLOW.at_most),
    ];
    for (answer, code, limit) in cases {
        let gateway = following();
        gateway.mindbridge.respond_with(move |_| answer());
        let start = Instant::now();
        let updates: Vec<Short> =
            watch(&gateway, &[("mind", "a")]).map(|update| short(&update)).collect().await;
        let lasted = start.elapsed();
        assert_eq!(updates.last().unwrap(), &(UpdateKind::Ended, Err(code), None, true));
        assert_eq!(updates.len(), 2, "{updates:?}");
        assert!(lasted >= limit && lasted < limit + SECOND * 31, "{code:?} {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unwatchable_reference_yields_one_final_problem() {
    let gateway = following();
    let updates: Vec<Short> =
        watch(&gateway, &[("mind", ".."), ("nowhere", "a")]).map(|one| short(&one)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Err(ProblemCode::InvalidRef), None, true),
        (UpdateKind::Snapshot, Err(ProblemCode::NotFound), None, true),
    ];
    assert_eq!(updates, expected);
    assert_eq!((gateway.mindbridge.calls(), gateway.jobs.followed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_skips_to_the_terminal_state() {
    let gateway = following();
    let start = Instant::now();
    gateway.mindbridge.respond_with(move |_| match start.elapsed().as_secs() {
        seconds @ 0..60 if seconds % 2 == 0 => Ok(Life::Running),
        0..60 => Ok(Life::Queued),
        _ => Ok(Life::Succeeded),
    });
    let mut watcher = watch(&gateway, &[("mind", "a")]);
    let first = watcher.next().await.unwrap();
    tokio::time::sleep(SECOND * 90).await;
    let last = watcher.next().await.unwrap();
    assert_eq!(short(&last), (UpdateKind::Ended, Ok(JobState::Succeeded), None, true));
    assert!(last.sequence > first.sequence + 1, "a skipped update is a gap in the sequence");
    assert!(watcher.next().await.is_none());
}
