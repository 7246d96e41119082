//! The database file: its path, its permissions, its lock, and the handling of a damaged one. Its content is in
//! `tables`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use redb::backends::FileBackend;
use redb::{Builder, Database};

use super::database_error::{DatabaseError, guarded};
use super::tables::{self, FORMAT};

/// The database in the configured folder.
const NAME: &str = "jobs.redb";
/// The size of the database's own page cache; the jobs themselves are cached in the memory tier.
const PAGES: usize = 32 << 20;

/// Why the store cannot be opened; each message names the option to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be created, read or written.
    #[error("store.path: cannot use {}: {reason}; choose a folder that this process may write to", path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        reason: io::Error,
    },
    /// Another process has the file open.
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
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
    },
}

/// How thoroughly a file is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMode {
    /// Every page is checked first: the file may have been changed since it was closed.
    Full,
    /// As this process left it a moment ago.
    Little,
}

/// The path of a database.
#[derive(Clone, Debug)]
pub(super) struct StorePath {
    folder: PathBuf,
    /// Simulates a full disk, in tests.
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

    /// Creates the folder, with access for this user only.
    pub(super) fn prepare(&self) -> Result<(), OpenError> {
        let unusable = |reason| OpenError::Unusable { path: self.folder.clone(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(unusable)?;
        drop(self.handle().map_err(|reason| OpenError::Unusable { path: self.path(), reason })?);
        Ok(())
    }

    /// Whether the file exists and is empty: a process creates it like that, and does not leave it so.
    pub(super) fn is_empty(&self) -> bool {
        fs::metadata(self.path()).is_ok_and(|file| file.len() == 0)
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// The size of the file in bytes; none if it does not exist.
    pub(super) fn size(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// Opens the database, or creates an empty one, and migrates it to the current format.
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

    /// Renames a damaged file, with the current time in its new name. Returns the new path.
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

/// Makes a new name in a folder durable. A system without this operation is not an error.
fn sync(folder: &Path) {
    File::open(folder).and_then(|folder| folder.sync_all()).ok();
}
