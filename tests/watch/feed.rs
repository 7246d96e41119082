//! The feed of all jobs: each permitted change once.

use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::list::JobListFilter;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};

use super::{SECOND, Short, following, short, watch};
use crate::support::ports::reference;

/// What a reader of the feed receives next.
async fn next(feed: &mut (impl Stream<Item = WatchUpdate> + Unpin)) -> Short {
    short(&tokio::time::timeout(SECOND * 600, feed.next()).await.expect("an update").unwrap())
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
