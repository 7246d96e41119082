//! Errors of the database, classified by what to do about them, and the boundary that turns a panic of its code into one.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A database error, classified by the necessary reaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DatabaseError {
    /// The file is damaged: it is set aside.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// The disk failed: the operation is retried later.
    #[error("the disk fails: {0}")]
    Disk(String),
    /// The file is in a form that this version cannot read.
    #[error("the file has the newer format {0}")]
    NewerFormat(u64),
    /// Another process has the file open.
    #[error("the file is in use by another process")]
    InUse,
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

    /// A file that is truncated, or does not begin like a database, is damaged; other errors are errors of the disk.
    pub(super) fn of_io(error: &io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) {
            Self::Damaged(error.to_string())
        } else {
            Self::Disk(error.to_string())
        }
    }
}

/// Runs a function on a database that may have invalid pages: a panic in it means that they are damaged.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(DatabaseError::Damaged("reading it broke the reader".to_owned())))
}
