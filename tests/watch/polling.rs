//! When a job is polled: for how long, how often, and by which watcher.

use futures_util::future::join_all;
use futures_util::stream::StreamExt as _;
use jobgate::domain::error::ProblemCode;
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::FollowSettings;
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::watch::UpdateKind;
use jobgate::ports::upstream::FetchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{SECOND, following, short, succeeds_after, watch};
use crate::support::ports::{FOLLOW, fixture, reference};

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
async fn jobs_that_began_at_different_times_share_their_requests() {
    let gateway = following();
    let mut watchers = Vec::new();
    for number in 0..60 {
        let mut watcher = watch(&gateway, &[("mind", &format!("job{number}"))]);
        watcher.next().await.unwrap();
        watchers.push(watcher);
        tokio::time::sleep(SECOND).await;
    }
    tokio::time::sleep(SECOND * 600).await;
    let before = gateway.mindbridge.batches.lock().unwrap().len();
    tokio::time::sleep(SECOND * 300).await;
    let batches = gateway.mindbridge.batches.lock().unwrap()[before..].to_vec();
    // Each job is due after 24 to 30 seconds, and joins another's request after half of that.
    assert!((10..=26).contains(&batches.len()), "{} requests in five minutes", batches.len());
    for number in 0..60 {
        let id = format!("job{number}");
        let polls = batches.iter().filter(|batch| batch.contains(&id)).count();
        assert!((9..=26).contains(&polls), "{id} was polled {polls} times");
    }
    assert_eq!(watchers.len(), 60, "each job is watched until here");
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
