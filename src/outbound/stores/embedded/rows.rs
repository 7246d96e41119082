//! The first rows of jobs, in the file of the jobs: limited for each job and in total, and removed together with the
//! run that they belong to.

use redb::{ReadableTable as _, Table};

use super::database_error::DatabaseError;
use super::record_lookup::RecordLookup;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::outbound::stores::record;

/// Layout, and the time of the write.
const HEAD: usize = 1 + 8;
/// The layout of what follows the head.
const LAYOUT: u8 = 1;

/// The limits of the rows in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowLimits {
    /// Of one job, in bytes; 0 for none.
    pub per_job: u64,
    /// Of all jobs, in bytes.
    pub max_bytes: u64,
}

/// A range of rows to be written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RowRun {
    pub(super) of: Observation,
    pub(super) first: u32,
    pub(super) kept_ms: i64,
    pub(super) body: Vec<u8>,
}

impl RowRun {
    /// The job of the rows.
    pub(super) fn key(&self) -> &JobKey {
        &self.of.job.key
    }
}

/// The table of rows in a transaction, and the change of its size in bytes.
pub(super) struct RowsTable<'a> {
    pub(super) table: Table<'a, &'static [u8], &'static [u8]>,
    pub(super) change: i64,
}

impl RowsTable<'_> {
    /// Removes all rows of a job.
    pub(super) fn forget(&mut self, job: &[u8]) -> Result<(), DatabaseError> {
        let (from, to) = (place(job, 0), place(job, u32::MAX));
        let mut gone = 0;
        let goes = |key: &[u8], held: &[u8]| {
            gone += size(key, held);
            false
        };
        self.table.retain_in(from.as_slice()..=to.as_slice(), goes).map_err(DatabaseError::of)?;
        self.change -= gone;
        Ok(())
    }

    /// Removes one range.
    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), DatabaseError> {
        let gone = self.table.remove(key).map_err(DatabaseError::of)?;
        self.change -= gone.map_or(0, |gone| size(key, gone.value()));
        Ok(())
    }

    /// Writes a range, if there is space and the file contains the same run of the job.
    pub(super) fn keep(
        &mut self,
        stretch: &RowRun,
        held: &RecordLookup,
        limits: RowLimits,
        in_all: u64,
    ) -> Result<(), DatabaseError> {
        let RowRun { of, first, kept_ms, body } = stretch;
        if !is_of(of, held) {
            return Ok(());
        }
        let job = record::key_bytes(&of.job.key);
        let key = place(&job, *first);
        self.remove(&key)?;
        let mut of_job = 0_i64;
        for entry in self
            .table
            .range(place(&job, 0).as_slice()..=place(&job, u32::MAX).as_slice())
            .map_err(DatabaseError::of)?
        {
            let (key, held) = entry.map_err(DatabaseError::of)?;
            of_job += size(key.value(), held.value());
        }
        let head = [&[LAYOUT], kept_ms.to_be_bytes().as_slice()].concat();
        let sealed = record::seal(&key, &head, body);
        let more = size(&key, &sealed);
        let fits = (of_job + more).cast_unsigned() <= limits.per_job
            && in_all.saturating_add_signed(self.change + more) <= limits.max_bytes;
        if fits {
            self.table.insert(key.as_slice(), sealed.as_slice()).map_err(DatabaseError::of)?;
            self.change += more;
        }
        Ok(())
    }
}

/// Whether the file contains the run that the rows belong to.
pub(super) fn is_of(of: &Observation, held: &RecordLookup) -> bool {
    match held {
        RecordLookup::Held(held) => of.job.state() == JobState::Succeeded && held.job.same_report(&of.job),
        RecordLookup::Nothing | RecordLookup::Damaged => false,
    }
}

/// The key of a range. Those of a job are adjacent, and no key of a job begins with that of another and a zero.
pub(super) fn place(job: &[u8], first: u32) -> Vec<u8> {
    [job, &[0], &first.to_be_bytes()].concat()
}

/// When a range was written.
pub(super) fn kept_ms(held: &[u8]) -> i64 {
    held.get(1..HEAD).and_then(|at| at.try_into().ok()).map_or(0, i64::from_be_bytes)
}

/// The size of a range in bytes.
pub(super) const fn size(key: &[u8], held: &[u8]) -> i64 {
    (key.len() + held.len()).cast_signed() as i64
}

/// The result of looking up a range.
pub(super) enum RowLookup {
    Sound(Vec<u8>),
    Nothing,
    Damaged(Vec<u8>),
}

/// Opens the stored bytes of a range.
pub(super) fn open(key: Vec<u8>, held: &[u8]) -> RowLookup {
    match record::open(&key, held, HEAD) {
        Ok((head, body)) if head.first() == Some(&LAYOUT) => RowLookup::Sound(body.to_vec()),
        Ok(_) => RowLookup::Nothing,
        Err(_) => RowLookup::Damaged(key),
    }
}
