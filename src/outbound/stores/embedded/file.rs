//! The database file: where it is, who may read it, who holds it, and what becomes of one that is damaged. What lies in
//! it is `tables`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{Builder, Database};

use super::tables::{self, FORMAT};

/// The database in the configured folder.
const NAME: &str = "jobs.redb";
/// What the database may hold of its own pages in memory; the jobs themselves are held in the near tier.
const PAGES: usize = 32 << 20;

/// Why the store cannot be opened; each names the option to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be made, read or written.
    #[error("store.path: cannot use {}: {reason}; choose a folder that this process may write to", path.display())]
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// Another process holds the file.
    #[error(
        "store.path: {} is in use by another process, most likely a second jobgate with the same store.path: stop it, or \
         give each its own", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is in a form that this version cannot read.
    #[error(
        "store.path: {} has format {found}, and this version reads formats up to {FORMAT}: run the version that wrote it, \
         or choose another path", path.display()
    )]
    PendingCredential {
        /// The file.
        path: PathBuf,
        /// The format that stands in it.
        found: u64,
    },
}

/// What a database could not do, as far as it matters what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DatabaseError {
    /// The file is damaged: it is set aside.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The disk does not take or give what was asked: it is tried again later.
    #[error("the disk fails: {0}")]
    Disk(String),
    /// The file is in a form that this version cannot read.
    #[error("the file has the newer format {0}")]
    PendingCredential(u64),
    /// Another process holds the file.
    #[error("the file is in use by another process")]
    InUse,
}

/// How carefully a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMode {
    /// Every page is checked first: nobody knows what happened to the file since it was closed.
    Full,
    /// As this process left it a moment ago.
    Little,
}

/// A place for a database.
#[derive(Clone, Debug)]
pub(super) struct StorePath {
    folder: PathBuf,
    /// Stands in for a disk that is full, in tests.
    #[cfg(test)]
    pub(super) quota: Option<std::sync::Arc<super::tests::Quota>>,
}

impl StorePath {
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            #[cfg(test)]
            quota: None,
        }
    }

    /// Makes the folder, which nobody but this user may look into.
    pub(super) fn prepare(&self) -> Result<(), OpenError> {
        let unusable = |reason| OpenError::Unusable { path: self.folder.clone(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(unusable)?;
        drop(self.handle().map_err(|reason| OpenError::Unusable { path: self.path(), reason })?);
        Ok(())
    }

    /// Whether there is a file without a byte: no process of ours leaves one behind for longer than it takes to begin it.
    pub(super) fn is_empty(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|file| file.len() == 0)
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// The size of the file in bytes; none for one that is not there.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Opens the database, or makes an empty one, and brings it to the present format.
    pub(super) fn open(&self, care: OpenMode) -> Result<Database, DatabaseError> {
        guarded(|| {
            let file = self.handle().map_err(|error| DatabaseError::of_io(&error))?;
            let mut builder = Builder::new();
            builder.set_cache_size(PAGES).set_check_integrity_on_open(care == OpenMode::Full);
            let backend = FileBackend::new(file).map_err(DatabaseError::of)?;
            #[cfg(test)]
            let backend = super::tests::Limited { backend, quota: self.quota.clone() };
            let database = builder.create_with_backend(backend).map_err(DatabaseError::of)?;
            tables::bring_up_to_date(&database)?;
            Ok(database)
        })
    }

    /// Sets a damaged file aside, beside its place, under the time at which that happened. Says where it is.
    pub(super) fn quarantine(&self, now: Timestamp) -> io::Result<PathBuf> {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        let free = |number: &u32| !self.quarantine_path(&stamp.to_string(), *number).exists();
        let number = (0..1_000).find(free).unwrap_or(0);
        let quarantine_path = self.quarantine_path(&stamp.to_string(), number);
        fs::rename(self.path(), &quarantine_path)?;
        sync(&self.folder);
        Ok(quarantine_path)
    }

    fn quarantine_path(&self, stamp: &str, number: u32) -> PathBuf {
        let number = if number == 0 { String::new() } else { format!("-{number}") };
        self.folder.join(format!("{NAME}.damaged-{stamp}{number}"))
    }

    fn handle(&self) -> io::Result<File> {
        let path = self.path();
        let fresh = !path.exists();
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if fresh {
            sync(&self.folder);
        }
        Ok(file)
    }
}

/// Has the system remember a new name in a folder. A system that cannot is no reason to fail.
fn sync(folder: &Path) {
    File::open(folder).and_then(|folder| folder.sync_all()).ok();
}

/// Runs something on a database whose pages may lie: a panic in there means that they do.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(DatabaseError::Damaged("reading it broke the reader".to_owned())))
}

impl DatabaseError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list is another crate's, and may grow")]
    pub(super) fn of(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error) => Self::of_io(&error),
            error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => Self::Disk(error.to_string()),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            error => Self::Damaged(error.to_string()),
        }
    }

    /// A file that ends where it must not, or does not begin as a database does, is damaged; the rest is the disk's doing.
    fn of_io(error: &io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) {
            Self::Damaged(error.to_string())
        } else {
            Self::Disk(error.to_string())
        }
    }
}
