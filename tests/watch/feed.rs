//! The feed of all jobs: each permitted change once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::watch::{FeedContent, FeedCursor, FeedStart, FeedUpdate, UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};

use super::{SECOND, Short, following, short, watch};
use crate::support::ports::{TestGateway, feed, gateway, reference};

/// What a reader of the feed receives next.
async fn next(feed: &mut (impl Stream<Item = WatchUpdate> + Unpin)) -> Short {
    short(&tokio::time::timeout(SECOND * 600, feed.next()).await.expect("an update").unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_feed_delivers_permitted_changes_found_by_any_lookup() {
    let gateway = following();
    let granted = Principal::new("granted", [jobgate::domain::id::SourceName::parse("mind").unwrap()]);
    let mut feed = feed(&gateway.jobs, granted, JobListFilter::default());
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
    let feed = |filter| feed(&gateway.jobs, Principal::local(), filter);
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

/// An update of the feed in short form: its job and state, or how the feed began.
type ShortFeed = Result<(String, JobState), FeedStart>;

/// What a client received, with the cursor of the last update.
fn received(feed: &mut (impl Stream<Item = FeedUpdate> + Unpin)) -> (Vec<ShortFeed>, Option<FeedCursor>) {
    let (mut received, mut cursor) = (Vec::new(), None);
    while let Some(Some(update)) = feed.next().now_or_never() {
        cursor = Some(update.cursor);
        received.push(match update.content {
            FeedContent::Start(start) => Err(start),
            FeedContent::Change(update) => {
                let job = Arc::clone(&update.answer.unwrap().observation.job);
                Ok((job.key.to_string(), job.state()))
            }
        });
    }
    (received, cursor)
}

/// Reads a job from its upstream in this state.
async fn change(gateway: &TestGateway, source: &str, id: &str, life: Life) {
    for reader in [&gateway.mindbridge, &gateway.supermetrics] {
        let life = life.clone();
        reader.respond_with(move |_| Ok(life.clone()));
    }
    // what was read at this moment is fresh
    tokio::time::advance(Duration::from_millis(1)).await;
    let now = Some(Duration::ZERO);
    gateway.jobs.lookup_one(&Principal::local(), reference(source, id), now).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resumed_feed_has_the_last_missed_state_of_each_job() {
    let gateway = gateway();
    let mut feed = gateway.jobs.feed(Principal::local(), JobListFilter::default(), Some("")).boxed();
    change(&gateway, "metrics", "a", Life::Queued).await;
    let (before, cursor) = received(&mut feed);
    assert_eq!(before, [Err(FeedStart::Reset), Ok(("metrics/a".to_owned(), JobState::Queued))]);
    drop(feed);
    change(&gateway, "metrics", "b", Life::Queued).await;
    change(&gateway, "metrics", "c", Life::Queued).await;
    change(&gateway, "metrics", "b", Life::Running).await;
    let after = cursor.map(|cursor| cursor.to_string());
    let mut feed = gateway.jobs.feed(Principal::local(), JobListFilter::default(), after.as_deref()).boxed();
    change(&gateway, "metrics", "c", Life::Succeeded).await;
    let (missed, _) = received(&mut feed);
    let expected = [
        Err(FeedStart::Resumed),
        Ok(("metrics/b".to_owned(), JobState::Running)),
        Ok(("metrics/c".to_owned(), JobState::Succeeded)),
    ];
    assert_eq!(missed, expected);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_grants_no_access() {
    let gateway = gateway();
    let mut all = gateway.jobs.feed(Principal::local(), JobListFilter::default(), Some("")).boxed();
    let (_, cursor) = received(&mut all);
    for source in ["mind", "metrics"] {
        change(&gateway, source, "a", Life::Running).await;
    }
    let granted = Principal::new("granted", [jobgate::domain::id::SourceName::parse("mind").unwrap()]);
    let after = cursor.unwrap().to_string();
    let mut feed = gateway.jobs.feed(granted, JobListFilter::default(), Some(&after)).boxed();
    let (received, _) = received(&mut feed);
    assert_eq!(received, [Err(FeedStart::Resumed), Ok(("mind/a".to_owned(), JobState::Running))]);
}

/// What a client knows of the jobs, and where it resumes.
#[derive(Default)]
struct FeedClient {
    cursor: String,
    known: BTreeMap<String, JobState>,
}

impl FeedClient {
    fn receive(&mut self, update: FeedUpdate) {
        self.cursor = update.cursor.to_string();
        match update.content {
            FeedContent::Start(start) => assert_eq!(start, FeedStart::Resumed),
            FeedContent::Change(update) => {
                let job = Arc::clone(&update.answer.unwrap().observation.job);
                let before = self.known.insert(job.key.to_string(), job.state());
                assert_ne!(before, Some(job.state()), "twice");
            }
        }
    }
}

/// Whenever a client disconnects, and however slowly it reads: it receives the newest state of each job, and none twice.
#[tokio::test(start_paused = true)]
async fn a_feed_with_interruptions_misses_and_repeats_nothing() {
    for seed in 0..30 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let gateway = gateway();
        let open = |after: &str| {
            gateway.jobs.feed(Principal::local(), JobListFilter::default(), Some(after)).boxed()
        };
        let mut feed = open("");
        let cursor = feed.next().await.unwrap().cursor.to_string();
        let (mut client, mut truth) = (FeedClient { cursor, ..FeedClient::default() }, BTreeMap::new());
        for _ in 0..80 {
            match rng.u8(..10) {
                0..5 => {
                    let id = ["a", "b", "c", "d"][rng.usize(..4)];
                    let (life, state) = match truth.get(&format!("metrics/{id}")) {
                        None => (Life::Queued, JobState::Queued),
                        Some(JobState::Queued) => (Life::Running, JobState::Running),
                        Some(_) => (Life::Succeeded, JobState::Succeeded),
                    };
                    change(&gateway, "metrics", id, life).await;
                    truth.insert(format!("metrics/{id}"), state);
                }
                5..8 => {
                    if let Some(Some(update)) = feed.next().now_or_never() {
                        client.receive(update);
                    }
                }
                _ => feed = open(&client.cursor),
            }
        }
        while let Some(Some(update)) = feed.next().now_or_never() {
            client.receive(update);
        }
        assert_eq!(client.known, truth, "seed {seed}");
    }
}
