//! Damaged files: the store always starts, reports the damage, and never returns what was not written.

use std::collections::HashMap;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::*;

const JOBS: usize = 30;

/// A small store that was closed properly, its bytes, and its content.
async fn sound() -> (Disk, Vec<u8>, HashMap<JobKey, Observation>) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    let message = |n: usize| Some(format!("why {n} failed: {}", "x".repeat(n * 7)));
    let life = |n: usize| Life::Failed(Failure { code: None, message: message(n) });
    let jobs: Vec<Observation> = (0..JOBS).map(|n| seen(&format!("j{n}"), life(n), 60)).collect();
    for job in &jobs {
        // one commit each: concurrent writes go into a varying number of commits
        store.keep(job.clone()).await;
    }
    store
        .track(vec![(key("s", "j1"), Some(Labels::from([("a".to_owned(), "b".to_owned())])))])
        .await
        .unwrap();
    store.close().await;
    drop(store);
    // compacted, so that the file contains only the current records
    redb::Database::open(disk.file()).unwrap().compact().unwrap();
    let bytes = fs::read(disk.file()).unwrap();
    (disk, bytes, jobs.into_iter().map(|job| (job.job.key.clone(), job)).collect())
}

/// Opens the damaged file and reads all of it: returns how many jobs are left. Fails on anything that was not written.
async fn opened(disk: &Disk, written: &HashMap<JobKey, Observation>, what: &str) -> usize {
    let store = disk.open();
    assert!(store.is_ok(), "{what}: {store:?}");
    let store = store.unwrap();
    let keys: Vec<JobKey> = written.keys().cloned().collect();
    let mut found = 0;
    for (key, read) in keys.iter().zip(store.get(&keys).await.unwrap_or_else(|_| vec![None; keys.len()])) {
        if let Some(read) = read {
            assert_eq!(written.get(key), Some(&read), "{what}");
            found += 1;
        }
    }
    for read in store.list(&ListFilter::default(), None, usize::MAX).await.unwrap_or_default() {
        assert_eq!(written.get(&read.job.key), Some(&read), "{what}");
    }
    for (key, labels) in store.remembered().await.unwrap_or_default().tracked {
        assert_eq!(
            (key.external_id.as_str(), labels.get("a").map(String::as_str)),
            ("j1", Some("b")),
            "{what}"
        );
    }
    let new = seen("new", Life::Succeeded, 1);
    store.keep(new.clone()).await;
    store.memory.jobs.invalidate_all();
    assert_eq!(held(&store, "new").await, Some(new), "{what}: the store keeps working");
    found
}

fn clear(disk: &Disk) {
    for name in disk.files() {
        fs::remove_file(disk.folder.join(name)).unwrap();
    }
}

/// The used parts of the file, as (first, behind the last): most of a small one is unused.
fn used(bytes: &[u8]) -> Vec<(usize, usize)> {
    let pages = bytes.chunks(4_096).enumerate();
    pages
        .filter(|(_, page)| page.iter().any(|byte| *byte != 0))
        .map(|(number, page)| (number * 4_096, number * 4_096 + page.len()))
        .collect()
}

#[tokio::test]
async fn truncated_file_never_prevents_the_start_or_corrupts_answers() {
    let (disk, bytes, written) = sound().await;
    let mut set_aside = 0;
    let end = used(&bytes).last().unwrap().1;
    for number in 0..200 {
        // half of them anywhere, half within the used part
        let length = if number % 2 == 0 { bytes.len() } else { end } * number / 200;
        clear(&disk);
        fs::write(disk.file(), &bytes[..length]).unwrap();
        let found = opened(&disk, &written, &format!("truncated to {length}")).await;
        let quarantined = disk.files().len() - 1;
        assert_eq!(found, if quarantined == 0 && length > 0 { JOBS } else { 0 }, "truncated to {length}");
        set_aside += quarantined;
    }
    assert!(set_aside > 150, "{set_aside}");
}

#[tokio::test]
async fn flipped_bit_never_prevents_the_start_or_corrupts_answers() {
    let (disk, bytes, written) = sound().await;
    let used = used(&bytes);
    let mut random = fastrand::Rng::with_seed(0x6a6f_6267);
    let (mut set_aside, mut harmless) = (0, 0);
    clear(&disk);
    for number in 0..1_000 {
        let (first, behind) = used[number % used.len()];
        let (place, bit) = (random.usize(first..behind), random.u8(0..8));
        if disk.files().len() != 1 || number == 0 {
            clear(&disk);
        }
        fs::write(disk.file(), &bytes).unwrap();
        let mut file = fs::OpenOptions::new().write(true).open(disk.file()).unwrap();
        file.seek(SeekFrom::Start(place as u64)).unwrap();
        file.write_all(&[bytes[place] ^ (1 << bit)]).unwrap();
        drop(file);
        let found = opened(&disk, &written, &format!("bit {bit} of byte {place}")).await;
        match disk.files().len() {
            1 => harmless += usize::from(found == JOBS),
            _ => set_aside += 1,
        }
    }
    // the rest are in unused parts, which no checksum covers
    assert!(set_aside > 150, "{set_aside} set aside, {harmless} harmless");
    assert!(
        set_aside + harmless == 1_000,
        "{set_aside} set aside, {harmless} harmless: some lost jobs without a report"
    );
}

#[tokio::test]
async fn file_that_is_not_a_database_is_quarantined() {
    for text in ["x", "not a database at all", &"x".repeat(100_000)] {
        let disk = Disk::new();
        fs::create_dir_all(&disk.folder).unwrap();
        fs::write(disk.file(), text).unwrap();
        assert_eq!(opened(&disk, &HashMap::new(), text).await, 0);
        let [file, quarantined] = &disk.files()[..] else { panic!("{:?}", disk.files()) };
        assert!(quarantined.starts_with(&format!("{file}.damaged-20231114T22")), "{quarantined}");
        assert_eq!(fs::read_to_string(disk.folder.join(quarantined)).unwrap(), text, "unchanged");
    }
}

/// A store with a valid record of `good`, a damaged one of `bad`, and one of another job as that of `moved`; the page
/// is valid for the database.
async fn with_damaged_records() -> (Disk, EmbeddedStore) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    for id in ["bad", "good", "moved"] {
        store.keep(seen(id, Life::Succeeded, 1)).await;
    }
    {
        let database = store.shared.file.database();
        let transaction = database.as_ref().unwrap().begin_write().unwrap();
        {
            use redb::ReadableTable as _;
            let mut table = transaction.open_table(tables::JOBS).unwrap();
            let [bad, good, moved] = ["bad", "good", "moved"].map(|id| record::key_bytes(&key("s", id)));
            let mut altered = table.get(&bad[..]).unwrap().unwrap().value().to_vec();
            *altered.last_mut().unwrap() ^= 1;
            table.insert(&bad[..], &altered[..]).unwrap();
            let good = table.get(&good[..]).unwrap().unwrap().value().to_vec();
            table.insert(&moved[..], &good[..]).unwrap();
        }
        transaction.commit().unwrap();
    }
    store.memory.jobs.invalidate_all();
    (disk, store)
}

#[tokio::test]
async fn damaged_record_is_a_cache_miss() {
    let (_disk, store) = with_damaged_records().await;
    for (id, there) in [("bad", false), ("good", true), ("moved", false)] {
        assert_eq!(held(&store, id).await.is_some(), there, "{id}");
    }
    assert_eq!(store.list(&ListFilter::default(), None, 9).await.unwrap().len(), 1);
    assert_eq!(store.health().damaged, 2);
}

#[tokio::test]
async fn damaged_record_is_removed() {
    let (_disk, store) = with_damaged_records().await;
    for id in ["bad", "moved"] {
        held(&store, id).await;
    }
    store.shared.flush().await.ok();
    assert_eq!(store.health().jobs, 1);
}

#[tokio::test]
async fn damaged_record_is_replaced_by_any_observation() {
    let (_disk, store) = with_damaged_records().await;
    let new = seen("bad", Life::Failed(Failure::default()), 2);
    assert_eq!(store.keep(new.clone()).await, StoreOutcome::New(None), "whatever was there does not match");
    store.memory.jobs.invalidate_all();
    assert_eq!(held(&store, "bad").await, Some(new));
}

/// A store whose file was found damaged while it was in use, with one job from before that and one from after it.
async fn condemned() -> (Disk, EmbeddedStore, Observation) {
    let disk = Disk::new();
    let store = disk.open().unwrap();
    store.keep(seen("before", Life::Succeeded, 3)).await;
    store.shared.condemn(0, "planted".to_owned());
    let after = seen("after", Life::Succeeded, 2);
    store.keep(after.clone()).await;
    (disk, store, after)
}

/// The content of the memory cache is written to the new file in the background.
#[tokio::test]
async fn file_damaged_while_in_use_is_replaced() {
    let (disk, store, after) = condemned().await;
    assert_eq!((store.health().quarantined, disk.files().len()), (1, 2));
    assert!(held(&store, "before").await.is_some(), "it is still in memory");
    store.memory.jobs.invalidate_all();
    assert_eq!((held(&store, "before").await, held(&store, "after").await), (None, Some(after)));
}

/// Another reader found the same damage, and reports it after the replacement.
#[tokio::test]
async fn damage_that_is_reported_twice_replaces_the_file_once() {
    let (disk, store, after) = condemned().await;
    store.shared.condemn(0, "planted".to_owned());
    store.keep(seen("more", Life::Succeeded, 1)).await;
    assert_eq!((store.health().quarantined, disk.files().len()), (1, 2));
    store.memory.jobs.invalidate_all();
    assert_eq!(held(&store, "after").await, Some(after));
}
