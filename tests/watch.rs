//! Watching on a paused clock: one asks for all, each end is told once, and nothing is asked for nobody.

mod random;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::pace::Pace;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::FollowSettings;
use jobgate::jobs::access::JobRef;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::list::JobFilter;
use jobgate::jobs::track::Labels;
use jobgate::jobs::watch::{Update, UpdateKind};
use jobgate::ports::upstream::{Detail, LookError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, House, house, house_that, reference};

const SECOND: Duration = Duration::from_secs(1);

/// A house whose loop runs.
fn following() -> House {
    let house = house();
    house.jobs.start_following(CancellationToken::new());
    house
}

fn watch(house: &House, refs: &[(&str, &str)]) -> impl Stream<Item = Update> + Send + Unpin + use<> {
    let refs: Vec<JobRef> = refs.iter().map(|(source, id)| reference(source, id)).collect();
    house.jobs.watch(Principal::local(), refs, None).boxed()
}

/// An update in short: its kind, its state or problem, whether stale, whether final.
type Short = (UpdateKind, Result<JobState, ProblemCode>, Option<StaleReason>, bool);

fn short(update: &Update) -> Short {
    let state =
        update.answer.as_ref().map(|seen| seen.observation.job.state()).map_err(|problem| problem.code);
    let stale = update.answer.as_ref().ok().and_then(|seen| seen.stale);
    (update.kind, state, stale, update.is_final)
}

/// What a reader of the feed is told next.
async fn next(feed: &mut (impl Stream<Item = Update> + Unpin)) -> Short {
    short(&tokio::time::timeout(SECOND * 600, feed.next()).await.expect("an update").unwrap())
}

/// A job that runs for a while and then succeeds, by the paused clock.
fn succeeds_after(house: &House, span: Duration) {
    let start = Instant::now();
    house.mind.says(move |_| Ok(if start.elapsed() < span { Life::Running } else { Life::Succeeded }));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_followed_from_snapshot_to_end() {
    let house = following();
    succeeds_after(&house, SECOND * 10);
    let told: Vec<Short> = watch(&house, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
    ];
    assert_eq!(told, expected, "and then the stream ended");
}

#[tokio::test(start_paused = true)]
async fn a_finished_job_is_one_snapshot() {
    let house = following();
    succeeds_after(&house, Duration::ZERO);
    let told: Vec<Short> =
        watch(&house, &[("mind", "a"), ("mind", "a")]).map(|update| short(&update)).collect().await;
    assert_eq!(
        told,
        [(UpdateKind::Snapshot, Ok(JobState::Succeeded), None, true); 2],
        "each time it was named"
    );
    assert_eq!(house.mind.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_cost_the_calls_of_one() {
    let mut calls = Vec::new();
    for watchers in [1, 1_000] {
        let house = following();
        succeeds_after(&house, SECOND * 600);
        let ends = join_all((0..watchers).map(|_| watch(&house, &[("mind", "a")]).count())).await;
        assert_eq!(ends, vec![2; watchers], "a snapshot and an end for each");
        calls.push(house.mind.calls());
    }
    assert_eq!(calls[0], calls[1]);
    assert!(calls[0] < 60, "{} looks in ten minutes", calls[0]);
}

#[tokio::test(start_paused = true)]
async fn the_looking_stops_when_nobody_watches() {
    let house = following();
    let mut watchers: Vec<_> = (0..1_000).map(|_| watch(&house, &[("mind", "a")])).collect();
    join_all(watchers.iter_mut().map(|watcher| watcher.next())).await;
    assert_eq!(house.jobs.followed(), 1);
    drop(watchers);
    tokio::time::sleep(FOLLOW.linger + SECOND).await;
    assert_eq!(house.jobs.followed(), 0);
    let calls = house.mind.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(house.mind.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_who_comes_back_within_the_linger_costs_nothing() {
    let house = following();
    let mut first = watch(&house, &[("mind", "a")]);
    first.next().await.unwrap();
    drop(first);
    tokio::time::sleep(FOLLOW.linger / 2).await;
    let mut second = watch(&house, &[("mind", "a")]);
    assert_eq!(short(&second.next().await.unwrap()).1, Ok(JobState::Running));
    tokio::time::sleep(FOLLOW.linger * 2).await;
    assert_eq!(house.jobs.followed(), 1, "the earlier leaving does not end the later interest");
}

#[tokio::test(start_paused = true)]
async fn an_end_around_the_subscribe_is_told_exactly_once() {
    let house = following();
    for run in 0..10_000_u64 {
        // The job ends up to five milliseconds before the question leaves, or after.
        succeeds_after(&house, Duration::from_micros(run));
        tokio::time::sleep(Duration::from_millis(5)).await;
        let id = format!("job{run}");
        let told: Vec<Short> = watch(&house, &[("mind", &id)]).map(|update| short(&update)).collect().await;
        assert_eq!(told.iter().filter(|update| update.3).count(), 1, "{told:?}");
        assert_eq!(told.last().unwrap().1, Ok(JobState::Succeeded));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stands_in_at_once_for_a_first_look_that_brings_nothing() {
    for watchers in [1, 3] {
        let house = following();
        house.jobs.lookup(&Principal::local(), &[reference("mind", "a")], None).await;
        tokio::time::sleep(SECOND * 600).await;
        house.mind.says(|_| Err(LookError::Unavailable(Detail::new("planted"))));
        let mut watching: Vec<_> = (0..watchers).map(|_| watch(&house, &[("mind", "a")])).collect();
        let first = join_all(watching.iter_mut().map(|watcher| watcher.next())).await;
        house.mind.says(|_| Ok(Life::Succeeded));
        for (first, rest) in first.into_iter().zip(watching) {
            let mut told = vec![short(&first.unwrap())];
            told.extend(rest.map(|update| short(&update)).collect::<Vec<_>>().await);
            let stale = Some(StaleReason::Unavailable);
            let expected = [
                (UpdateKind::Snapshot, Ok(JobState::Running), stale, false),
                (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
            ];
            assert_eq!(told, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_as_staleness_and_ends_no_stream() {
    let house = following();
    let start = Instant::now();
    house.mind.says(move |_| match start.elapsed().as_secs() {
        10..70 => Err(LookError::Unavailable(Detail::new("planted"))),
        0..100 => Ok(Life::Running),
        _ => Ok(Life::Succeeded),
    });
    let told: Vec<Short> = watch(&house, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Changed, Ok(JobState::Running), Some(StaleReason::Unavailable), false),
        (UpdateKind::Changed, Ok(JobState::Running), None, false),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_source_is_kept() {
    let house = following();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    house.mind.says(move |_| {
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            Err(LookError::Throttled { retry_after: SECOND * 120 })
        } else {
            Ok(Life::Running)
        }
    });
    let mut watcher = watch(&house, &[("mind", "a")]);
    watcher.next().await.unwrap();
    assert_eq!(short(&watcher.next().await.unwrap()).2, Some(StaleReason::Throttled));
    let paused = Instant::now();
    assert_eq!(short(&watcher.next().await.unwrap()).2, None);
    assert!(paused.elapsed() >= SECOND * 120);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_end_has_a_limit_and_a_typed_end() {
    type Answer = fn() -> Result<Life, LookError>;
    let cases: [(Answer, ProblemCode, Duration); 3] = [
        (|| Err(LookError::NotFound), ProblemCode::NotFound, FOLLOW.missing_for),
        (|| Ok(Life::Unknown), ProblemCode::FollowLimit, FOLLOW.unknown_for),
        (|| Ok(Life::Running), ProblemCode::FollowLimit, FOLLOW.at_most),
    ];
    for (answer, code, limit) in cases {
        let house = following();
        house.mind.says(move |_| answer());
        let start = Instant::now();
        let told: Vec<Short> = watch(&house, &[("mind", "a")]).map(|update| short(&update)).collect().await;
        let lasted = start.elapsed();
        assert_eq!(told.last().unwrap(), &(UpdateKind::Ended, Err(code), None, true));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(lasted >= limit && lasted < limit + SECOND * 31, "{code:?} {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_watched_is_one_final_problem() {
    let house = following();
    let told: Vec<Short> =
        watch(&house, &[("mind", ".."), ("nowhere", "a")]).map(|one| short(&one)).collect().await;
    let expected = [
        (UpdateKind::Snapshot, Err(ProblemCode::InvalidRef), None, true),
        (UpdateKind::Snapshot, Err(ProblemCode::NotFound), None, true),
    ];
    assert_eq!(told, expected);
    assert_eq!((house.mind.calls(), house.jobs.followed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_jobs_of_one_source_are_a_hundred_requests_a_round() {
    let round = SECOND * 30;
    let house = house_that(FollowSettings { pace: Pace { fastest: round, slowest: round }, ..FOLLOW });
    house.jobs.start_following(CancellationToken::new());
    succeeds_after(&house, round * 4);
    let ids: Vec<String> = (0..10_000).map(|number| format!("job{number}")).collect();
    let streams = ids.chunks(200).map(|chunk| {
        let refs: Vec<(&str, &str)> = chunk.iter().map(|id| ("mind", id.as_str())).collect();
        watch(&house, &refs).count()
    });
    let measured = async {
        tokio::time::sleep(round).await;
        let before = house.mind.calls();
        // The phase of a job takes up to a fifth off its interval, so a round lasts 27 seconds on average.
        tokio::time::sleep(SECOND * 54).await;
        house.mind.calls() - before
    };
    let (told, calls) = tokio::join!(join_all(streams), measured);
    assert_eq!(told, vec![400; 50], "a snapshot and an end for each of 200");
    assert!((180..=220).contains(&calls), "{calls} requests in two rounds");
}

#[tokio::test(start_paused = true)]
async fn the_freshest_wish_sets_the_pace() {
    let house = following();
    let patient = house.jobs.watch(Principal::local(), vec![reference("mind", "a")], None);
    let eager = house.jobs.watch(Principal::local(), vec![reference("mind", "a")], Some(SECOND * 2));
    let (mut patient, mut eager) = (patient.boxed(), eager.boxed());
    patient.next().await.unwrap();
    tokio::time::sleep(SECOND * 600).await;
    let slow = house.mind.calls();
    eager.next().await.unwrap();
    tokio::time::sleep(SECOND * 60).await;
    let fast = house.mind.calls() - slow;
    assert!((26..=40).contains(&fast), "{fast} looks in a minute");
    drop(eager);
    tokio::time::sleep(SECOND * 2).await;
    let before = house.mind.calls();
    tokio::time::sleep(SECOND * 60).await;
    assert!(house.mind.calls() - before <= 4, "the pace falls back when the eager one leaves");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_look_and_never_the_loop() {
    let house = following();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    house.mind.says(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        3 => panic!("planted"),
        0..6 => Ok(Life::Running),
        _ => Ok(Life::Succeeded),
    });
    let told: Vec<Short> = watch(&house, &[("mind", "a")]).map(|update| short(&update)).collect().await;
    assert_eq!(told.last().unwrap().1, Ok(JobState::Succeeded));
    assert!(told.iter().any(|update| update.2 == Some(StaleReason::Internal)));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_cost_the_calls_of_one() {
    let mut calls = Vec::new();
    for waiters in [1, 1_000] {
        let house = following();
        succeeds_after(&house, SECOND * 10);
        let anyone = Principal::local();
        let wait = || house.jobs.await_end(&anyone, reference("mind", "a"), SECOND * 15);
        let answers = join_all((0..waiters).map(|_| wait())).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().observation.job.is_terminal()));
        calls.push(house.mind.calls());
    }
    assert_eq!(calls[0], calls[1]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_timeout_with_the_state_reached() {
    let house = following();
    let start = Instant::now();
    let answer = house.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 5).await.unwrap();
    assert_eq!((answer.observation.job.state(), start.elapsed()), (JobState::Running, SECOND * 5));
    assert!(answer.next_look.is_some());
    assert!(answer.age >= SECOND / 2, "its age is that of the moment it is told");
    let start = Instant::now();
    let early =
        house.jobs.await_end(&Principal::local(), reference("mind", "c"), SECOND / 20).await.unwrap_err();
    assert_eq!(
        (early.code, start.elapsed()),
        (ProblemCode::TimedOut, SECOND / 20),
        "the first look takes longer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_tracked_job_is_followed_though_nobody_looks() {
    let house = following();
    succeeds_after(&house, SECOND * 30);
    let labels: Labels = [("team".to_owned(), "audit".to_owned())].into();
    let refs = [reference("mind", "a"), reference("mind", "..")];
    let answers = house.jobs.track(&Principal::local(), &refs, &labels).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().observation.job.state(), JobState::Running);
    assert_eq!(answers[1].as_ref().unwrap_err().code, ProblemCode::InvalidRef);
    tokio::time::sleep(SECOND * 60).await;
    let calls = house.mind.calls();
    house.mind.says(|_| Err(LookError::NotFound));
    let held = house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await.unwrap();
    assert_eq!((held.observation.job.state(), house.mind.calls()), (JobState::Succeeded, calls));
    assert_eq!(house.jobs.labels(&held.observation.job.key), Some(labels));
    assert_eq!(house.jobs.untrack(&Principal::local(), &refs).await, 1);
    tokio::time::sleep(FOLLOW.linger + SECOND).await;
    assert_eq!(house.jobs.followed(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_feed_tells_every_change_one_may_see_whoever_looked() {
    let house = following();
    let granted = Principal::new("granted", [jobgate::domain::id::SourceName::parse("mind").unwrap()]);
    let mut feed = house.jobs.feed(granted, JobFilter::default()).boxed();
    let look =
        async |source: &str| house.jobs.lookup_one(&Principal::local(), reference(source, "a"), None).await;
    look("metrics").await.unwrap();
    look("mind").await.unwrap();
    assert_eq!(short(&feed.next().await.unwrap()).1, Ok(JobState::Running));
    tokio::time::sleep(SECOND * 3).await;
    look("mind").await.unwrap();
    house.mind.says(|_| Ok(Life::Succeeded));
    tokio::time::sleep(SECOND * 3).await;
    look("mind").await.unwrap();
    let next = feed.next().await.unwrap();
    assert_eq!(
        short(&next),
        (UpdateKind::Ended, Ok(JobState::Succeeded), None, true),
        "the same again is no change"
    );
}

#[tokio::test(start_paused = true)]
async fn the_feed_tells_an_outage_once_and_its_end_once() {
    let house = following();
    let feed = |filter| house.jobs.feed(Principal::local(), filter).boxed();
    let mut reader = feed(JobFilter::default());
    let mut filtered = feed(JobFilter { states: vec![JobState::Queued], ..JobFilter::default() });
    let mut watcher = watch(&house, &[("mind", "a")]);
    watcher.next().await.unwrap();
    let running = |stale| (UpdateKind::Changed, Ok(JobState::Running), stale, false);
    assert_eq!(next(&mut reader).await, running(None));
    let outage = || LookError::Unavailable(Detail::new("planted"));
    for _ in 0..2 {
        house.mind.says(move |_| Err(outage()));
        let mut unheld = watch(&house, &[("mind", "unheld")]);
        assert_eq!(next(&mut reader).await, running(Some(StaleReason::Unavailable)));
        assert_eq!(unheld.next().await.unwrap().answer.unwrap_err().code, ProblemCode::Unavailable);
        drop(unheld);
        assert!(tokio::time::timeout(SECOND * 60, reader.next()).await.is_err(), "told once");
        house.mind.says(move |id| if id.as_str() == "a" { Ok(Life::Running) } else { Err(outage()) });
        assert_eq!(next(&mut reader).await, running(None));
        assert!(tokio::time::timeout(SECOND * 60, reader.next()).await.is_err(), "told once");
    }
    assert!(tokio::time::timeout(SECOND, filtered.next()).await.is_err(), "the filter holds");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_newest_and_the_end() {
    let house = following();
    let start = Instant::now();
    house.mind.says(move |_| match start.elapsed().as_secs() {
        seconds @ 0..60 if seconds % 2 == 0 => Ok(Life::Running),
        0..60 => Ok(Life::Queued),
        _ => Ok(Life::Succeeded),
    });
    let mut watcher = watch(&house, &[("mind", "a")]);
    let first = watcher.next().await.unwrap();
    tokio::time::sleep(SECOND * 90).await;
    let last = watcher.next().await.unwrap();
    assert_eq!(short(&last), (UpdateKind::Ended, Ok(JobState::Succeeded), None, true));
    assert!(last.sequence > first.sequence + 1, "what was overtaken shows as a gap");
    assert!(watcher.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn newcomers_do_not_put_off_the_next_look() {
    let house = following();
    succeeds_after(&house, SECOND * 6);
    let start = Instant::now();
    let first = watch(&house, &[("mind", "a")]).map(|update| short(&update)).collect::<Vec<_>>();
    let arrivals = async {
        let mut guests = Vec::new();
        for _ in 0..50 {
            tokio::time::sleep(SECOND * 2 / 5).await;
            let refs = vec![reference("mind", "a")];
            let mut guest = house.jobs.watch(Principal::local(), refs, Some(SECOND * 3_600)).boxed();
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
    assert!(guests == 50 && ended < SECOND * 8, "told after {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn who_joins_during_an_outage_is_told_of_it_and_disturbs_nobody() {
    let house = following();
    let mut first = watch(&house, &[("mind", "a")]);
    first.next().await.unwrap();
    house.mind.says(|_| Err(LookError::Unavailable(Detail::new("planted"))));
    assert_eq!(short(&first.next().await.unwrap()).2, Some(StaleReason::Unavailable));
    let mut second = watch(&house, &[("mind", "a")]);
    assert_eq!(short(&second.next().await.unwrap()).2, Some(StaleReason::Unavailable));
    assert!(tokio::time::timeout(SECOND * 60, first.next()).await.is_err(), "no change, no news");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_holds_back_nobody_elses_news() {
    let house = following();
    house.metrics.takes(SECOND * 15);
    succeeds_after(&house, SECOND * 3);
    let start = Instant::now();
    let mut watcher = watch(&house, &[("metrics", "slow"), ("mind", "a")]);
    let told = [watcher.next().await.unwrap(), watcher.next().await.unwrap()].map(|update| short(&update).1);
    assert_eq!(told, [Ok(JobState::Running), Ok(JobState::Succeeded)]);
    assert!(start.elapsed() < SECOND * 6);
}

#[tokio::test(start_paused = true)]
async fn asking_again_for_a_job_that_was_given_up_goes_on() {
    let house = following();
    let refs = [reference("mind", "a")];
    house.jobs.track(&Principal::local(), &refs, &Labels::new()).await.unwrap();
    tokio::time::sleep(FOLLOW.at_most + SECOND * 60).await;
    let calls = house.mind.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(house.mind.calls(), calls, "it was given up");
    let mut watcher = watch(&house, &[("mind", "a")]);
    assert_eq!(
        short(&watcher.next().await.unwrap()),
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false)
    );
    succeeds_after(&house, SECOND * 20);
    assert_eq!(short(&watcher.next().await.unwrap()).0, UpdateKind::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_without_news_is_as_fresh_as_the_last_look() {
    let house = following();
    let answer = house.jobs.await_end(&Principal::local(), reference("mind", "a"), SECOND * 6).await.unwrap();
    assert!(answer.age < SECOND * 2, "{:?}", answer.age);
}
