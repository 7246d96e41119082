//! Watches the directories of files, and notifies about any change in one of them; the receiver reads the files to find
//! out what changed. A notification can be lost: a reader that needs certainty also reads on a timer.
//!
//! It watches directories and not files: Kubernetes changes a mounted Secret by swapping the symlink `..data` beside
//! the files, and a watch on a file stays with the old one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// The delay between the first event of a change and its notification: a program that writes a file in place truncates
/// it first.
const SETTLES_IN: Duration = Duration::from_millis(50);

/// The watched directories. Dropping it ends the watch, and the receivers get no more notifications.
#[derive(Debug)]
pub struct FileWatch {
    /// Kept because dropping it ends the watch. `None` where the system provides none.
    _watcher: Option<RecommendedWatcher>,
    changes: watch::Receiver<()>,
}

/// A receiver of changes. Each receiver gets every change.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<()>);

impl FileWatch {
    /// Watches the directories of these files. A directory that cannot be watched is logged and skipped.
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

    /// A receiver of the changes from now on.
    pub fn changes(&self) -> Changes {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        Changes(changes)
    }
}

impl Changes {
    /// Waits for a change, and a moment longer. Never completes where nothing is watched. Cancel safe: a change that
    /// was not returned is returned by the next call.
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

/// Returns whether an event concerns one of the files, or the `..data` that Kubernetes puts beside them. Events of
/// other files in the directory are ignored.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let known = |path: &PathBuf| {
        path.file_name().is_none_or(|name| names.contains(name) || name.as_encoded_bytes().starts_with(b".."))
    };
    // an event without a path reports that events were lost
    event.paths.is_empty() || event.need_rescan() || event.paths.iter().any(known)
}

/// Reading a file changes nothing; treating it as a change would cause a loop.
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

    /// A folder as Kubernetes mounts a Secret, its file, and a watch of it and of a file in no folder. These tests are in
    /// real time, because the events of the system arrive in real time.
    fn watched() -> (PathBuf, PathBuf, FileWatch) {
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
        (folder, file, watch)
    }

    fn swap(folder: &Path) {
        symlink("two", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn symlink_swap_is_reported_to_each_receiver() {
        let (folder, file, watch) = watched();
        let mut receivers = [watch.changes(), watch.changes()];
        swap(&folder);
        for changes in &mut receivers {
            assert!(tokio::time::timeout(Duration::from_mins(2), changes.next()).await.is_ok());
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
        fs::remove_dir_all(folder).ok();
    }

    #[tokio::test]
    async fn reading_and_another_file_are_no_changes() {
        let (folder, file, watch) = watched();
        let mut changes = watch.changes();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1");
        assert!(tokio::time::timeout(SETTLES_IN * 4, changes.next()).await.is_err(), "reading");
        fs::write(folder.join("another"), "3").unwrap();
        assert!(tokio::time::timeout(SETTLES_IN * 4, changes.next()).await.is_err(), "another file");
        fs::remove_dir_all(folder).ok();
    }

    #[tokio::test]
    async fn end_of_the_watch_is_no_change() {
        let (folder, _, watch) = watched();
        let mut changes = watch.changes();
        swap(&folder);
        assert!(tokio::time::timeout(Duration::from_mins(2), changes.next()).await.is_ok());
        drop(watch);
        // one swap causes several events, and the last may be late; if the end of the watch were a change, the loop
        // would never end
        let mut late = 0;
        while tokio::time::timeout(SETTLES_IN * 4, changes.next()).await.is_ok() {
            late += 1;
            assert!(late < 10, "the end of the watch is not a change");
        }
        fs::remove_dir_all(folder).ok();
    }
}
