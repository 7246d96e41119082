//! A disk that is full and then has space again: no caller waits or gets an error, and everything is written in the
//! end.

use super::*;

/// Waits for a condition. Attempts to write are up to fifteen seconds apart, and a machine may be slow.
async fn comes(what: &str, is: impl Fn() -> bool + Send + Sync) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_mins(2), wait).await.is_ok(), "{what}");
}

/// A store on a disk of which no byte can be written: a job from before that, and fifty others since.
async fn on_a_full_disk() -> (Disk, EmbeddedStore, Observation, Vec<Observation>) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let before = seen("before", Life::Succeeded, 50);
    store.keep(before.clone()).await;
    disk.quota.0.store(0, Ordering::Relaxed);
    let during: Vec<Observation> = (0..50)
        .map(|n| seen(&format!("d{n}"), if n % 2 == 0 { Life::Succeeded } else { Life::Running }, 40))
        .collect();
    for job in &during {
        assert_eq!(store.keep(job.clone()).await, StoreOutcome::New(None));
    }
    store.track(vec![(key("s", "d1"), Some(Labels::new()))]).await.unwrap_err();
    comes("the store reports that it is degraded", || store.health().degraded).await;
    store.memory.jobs.invalidate_all();
    (disk, store, before, during)
}

#[tokio::test]
async fn pending_writes_of_a_full_disk_are_readable() {
    let (_disk, store, _, during) = on_a_full_disk().await;
    for job in &during {
        let id = job.job.key.external_id.as_str();
        assert_eq!(held(&store, id).await.as_ref(), Some(job));
    }
}

#[tokio::test]
async fn pending_write_is_not_replaced_by_an_older_observation() {
    let (_disk, store, _, during) = on_a_full_disk().await;
    let older = seen("d0", Life::Running, 45);
    assert_eq!(store.keep(older).await, StoreOutcome::Older(during[0].clone()));
}

#[tokio::test]
async fn pending_writes_are_written_once_the_disk_has_space() {
    let (disk, store, before, during) = on_a_full_disk().await;
    disk.quota.0.store(u64::MAX, Ordering::Relaxed);
    comes("it heals", || !store.health().degraded && store.health().unwritten == 0).await;
    drop(store);
    let store = disk.open().unwrap();
    let keys: Vec<JobKey> = during.iter().map(|job| job.job.key.clone()).collect();
    let read: Vec<Observation> = store.get(&keys).await.unwrap().into_iter().flatten().collect();
    assert_eq!(read, during);
    assert_eq!(held(&store, "before").await, Some(before));
    assert_eq!(store.remembered().await.unwrap().tracked.len(), 1);
    assert_eq!((disk.files().len(), store.health().quarantined), (1, 0), "a full disk is not damage");
}

/// A store whose file cannot grow any more, but whose pages can be overwritten: its first records, and the id of the
/// record that did not fit.
async fn filled_up() -> (Disk, EmbeddedStore, Vec<Observation>, String) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let long = |n: usize| Life::Failed(Failure { code: None, message: Some("x".repeat(n)) });
    let old: Vec<Observation> = (0..40).map(|n| seen(&format!("o{n}"), long(1_000), 50)).collect();
    for job in &old {
        store.keep(job.clone()).await;
    }
    disk.quota.0.store(disk.place().size() / 2, Ordering::Relaxed);
    let mut number = 0;
    while !store.health().degraded {
        number += 1;
        assert!(number < 10_000, "the disk never filled up");
        store.keep(seen(&format!("n{number}"), long(20_000), 40)).await;
    }
    store.memory.jobs.invalidate_all();
    (disk, store, old, format!("n{number}"))
}

#[tokio::test]
async fn stored_records_stay_readable_on_a_full_disk() {
    let (_disk, store, old, _) = filled_up().await;
    for job in &old {
        let key = [job.job.key.clone()];
        let read = async {
            loop {
                // while a further attempt to write fails, the file cannot be read until it is opened again
                if let Ok(read) = store.get(&key).await {
                    break read;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let read = tokio::time::timeout(Duration::from_mins(2), read).await;
        assert_eq!(read.expect("it is readable in the end"), [Some(job.clone())]);
    }
}

#[tokio::test]
async fn record_that_did_not_fit_is_written_once_the_disk_has_space() {
    let (disk, store, _, id) = filled_up().await;
    disk.quota.0.store(u64::MAX, Ordering::Relaxed);
    comes("it heals", || !store.health().degraded).await;
    drop(store);
    assert!(held(&disk.open().unwrap(), &id).await.is_some());
}

#[tokio::test]
async fn store_opens_on_a_full_disk_and_recovers() {
    let disk = Disk::new();
    disk.quota.0.store(0, Ordering::Relaxed);
    let store = disk.open().unwrap();
    assert!(store.health().degraded);
    let job = seen("j", Life::Succeeded, 1);
    assert_eq!(store.keep(job.clone()).await, StoreOutcome::New(None));
    disk.quota.0.store(u64::MAX, Ordering::Relaxed);
    comes("it heals", || !store.health().degraded && store.health().unwritten == 0).await;
    drop(store);
    assert_eq!(held(&disk.open().unwrap(), "j").await, Some(job));
}
