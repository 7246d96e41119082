//! Jobs that no client requested: discovered by lists, and shown to the clients that may read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Failure, Life};
use jobgate::domain::principal::{Grant, Principal, Scope};
use jobgate::domain::state::JobState;
use jobgate::domain::sweep::DiscoveryRules;
use jobgate::jobs::list::{JobListFilter, JobOrigin};
use jobgate::jobs::watch::FeedContent;

use super::upstream::Lists;
use super::{Change, Ground, JOBS, MINUTE, Running, SECOND, ends, one_ends, rounds};

const RULES: DiscoveryRules = DiscoveryRules { since: MINUTE.saturating_mul(60), max_jobs: 100 };

/// Two jobs of the kind `ANALYSIS_RUN`, of which one ends after five minutes, and one of another kind.
fn ground(rules: Option<DiscoveryRules>) -> Ground {
    let ground = Ground::new().with_jobs(2, one_ends(1, MINUTE * 5));
    ground.upstream.add("report", ends(MINUTE * 5));
    *ground.upstream.discovery.lock().unwrap() = rules;
    ground
}

/// A client that may read jobs of one kind.
fn restricted() -> Principal {
    let scope = Scope { kinds: BTreeSet::from(["ANALYSIS_RUN".to_owned()]), ..Scope::default() };
    let source = SourceName::parse("mind").unwrap();
    Principal::with_grant("restricted", Grant::Sources(Arc::new(BTreeMap::from([(source, scope)]))))
}

/// A client that may read jobs with a label.
fn labelled() -> Principal {
    let labels = [("team".to_owned(), "blue".to_owned())].into();
    let source = SourceName::parse("mind").unwrap();
    let scope = Scope { labels, ..Scope::default() };
    Principal::with_grant("labelled", Grant::Sources(Arc::new(BTreeMap::from([(source, scope)]))))
}

/// Records the changes that a client receives from the feed.
fn feed(running: &Running, client: Principal) -> Arc<Mutex<Vec<(String, JobState)>>> {
    let received: Arc<Mutex<Vec<_>>> = Arc::default();
    let mut changes = Box::pin(running.gateway.jobs.feed(client, JobListFilter::default(), None));
    let to = Arc::clone(&received);
    let stop = running.stop.clone();
    let reads = async move {
        while let Some(update) = changes.next().await {
            if let FeedContent::Change(update) = update.content
                && let Ok(seen) = update.answer
            {
                let job = &seen.observation.job;
                to.lock().unwrap().push((job.key.external_id.to_string(), job.state()));
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a task of the test")]
    tokio::spawn(async move {
        tokio::select! {
            () = reads => {}
            () = stop.cancelled() => {}
        }
    });
    received
}

#[tokio::test(start_paused = true)]
async fn no_job_is_discovered_by_default() {
    let ground = ground(None);
    let running = ground.start();
    tokio::time::sleep(MINUTE * 10).await;
    assert!(running.listed().await.is_empty());
    assert_eq!(ground.upstream.calls(), (0, 0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unregistered_job_is_discovered_and_followed_by_lists() {
    let ground = ground(Some(RULES));
    let running = ground.start();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Running", "report Running"]);
    tokio::time::sleep(MINUTE * 5).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Succeeded", "report Succeeded"]);
    let (lists, reads) = ground.upstream.calls();
    assert_eq!(reads, 0, "no read by id");
    assert!(lists <= 14, "{lists} lists at the longest interval");
    assert_eq!((running.status().discovered, running.discovers()), (3, true));
    for (origin, expected) in [(JobOrigin::Discovered, 3), (JobOrigin::Requested, 0)] {
        let filter = JobListFilter { origins: vec![origin], ..JobListFilter::default() };
        let page = running.page(&Principal::local(), filter).await;
        assert_eq!((page.jobs.len(), page.total), (expected, expected), "{origin:?}");
        assert!(page.jobs.iter().all(|job| job.origin == origin));
        assert!(page.jobs.iter().all(|job| job.snapshot.stale.is_none()), "the lists keep them current");
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn discovered_jobs_are_hidden_from_clients_without_their_kind() {
    let ground = ground(Some(RULES));
    let running = ground.start();
    let (all, some) = (feed(&running, Principal::local()), feed(&running, restricted()));
    let none = feed(&running, labelled());
    tokio::time::sleep(MINUTE * 6).await;
    assert_eq!(running.listed_for(&restricted()).await, ["j0 Running", "j1 Succeeded"]);
    assert!(all.lock().unwrap().contains(&("report".to_owned(), JobState::Succeeded)));
    let some = some.lock().unwrap().clone();
    assert!(some.contains(&("j1".to_owned(), JobState::Succeeded)));
    assert!(some.iter().all(|(id, _)| id != "report"), "{some:?}");
    assert!(none.lock().unwrap().is_empty() && running.listed_for(&labelled()).await.is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_number_of_discovered_jobs_is_bounded() {
    let ground = ground(Some(DiscoveryRules { max_jobs: 2, ..RULES }));
    let running = ground.start();
    tokio::time::sleep(MINUTE * 6 + SECOND).await;
    assert_eq!(running.listed().await.len(), 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_list_is_shortened_until_it_can_be_read() {
    let ground = ground(Some(RULES));
    *ground.upstream.lists.lock().unwrap() = Lists::TooLongBefore(1_200);
    let running = ground.start();
    tokio::time::sleep(MINUTE * 4).await;
    assert_eq!(
        ground.upstream.calls().0 as u64 - rounds(&ground),
        2,
        "an hour and half an hour are too long"
    );
    assert_eq!(running.listed().await.len(), 3);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_discovered_job_is_verified_by_its_id() {
    let ground = ground(Some(RULES));
    let running = ground.start();
    tokio::time::sleep(MINUTE).await;
    *ground.upstream.lists.lock().unwrap() = Lists::Empty;
    tokio::time::sleep(MINUTE * 10).await;
    assert_eq!(running.listed().await, ["j0 Running", "j1 Succeeded", "report Succeeded"]);
    assert!((1..=3).contains(&ground.upstream.calls().1), "{:?}", ground.upstream.calls());
    tokio::time::sleep(MINUTE * 2).await;
    assert!(!running.status().trusted, "the lists did not contain the ends");
    let reads = ground.upstream.calls().1;
    tokio::time::sleep(MINUTE * 20).await;
    assert!((2..=3).contains(&(ground.upstream.calls().1 - reads)), "the one that runs, also without lists");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn verification_of_discovered_jobs_is_bounded() {
    let ground = Ground::new().with_jobs(950, |_| Vec::new());
    *ground.upstream.discovery.lock().unwrap() = Some(DiscoveryRules { max_jobs: 5_000, ..RULES });
    ground.upstream.per_hour.store(300, Ordering::Relaxed);
    let running = ground.start();
    tokio::time::sleep(MINUTE * 30).await;
    assert_eq!(running.status().verify_interval, MINUTE * 25, "a tenth of 300 calls an hour");
    let before = ground.upstream.calls().1;
    tokio::time::sleep(MINUTE * 60).await;
    let reads = ground.upstream.calls().1 - before;
    assert!((20..=30).contains(&reads), "{reads} reads of up to 100 jobs in an hour");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ran_again_between_two_lists_is_noticed() {
    let ground = Ground::new();
    let change = |second: u32, life| Change { at: MINUTE * 5 + SECOND * second, late: Duration::ZERO, life };
    let failed = Life::Failed(Failure::default());
    ground.upstream.add("j0", [change(0, Life::Succeeded), change(91, Life::Running), change(92, failed)]);
    *ground.upstream.discovery.lock().unwrap() = Some(RULES);
    let running = ground.start();
    tokio::time::sleep(MINUTE * 6).await;
    assert_eq!(running.listed().await, ["j0 Succeeded"]);
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(running.listed().await, ["j0 Failed"]);
    assert_eq!(ground.upstream.calls().1, 0, "by lists alone");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn discovery_that_is_enabled_at_run_time_reaches_back_as_configured() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    ground.upstream.add("report", ends(MINUTE));
    let running = ground.start();
    running.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 40).await;
    assert!(!running.listed().await.contains(&"report Succeeded".to_owned()));
    *ground.upstream.discovery.lock().unwrap() = Some(RULES);
    tokio::time::sleep(MINUTE * 2).await;
    let source = SourceName::parse("mind").unwrap();
    let key = JobKey { source, external_id: ExternalId::parse("report").unwrap() };
    let held = ground.store.get(&[key]).await.unwrap().remove(0);
    assert_eq!(held.map(|held| held.job.state()), Some(JobState::Succeeded));
    assert_eq!(running.status().discovered, 1);
    running.stop().await;
}
