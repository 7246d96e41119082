//! Polls that fail: watchers receive staleness, and no stream ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::StreamExt as _;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::watch::UpdateKind;
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::time::Instant;

use super::{SECOND, Short, following, short, watch};
use crate::support::ports::reference;

#[tokio::test(start_paused = true)]
async fn a_failed_first_poll_yields_the_cached_state_at_once() {
    for watchers in [1, 3] {
        let gateway = following();
        gateway.jobs.lookup(&Principal::local(), &[reference("mind", "a")], None).await;
        tokio::time::sleep(SECOND * 600).await;
        gateway.mindbridge.respond_with(|_| Err(FetchError::Unavailable(Detail::new("planted"))));
        let mut watching: Vec<_> = (0..watchers).map(|_| watch(&gateway, &[("mind", "a")])).collect();
        let first = join_all(watching.iter_mut().map(|watcher| watcher.next())).await;
        gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
        for (first, rest) in first.into_iter().zip(watching) {
            let mut updates = vec![short(&first.unwrap())];
            updates.extend(rest.map(|update| short(&update)).collect::<Vec<_>>().await);
            let stale = Some(StaleReason::Unavailable);
            let expected = [
                (UpdateKind::Snapshot, Ok(JobState::Running), stale, false),
                (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
            ];
            assert_eq!(updates, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_marks_updates_stale_and_ends_no_stream() {
    let gateway = following();
    let start = Instant::now();
    gateway.mindbridge.respond_with(move |_| match start.elapsed().as_secs() {
        10..70 => Err(FetchError::Unavailable(Detail::new("planted"))),
        0..100 => Ok(Life::Running),
        _ => Ok(Life::Succeeded),
    });
    let updates: Vec<Short> = watch(&gateway, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Changed, Ok(JobState::Running), Some(StaleReason::Unavailable), false),
        (UpdateKind::Changed, Ok(JobState::Running), None, false),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
    ];
    assert_eq!(updates, expected);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_source_is_not_polled_before_retry_after() {
    let gateway = following();
    let fetch_count = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetch_count);
    gateway.mindbridge.respond_with(move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            Err(FetchError::Throttled { retry_after: SECOND * 120 })
        } else {
            Ok(Life::Running)
        }
    });
    let mut watcher = watch(&gateway, &[("mind", "a")]);
    watcher.next().await.unwrap();
    assert_eq!(short(&watcher.next().await.unwrap()).2, Some(StaleReason::Throttled));
    let paused = Instant::now();
    assert_eq!(short(&watcher.next().await.unwrap()).2, None);
    assert!(paused.elapsed() >= SECOND * 120);
    assert_eq!(fetch_count.load(Ordering::Relaxed), 3);
}

/// How long a watcher waits for the end of a job whose polls fail for ten seconds, while a client reads it as often.
async fn end_after_failed_reads(reads: u32) -> Duration {
    let gateway = following();
    let mut watcher = watch(&gateway, &[("mind", "a")]);
    watcher.next().await.unwrap();
    gateway.mindbridge.respond_with(|_| Err(FetchError::BadAnswer(Detail::new("planted"))));
    assert_eq!(short(&watcher.next().await.unwrap()).2, Some(StaleReason::BadAnswer));
    let failed = Instant::now();
    for read in 1..=reads {
        tokio::time::sleep_until(failed + SECOND * 10 * read / reads.max(1)).await;
        gateway.jobs.lookup(&Principal::local(), &[reference("mind", "a")], Some(Duration::ZERO)).await;
    }
    tokio::time::sleep_until(failed + SECOND * 11).await;
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    assert_eq!(short(&watcher.next().await.unwrap()).1, Ok(JobState::Succeeded));
    failed.elapsed()
}

#[tokio::test(start_paused = true)]
async fn failed_reads_of_clients_do_not_delay_the_updates_of_watchers() {
    let (without, with) = (end_after_failed_reads(0).await, end_after_failed_reads(20).await);
    // a poll that is due during a read is answered by its call
    assert!(with <= without + SECOND, "{with:?} in place of {without:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_one_poll_and_not_the_poll_loop() {
    let gateway = following();
    let fetch_count = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetch_count);
    gateway.mindbridge.respond_with(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        3 => panic!("planted"),
        0..6 => Ok(Life::Running),
        _ => Ok(Life::Succeeded),
    });
    let updates: Vec<Short> = watch(&gateway, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    assert_eq!(updates.last().unwrap().1, Ok(JobState::Succeeded));
    assert!(updates.iter().any(|update| update.2 == Some(StaleReason::Internal)));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_joining_during_an_outage_receives_staleness() {
    let gateway = following();
    let mut first = watch(&gateway, &[("mind", "a")]);
    first.next().await.unwrap();
    gateway.mindbridge.respond_with(|_| Err(FetchError::Unavailable(Detail::new("planted"))));
    assert_eq!(short(&first.next().await.unwrap()).2, Some(StaleReason::Unavailable));
    let mut second = watch(&gateway, &[("mind", "a")]);
    assert_eq!(short(&second.next().await.unwrap()).2, Some(StaleReason::Unavailable));
    assert!(tokio::time::timeout(SECOND * 60, first.next()).await.is_err(), "no change, no update");
}
