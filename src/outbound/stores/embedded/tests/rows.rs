//! The first rows of a job: kept as long as their run, and within their limits.

use redb::ReadableTable as _;

use super::*;

async fn kept(store: &EmbeddedStore, of: &Observation, first: u32) -> Option<String> {
    Some(String::from_utf8(store.rows(of, first).await?).unwrap())
}

/// Writes rows, and waits until they are written.
async fn keep(store: &EmbeddedStore, of: &Observation, first: u32, body: &str) {
    store.keep_rows(of, first, body.as_bytes().to_vec());
    store.track(Vec::new()).await.unwrap();
}

/// A store with two parts of the rows of a completed job.
async fn with_rows() -> (Disk, EmbeddedStore, Observation) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let end = seen("j", Life::Succeeded, 9);
    store.keep(end.clone()).await;
    keep(&store, &end, 0, "first").await;
    keep(&store, &end, 1_000, "second").await;
    (disk, store, end)
}

#[tokio::test]
async fn rows_survive_a_restart() {
    let (disk, store, end) = with_rows().await;
    store.close().await;
    drop(store);
    let store = disk.open().unwrap();
    assert_eq!(kept(&store, &end, 0).await.as_deref(), Some("first"));
    assert_eq!(kept(&store, &end, 1_000).await.as_deref(), Some("second"));
    assert_eq!(kept(&store, &end, 2_000).await, None);
}

#[tokio::test]
async fn rows_of_a_job_that_is_not_in_the_file_are_not_kept() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let end = seen("j", Life::Succeeded, 9);
    keep(&store, &end, 0, "too early").await;
    assert_eq!(kept(&store, &end, 0).await, None);
}

#[tokio::test]
async fn rows_are_kept_while_the_same_terminal_state_is_observed() {
    let (_disk, store, _) = with_rows().await;
    let seen_again = seen("j", Life::Succeeded, 8);
    store.keep(seen_again.clone()).await;
    assert_eq!(kept(&store, &seen_again, 0).await.as_deref(), Some("first"));
}

#[tokio::test]
async fn rows_are_not_returned_for_another_run() {
    let (_disk, store, end) = with_rows().await;
    let mut other = Job::clone(&end.job);
    other.native_state = Some("of another run".to_owned());
    let other = Observation::new(Arc::new(other), end.requested_at, end.observed_at);
    assert_eq!(kept(&store, &other, 0).await, None, "requested by a reader that observed another run");
}

#[tokio::test]
async fn rows_are_removed_when_a_new_run_begins() {
    let (_disk, store, _) = with_rows().await;
    store.keep(seen("j", Life::Running, 7)).await;
    let second = seen("j", Life::Succeeded, 6);
    store.keep(second.clone()).await;
    assert_eq!(kept(&store, &second, 0).await, None, "those of the first run");
    assert_eq!(store.shared.file.counts.row_bytes.load(Ordering::Relaxed), 0);
}

/// A store with the rows of nine jobs, of which five fit.
async fn with_many_rows() -> (Disk, EmbeddedStore, Vec<Observation>) {
    let mut disk = Disk::new();
    disk.rows = RowLimits { per_job: 1_000, max_bytes: 3_000 };
    let store = disk.open().unwrap();
    let jobs: Vec<Observation> =
        (0..9).map(|number| seen(&format!("j{number}"), Life::Succeeded, 9)).collect();
    for job in &jobs {
        store.keep(job.clone()).await;
        keep(&store, job, 0, &"x".repeat(600)).await;
        disk.clock.0.fetch_add(1, Ordering::Relaxed);
    }
    (disk, store, jobs)
}

#[tokio::test]
async fn rows_of_one_job_are_bounded() {
    let (_disk, store, jobs) = with_many_rows().await;
    keep(&store, &jobs[0], 1_000, &"x".repeat(600)).await;
    assert_eq!(kept(&store, &jobs[0], 1_000).await, None);
}

#[tokio::test]
async fn rows_of_all_jobs_are_bounded_to_the_newest() {
    let (_disk, store, jobs) = with_many_rows().await;
    let mut held = 0;
    for job in &jobs {
        held += usize::from(kept(&store, job, 0).await.is_some());
    }
    assert_eq!(held, 4);
    prune::run(&store.shared);
    assert!(kept(&store, &jobs[0], 0).await.is_none(), "the oldest are removed first");
    keep(&store, &jobs[8], 0, &"x".repeat(600)).await;
    assert!(kept(&store, &jobs[8], 0).await.is_some(), "and free space");
    assert!(store.shared.file.counts.row_bytes.load(Ordering::Relaxed) <= 3_000);
}

#[tokio::test]
async fn rows_are_removed_with_their_jobs() {
    let (disk, store, _) = with_many_rows().await;
    disk.clock.0.fetch_add(31 * 86_400, Ordering::Relaxed);
    prune::run(&store.shared);
    assert_eq!(store.shared.file.counts.row_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn damaged_rows_are_skipped_and_removed() {
    let disk = Disk::new();
    let end = seen("j", Life::Succeeded, 9);
    let store = disk.open().unwrap();
    store.keep(end.clone()).await;
    keep(&store, &end, 0, "first").await;
    store.close().await;
    drop(store);
    {
        let database = redb::Database::create(disk.place().path()).unwrap();
        let change = database.begin_write().unwrap();
        {
            let mut table = change.open_table(tables::ROWS).unwrap();
            let (key, mut held) = {
                let (key, held) = table.first().unwrap().unwrap();
                (key.value().to_vec(), held.value().to_vec())
            };
            *held.last_mut().unwrap() ^= 1;
            table.insert(key.as_slice(), held.as_slice()).unwrap();
        }
        change.commit().unwrap();
    }
    let store = disk.open().unwrap();
    assert_eq!(kept(&store, &end, 0).await, None);
    assert_eq!(store.health().damaged, 1);
    store.track(Vec::new()).await.unwrap();
    assert_eq!(kept(&store, &end, 0).await, None);
    assert_eq!(store.health().damaged, 1, "it is removed");
}
