//! Watches the directories of files, and says that something in one of them has changed; what, is for the listener to find out by
//! reading. A hint, never a promise: who needs certainty reads again on a timer as well.
//!
//! Directories and not files: Kubernetes changes a mounted Secret by swapping the symlink `..data` beside the files, and a
//! watch on a file stays with the old one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// How long after the first word of a change it is announced: whoever writes a file in place empties it first.
const SETTLES_IN: Duration = Duration::from_millis(50);

/// The watched directories. Dropping it ends the watch, and the listeners hear nothing any more.
#[derive(Debug)]
pub struct FileWatch {
    /// Held because its end is the end of the watch. `None` where the system has none to give.
    _watcher: Option<RecommendedWatcher>,
    changes: watch::Receiver<()>,
}

/// A listener to changes. Each one hears of every change by itself.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<()>);

impl FileWatch {
    /// Watches the directories of these files. One that cannot be watched is said in the log, and left out.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let files: Vec<&Path> = files.into_iter().collect();
        let names: BTreeSet<OsString> =
            files.iter().filter_map(|file| file.file_name()).map(ToOwned::to_owned).collect();
        let (sender, changes) = watch::channel(());
        let on_event = move |event: notify::Result<Event>| {
            // an error may have lost an event
            if event.map_or(true, |event| changes_something(event.kind) && concerns(&event, &names)) {
                sender.send_replace(());
            }
        };
        let watcher = notify::recommended_watcher(on_event);
        let mut watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::warn!(%error, "file watching unavailable; files are reloaded by the timer only");
                return Self { _watcher: None, changes };
            }
        };
        let directories: BTreeSet<PathBuf> = files.into_iter().map(directory).collect();
        for directory in directories {
            if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                let directory = directory.display();
                tracing::warn!(%directory, %error, "directory watch failed; its files are reloaded by the timer only");
            }
        }
        Self { _watcher: Some(watcher), changes }
    }

    /// A listener, who hears of what changes from now on.
    pub fn changes(&self) -> Changes {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        Changes(changes)
    }
}

impl Changes {
    /// Waits for a change, and a moment longer. Never ends where nothing is watched. Cancel safe: a change that was not
    /// announced is announced by the next call.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.0.mark_changed();
        tokio::time::sleep(SETTLES_IN).await;
        self.0.mark_unchanged();
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Says whether an event is about one of the files, or about what Kubernetes puts beside them (`..data`). A folder can be a
/// busy one, and what happens to its other files is nobody's concern here.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let known = |path: &PathBuf| {
        path.file_name().is_none_or(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
    };
    // without a path it is the word that some were lost
    event.paths.is_empty() || event.need_rescan() || event.paths.iter().any(known)
}

/// Reading a file changes nothing; to take it for a change would be a loop.
fn changes_something(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// In real time, since the system's word comes in real time.
    #[tokio::test]
    async fn symlink_swap_is_reported_and_reading_is_not() {
        let folder = std::env::temp_dir().join(format!("jobgate-watched-{:x}", fastrand::u64(..)));
        for (round, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir_all(folder.join(round)).unwrap();
            fs::write(folder.join(round).join("file"), text).unwrap();
        }
        symlink("one", folder.join("..data")).unwrap();
        symlink("..data/file", folder.join("file")).unwrap();
        let file = folder.join("file");
        let nowhere = folder.join("no/such/folder/file");
        let watch = FileWatch::new([file.as_path(), nowhere.as_path()]);
        let (mut one, mut other) = (watch.changes(), watch.changes());
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        assert!(tokio::time::timeout(SETTLES_IN * 4, one.next()).await.is_err(), "reading is no change");
        fs::write(folder.join("another"), "3").unwrap();
        assert!(tokio::time::timeout(SETTLES_IN * 4, one.next()).await.is_err(), "nor is another file");
        symlink("two", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        for changes in [&mut one, &mut other] {
            let notified = tokio::time::timeout(Duration::from_mins(2), changes.next()).await;
            assert!(notified.is_ok(), "each listener hears of it");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        drop(watch);
        // the swap is several words of the system, and the last may come late; an end that were one would be heard for ever
        let mut late = 0;
        while tokio::time::timeout(SETTLES_IN * 4, one.next()).await.is_ok() {
            late += 1;
            assert!(late < 10, "the end of the watch is no change");
        }
        fs::remove_dir_all(folder).ok();
    }
}
