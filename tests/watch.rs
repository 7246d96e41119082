//! Watching on a paused clock: one poll serves all, each terminal state is delivered once, nothing is polled in vain.

mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::FollowSettings;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, TestGateway, fixture, gateway, reference};

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

/// What a reader of the feed receives next.
async fn next(feed: &mut (impl Stream<Item = WatchUpdate> + Unpin)) -> Short {
    short(&tokio::time::timeout(SECOND * 600, feed.next()).await.expect("an update").unwrap())
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
async fn a_thousand_watchers_share_the_upstream_calls_of_one() {
    let mut calls = Vec::new();
    for watchers in [1, 1_000] {
        let gateway = following();
        succeeds_after(&gateway, SECOND * 600);
        let ends = join_all((0..watchers).map(|_| watch(&gateway, &[("mind", "a")]).count())).await;
        assert_eq!(ends, vec![2; watchers], "a snapshot and a terminal state for each");
        calls.push(gateway.mindbridge.calls());
    }
    assert_eq!(calls[0], calls[1]);
    assert!(calls[0] < 60, "{} polls in ten minutes", calls[0]);
}

#[tokio::test(start_paused = true)]
async fn polling_stops_after_the_last_watcher_unsubscribes() {
    let gateway = following();
    let mut watchers: Vec<_> = (0..1_000).map(|_| watch(&gateway, &[("mind", "a")])).collect();
    join_all(watchers.iter_mut().map(|watcher| watcher.next())).await;
    assert_eq!(gateway.jobs.followed(), 1);
    drop(watchers);
    tokio::time::sleep(FOLLOW.unsubscribe_grace + SECOND).await;
    assert_eq!(gateway.jobs.followed(), 0);
    let calls = gateway.mindbridge.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(gateway.mindbridge.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn resubscribing_within_the_grace_period_keeps_the_watch() {
    let gateway = following();
    let mut first = watch(&gateway, &[("mind", "a")]);
    first.next().await.unwrap();
    drop(first);
    tokio::time::sleep(FOLLOW.unsubscribe_grace / 2).await;
    let mut second = watch(&gateway, &[("mind", "a")]);
    assert_eq!(short(&second.next().await.unwrap()).1, Ok(JobState::Running));
    tokio::time::sleep(FOLLOW.unsubscribe_grace * 2).await;
    assert_eq!(gateway.jobs.followed(), 1, "the end of the earlier interest does not end the later one");
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
async fn ten_thousand_jobs_are_polled_in_a_hundred_requests() {
    let round = SECOND * 30;
    let gateway =
        fixture(FollowSettings { pace: PollIntervals { fastest: round, slowest: round }, ..FOLLOW });
    gateway.jobs.start_following(CancellationToken::new());
    succeeds_after(&gateway, round * 4);
    let ids: Vec<String> = (0..10_000).map(|number| format!("job{number}")).collect();
    let streams = ids.chunks(200).map(|chunk| {
        let refs: Vec<(&str, &str)> = chunk.iter().map(|id| ("mind", id.as_str())).collect();
        watch(&gateway, &refs).count()
    });
    let measured = async {
        tokio::time::sleep(round).await;
        let before = gateway.mindbridge.calls();
        // The jitter of a job shortens its interval by up to a fifth, so a round lasts 27 seconds on average.
        tokio::time::sleep(SECOND * 54).await;
        gateway.mindbridge.calls() - before
    };
    let (updates, calls) = tokio::join!(join_all(streams), measured);
    assert_eq!(updates, vec![400; 50], "a snapshot and a terminal state for each of 200");
    assert!((180..=220).contains(&calls), "{calls} requests in two rounds");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_max_staleness_sets_the_poll_interval() {
    let gateway = following();
    let slow = gateway.jobs.watch(Principal::local(), vec![reference("mind", "a")], None);
    let eager = gateway.jobs.watch(Principal::local(), vec![reference("mind", "a")], Some(SECOND * 2));
    let (mut slow, mut eager) = (slow.boxed(), eager.boxed());
    slow.next().await.unwrap();
    tokio::time::sleep(SECOND * 600).await;
    let slow = gateway.mindbridge.calls();
    eager.next().await.unwrap();
    tokio::time::sleep(SECOND * 60).await;
    let fast = gateway.mindbridge.calls() - slow;
    assert!((26..=40).contains(&fast), "{fast} polls in a minute");
    drop(eager);
    tokio::time::sleep(SECOND * 2).await;
    let before = gateway.mindbridge.calls();
    tokio::time::sleep(SECOND * 60).await;
    assert!(
        gateway.mindbridge.calls() - before <= 4,
        "the interval returns to normal when the frequent watcher leaves"
    );
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
async fn a_tracked_job_is_followed_without_a_watcher() {
    let gateway = following();
    succeeds_after(&gateway, SECOND * 30);
    let labels: Labels = [("team".to_owned(), "audit".to_owned())].into();
    let refs = [reference("mind", "a"), reference("mind", "..")];
    let answers = gateway.jobs.track(&Principal::local(), &refs, &labels).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().observation.job.state(), JobState::Running);
    assert_eq!(answers[1].as_ref().unwrap_err().code, ProblemCode::InvalidRef);
    tokio::time::sleep(SECOND * 60).await;
    let calls = gateway.mindbridge.calls();
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    let held = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await.unwrap();
    assert_eq!((held.observation.job.state(), gateway.mindbridge.calls()), (JobState::Succeeded, calls));
    assert_eq!(gateway.jobs.labels(&held.observation.job.key), Some(labels));
    assert_eq!(gateway.jobs.untrack(&Principal::local(), &refs).await, 1);
    tokio::time::sleep(FOLLOW.unsubscribe_grace + SECOND).await;
    assert_eq!(gateway.jobs.followed(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_feed_delivers_permitted_changes_found_by_any_lookup() {
    let gateway = following();
    let granted = Principal::new("granted", [jobgate::domain::id::SourceName::parse("mind").unwrap()]);
    let mut feed = gateway.jobs.feed(granted, JobListFilter::default()).boxed();
    let lookup =
        async |source: &str| gateway.jobs.lookup_one(&Principal::local(), reference(source, "a"), None).await;
    lookup("metrics").await.unwrap();
    lookup("mind").await.unwrap();
    assert_eq!(short(&feed.next().await.unwrap()).1, Ok(JobState::Running));
    tokio::time::sleep(SECOND * 3).await;
    lookup("mind").await.unwrap();
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    tokio::time::sleep(SECOND * 3).await;
    lookup("mind").await.unwrap();
    let next = feed.next().await.unwrap();
    assert_eq!(
        short(&next),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
        "an equal answer is not a change"
    );
}

#[tokio::test(start_paused = true)]
async fn the_feed_delivers_an_outage_and_its_recovery_once_each() {
    let gateway = following();
    let feed = |filter| gateway.jobs.feed(Principal::local(), filter).boxed();
    let mut reader = feed(JobListFilter::default());
    let mut filtered = feed(JobListFilter { states: vec![JobState::Queued], ..JobListFilter::default() });
    let mut watcher = watch(&gateway, &[("mind", "a")]);
    watcher.next().await.unwrap();
    let running = |stale| (UpdateKind::Changed, Ok(JobState::Running), stale, false);
    assert_eq!(next(&mut reader).await, running(None));
    let outage = || FetchError::Unavailable(Detail::new("planted"));
    for _ in 0..2 {
        gateway.mindbridge.respond_with(move |_| Err(outage()));
        let mut unheld = watch(&gateway, &[("mind", "unheld")]);
        assert_eq!(next(&mut reader).await, running(Some(StaleReason::Unavailable)));
        assert_eq!(unheld.next().await.unwrap().answer.unwrap_err().code, ProblemCode::Unavailable);
        drop(unheld);
        assert!(tokio::time::timeout(SECOND * 60, reader.next()).await.is_err(), "delivered once");
        gateway
            .mindbridge
            .respond_with(move |id| if id.as_str() == "a" { Ok(Life::Running) } else { Err(outage()) });
        assert_eq!(next(&mut reader).await, running(None));
        assert!(tokio::time::timeout(SECOND * 60, reader.next()).await.is_err(), "delivered once");
    }
    assert!(tokio::time::timeout(SECOND, filtered.next()).await.is_err(), "the filter applies");
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

#[tokio::test(start_paused = true)]
async fn new_watchers_do_not_delay_the_next_poll() {
    let gateway = following();
    succeeds_after(&gateway, SECOND * 6);
    let start = Instant::now();
    let first = watch(&gateway, &[("mind", "a")]).map(|update| short(&update)).collect::<Vec<_>>();
    let arrivals = async {
        let mut guests = Vec::new();
        for _ in 0..50 {
            tokio::time::sleep(SECOND * 2 / 5).await;
            let refs = vec![reference("mind", "a")];
            let mut guest = gateway.jobs.watch(Principal::local(), refs, Some(SECOND * 3_600)).boxed();
            guest.next().await;
            guests.push(guest);
        }
        guests.len()
    };
    let ended = async {
        first.await;
        start.elapsed()
    };
    let (ended, guests) = tokio::join!(ended, arrivals);
    assert!(guests == 50 && ended < SECOND * 8, "delivered after {ended:?}");
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

#[tokio::test(start_paused = true)]
async fn a_slow_source_does_not_delay_updates_of_other_sources() {
    let gateway = following();
    gateway.supermetrics.takes(SECOND * 15);
    succeeds_after(&gateway, SECOND * 3);
    let start = Instant::now();
    let mut watcher = watch(&gateway, &[("metrics", "slow"), ("mind", "a")]);
    let updates =
        [watcher.next().await.unwrap(), watcher.next().await.unwrap()].map(|update| short(&update).1);
    assert_eq!(updates, [Ok(JobState::Running), Ok(JobState::Succeeded)]);
    assert!(start.elapsed() < SECOND * 6);
}

#[tokio::test(start_paused = true)]
async fn a_new_watch_resumes_polling_after_max_duration() {
    let gateway = following();
    let refs = [reference("mind", "a")];
    gateway.jobs.track(&Principal::local(), &refs, &Labels::new()).await.unwrap();
    tokio::time::sleep(FOLLOW.at_most + SECOND * 60).await;
    let calls = gateway.mindbridge.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(gateway.mindbridge.calls(), calls, "the fetch timed out");
    let mut watcher = watch(&gateway, &[("mind", "a")]);
    assert_eq!(
        short(&watcher.next().await.unwrap()),
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false)
    );
    succeeds_after(&gateway, SECOND * 20);
    assert_eq!(short(&watcher.next().await.unwrap()).0, UpdateKind::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_change_returns_the_latest_poll() {
    let gateway = following();
    let answer =
        gateway.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 6).await.unwrap();
    assert!(answer.age < SECOND * 2, "{:?}", answer.age);
}
