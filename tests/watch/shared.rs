//! What the watchers of one job share: the snapshot, while all of its values are the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::JobSnapshot;
use jobgate::jobs::watch::WatchUpdate;

use super::{SECOND, following, succeeds_after, watch};

const MIND: &[(&str, &str)] = &[("mind", "a")];

async fn seen(watcher: &mut (impl Stream<Item = WatchUpdate> + Unpin)) -> Arc<JobSnapshot> {
    watcher.next().await.unwrap().answer.unwrap()
}

#[tokio::test(start_paused = true)]
async fn watchers_of_one_change_share_the_snapshot() {
    let gateway = following();
    succeeds_after(&gateway, SECOND * 10);
    let (mut one, mut other) = (watch(&gateway, MIND), watch(&gateway, MIND));
    for watcher in [&mut one, &mut other] {
        assert_eq!(seen(watcher).await.observation.job.state(), JobState::Running);
    }
    let (first, second) = (seen(&mut one).await, seen(&mut other).await);
    assert_eq!(first.observation.job.state(), JobState::Succeeded);
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test(start_paused = true)]
async fn watcher_that_reads_later_gets_the_age_of_its_reading() {
    let gateway = following();
    succeeds_after(&gateway, SECOND * 10);
    let mut watchers = [(); 3].map(|()| watch(&gateway, MIND));
    for watcher in &mut watchers {
        seen(watcher).await;
    }
    let [one, slow, slower] = &mut watchers;
    let first = seen(one).await;
    for (watcher, wait) in [(slow, 7), (slower, 2)] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let later = seen(watcher).await;
        assert!(!Arc::ptr_eq(&first, &later));
        assert!(later.age >= first.age + Duration::from_millis(wait), "{:?} {:?}", later.age, first.age);
        assert_eq!(later.observed_at, first.observed_at);
    }
}

#[tokio::test(start_paused = true)]
async fn snapshot_of_an_older_poll_is_not_shared() {
    let gateway = following();
    let mut kept = watch(&gateway, MIND);
    let first = seen(&mut kept).await;
    tokio::time::sleep(SECOND * 10).await;
    let second = seen(&mut watch(&gateway, MIND)).await;
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(second.observed_at > first.observed_at, "it was polled again, without a change");
}
