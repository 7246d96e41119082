//! Opening a store: its own file, another process's, a newer one, an older one, or one at an unusable path.

use redb::Database;

use super::*;

fn labels() -> Labels {
    Labels::from([("team".to_owned(), "blue".to_owned())])
}

/// A closed store with two jobs, of which both are tracked, and followed jobs.
async fn closed() -> (Disk, [Observation; 2]) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let jobs = [seen("open", Life::Running, 2), seen("over", Life::Canceled, 1)];
    for job in &jobs {
        store.keep(job.clone()).await;
    }
    let track = [("open", Some(labels())), ("over", Some(Labels::new())), ("never", Some(Labels::new()))];
    store.track(track.map(|(id, labels)| (key("s", id), labels)).to_vec()).await.unwrap();
    store.track(vec![(key("s", "never"), None)]).await.unwrap();
    for (id, followed) in [("open", true), ("over", true), ("over", false), ("other", true)] {
        store.follow(&key("s", id), followed);
    }
    store.close().await;
    (disk, jobs)
}

#[tokio::test]
async fn restart_restores_jobs() {
    let (disk, [open, over]) = closed().await;
    let store = disk.open().unwrap();
    assert_eq!((held(&store, "open").await, held(&store, "over").await), (Some(open), Some(over)));
}

#[tokio::test]
async fn restart_restores_tracked_jobs_with_their_labels() {
    let (disk, _) = closed().await;
    let remembered = disk.open().unwrap().remembered().await.unwrap();
    assert_eq!(remembered.tracked, [(key("s", "open"), labels()), (key("s", "over"), Labels::new())]);
}

#[tokio::test]
async fn restart_restores_followed_jobs() {
    let (disk, _) = closed().await;
    let remembered = disk.open().unwrap().remembered().await.unwrap();
    assert_eq!(remembered.followed, [key("s", "open"), key("s", "other")]);
}

#[tokio::test]
async fn restart_restores_learned_durations() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let classes = [(None, false), (Some("EXPORT"), true), (Some(""), true)].map(|(kind, running)| JobClass {
        source: SourceName::parse("s").unwrap(),
        kind: kind.map(ToOwned::to_owned),
        running,
    });
    let mut learned = Durations::default();
    for class in &classes {
        learned.record(DAY / 5_000);
        store.learn(class, &learned);
    }
    store.close().await;
    drop(store);
    let known = disk.open().unwrap().learned().await.unwrap();
    assert!(known.len() == 3 && classes.iter().all(|class| known.iter().any(|(known, _)| known == class)));
    assert!(known.contains(&(classes[2].clone(), learned)));
}

#[tokio::test]
async fn keeping_in_a_closed_store_is_no_error() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    store.close().await;
    assert_eq!(store.keep(seen("late", Life::Running, 0)).await, StoreOutcome::New(None));
}

#[tokio::test]
async fn first_seen_times_survive_a_restart() {
    let disk = Disk::new();
    let (queued, running) = (seen("a", Life::Queued, 3), seen("a", Life::Running, 2));
    let ended = seen("a", Life::Canceled, 1);
    for (new, first, since) in
        [(&queued, &queued, &queued), (&running, &queued, &running), (&ended, &queued, &ended)]
    {
        let store = disk.open().unwrap();
        store.keep(new.clone()).await;
        store.close().await;
        drop(store);
        let held = held(&disk.open().unwrap(), "a").await.unwrap();
        assert_eq!(held.sightings.first_seen_at, Some(first.observed_at));
        assert_eq!(held.sightings.state_since, Some(since.observed_at));
        assert_eq!(held.sightings.terminal_seen_at, Some(ended.observed_at).filter(|_| held == ended));
    }
}

#[tokio::test]
async fn transitions_survive_a_restart() {
    let disk = Disk::new();
    let mut expected = Vec::new();
    for (life, ago) in [(Life::Queued, 3), (Life::Running, 2), (Life::Canceled, 1)] {
        let new = seen("a", life, ago);
        expected.push((new.job.state(), new.observed_at));
        let store = disk.open().unwrap();
        store.keep(new).await;
        store.close().await;
        drop(store);
        let held = held(&disk.open().unwrap(), "a").await.unwrap();
        let known = held.history.transitions().iter().map(|one| (one.state, one.observed_at));
        assert_eq!(known.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn store_directory_and_file_are_private_to_the_user() {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&disk.folder), mode(&disk.file())), (0o700, 0o600));
    drop(store);
}

#[test]
fn file_in_use_error_names_the_path_and_the_likely_cause() {
    let disk = Disk::new();
    let _first = disk.open().unwrap();
    let second = disk.open().unwrap_err().to_string();
    let expected = format!(
        "store.path: {} is in use by another process, most likely a second jobgate with the same store.path: stop it, or \
         give each its own",
        disk.file().display()
    );
    assert_eq!(second, expected);
}

#[test]
fn file_can_be_opened_once_its_other_user_has_closed_it() {
    let disk = Disk::new();
    let first = disk.open().unwrap();
    assert!(disk.open().is_err());
    drop(first);
    assert!(disk.open().is_ok());
}

#[test]
fn unusable_path_error_names_the_option_and_the_path() {
    let disk = Disk::new();
    fs::write(&disk.folder, "a file where a folder should be").unwrap();
    let message = disk.open().unwrap_err().to_string();
    fs::remove_file(&disk.folder).unwrap();
    let expected = format!("store.path: cannot use {}: ", disk.folder.display());
    assert!(message.starts_with(&expected) && message.ends_with("may write to"), "{message}");
}

/// The tables of a new file with another format number.
fn with_format(disk: &Disk, format: Option<u64>) {
    let database = Database::open(disk.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap();
        for name in ["bytes", "jobs", "format"] {
            meta.remove(name).unwrap();
        }
        if let Some(format) = format {
            meta.insert("format", format).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn newer_format_error_names_both_formats() {
    let disk = Disk::new();
    drop(disk.open().unwrap());
    with_format(&disk, Some(7));
    let message = disk.open().unwrap_err().to_string();
    assert!(message.contains("has format 7, and this version reads formats up to 2"), "{message}");
    assert!(message.starts_with("store.path: "), "{message}");
}

#[tokio::test]
async fn file_of_a_newer_format_is_not_modified() {
    let disk = Disk::new();
    drop(disk.open().unwrap());
    with_format(&disk, Some(7));
    disk.open().unwrap_err();
    assert_eq!(disk.files().len(), 1, "nothing was set aside");
    with_format(&disk, Some(1));
    assert!(disk.open().is_ok(), "nothing was changed");
}

#[tokio::test]
async fn older_format_is_migrated_without_data_loss() {
    let disk = Disk::new();
    let job = seen("j", Life::Succeeded, 1);
    disk.open().unwrap().keep(job.clone()).await;
    with_format(&disk, None);
    let store = disk.open().unwrap();
    assert_eq!(held(&store, "j").await, Some(job));
    assert_eq!(store.health().jobs, 1, "counted again");
    store.keep(seen("k", Life::Succeeded, 1)).await;
    assert_eq!(store.health().jobs, 2);
}

#[tokio::test]
async fn restart_restores_the_sweeps_of_each_source() {
    let disk = Disk::new();
    let lease = |name| JobKey {
        source: SourceName::parse(name).unwrap(),
        external_id: ExternalId::parse("lease").unwrap(),
    };
    let record = SweepRecord { rounds: 7, misses: 2, ..SweepRecord::default() };
    let store = disk.open().unwrap();
    assert_eq!(store.sweep(&lease("s")).await.unwrap(), None, "a file without sweeps");
    assert!(store.note_sweep(&lease("s"), &record, FencingToken::Alone).await);
    assert_eq!(store.sweep(&lease("s")).await.unwrap().as_ref(), Some(&record), "not written yet");
    store.close().await;
    let store = disk.open().unwrap();
    assert_eq!(store.sweep(&lease("s")).await.unwrap(), Some(record));
    assert_eq!(store.sweep(&lease("other")).await.unwrap(), None);
}
