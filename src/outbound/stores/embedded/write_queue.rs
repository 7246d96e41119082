//! The changes that the file does not contain yet: bounded, and readable by job.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::rows::{RowLimits, RowRun};
use super::tables::WriteBatch;
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::sweep::SweepRecord;
use crate::ports::ledger::Labels;

/// The most jobs that wait to be written, about 1 kB each.
const WAITING_MAX: usize = 50_000;
/// The most row ranges that wait to be written.
const ROWS_WAITING_MAX: usize = 32;

/// The pending changes. Those in `behind` are readable; those in `urgent` are not published yet.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    pub(super) behind: BTreeMap<JobKey, Observation>,
    pub(super) tracked: BTreeMap<JobKey, Option<Labels>>,
    pub(super) followed: BTreeMap<JobKey, bool>,
    pub(super) learned: BTreeMap<JobClass, Durations>,
    pub(super) sweeps: BTreeMap<SourceName, SweepRecord>,
    pub(super) rows: Vec<RowRun>,
    pub(super) rows_gone: Vec<Vec<u8>>,
    pub(super) damaged: Vec<JobKey>,
    pub(super) outlived: Vec<Vec<u8>>,
    pub(super) urgent: Vec<Observation>,
    pub(super) waiting: Vec<oneshot::Sender<()>>,
    /// The file that a reader found damaged.
    pub(super) condemned: Option<DamagedFile>,
    pub(super) stop: bool,
}

/// Which file is damaged, identified by how many were set aside before it, and why.
pub(super) type DamagedFile = (u64, String);

impl WriteQueue {
    /// Returns whether the writer must not wait for more changes.
    pub(super) fn is_urgent(&self) -> bool {
        !self.waiting.is_empty() || self.condemned.is_some() || self.stop
    }

    /// Returns whether no change waits in the background.
    pub(super) fn is_empty(&self) -> bool {
        self.behind.is_empty()
            && self.tracked.is_empty()
            && self.followed.is_empty()
            && self.learned.is_empty()
            && self.sweeps.is_empty()
            && self.rows.is_empty()
            && self.rows_gone.is_empty()
            && self.damaged.is_empty()
            && self.outlived.is_empty()
    }

    /// Records that a job is followed, or not any more; skipped if a failing disk has caused a large backlog.
    pub(super) fn mark(&mut self, key: &JobKey, followed: bool) {
        if self.followed.len() < WAITING_MAX || self.followed.contains_key(key) {
            self.followed.insert(key.clone(), followed);
        }
    }

    /// The pending changes as one transaction.
    pub(super) fn batch(&self, row_limits: RowLimits) -> WriteBatch {
        WriteBatch {
            row_limits,
            rows: self.rows.clone(),
            rows_gone: self.rows_gone.clone(),
            jobs: self.behind.values().chain(&self.urgent).cloned().collect(),
            tracked: self.tracked.clone(),
            followed: self.followed.clone(),
            learned: self.learned.clone(),
            sweeps: self.sweeps.clone(),
            damaged: self.damaged.clone(),
            outlived: self.outlived.clone(),
        }
    }

    /// Removes what was written. Changes since then stay.
    pub(super) fn strike(&mut self, written: &WriteBatch) {
        for job in &written.jobs {
            if self.behind.get(&job.job.key).is_some_and(|waits| !waits.supersedes(job)) {
                self.behind.remove(&job.job.key);
            }
        }
        self.tracked.retain(|key, labels| written.tracked.get(key) != Some(labels));
        self.followed.retain(|key, mark| written.followed.get(key) != Some(mark));
        self.learned.retain(|class, durations| written.learned.get(class) != Some(durations));
        self.sweeps.retain(|source, sweep| written.sweeps.get(source) != Some(sweep));
        self.rows.retain(|stretch| !written.rows.contains(stretch));
        self.rows_gone.retain(|key| !written.rows_gone.contains(key));
        self.damaged.retain(|key| !written.damaged.contains(key));
        self.outlived.clear();
    }

    /// Adds an observation to those that are written in the background. Returns false if there are too many of them.
    pub(super) fn put_behind(&mut self, new: Observation) -> bool {
        let room = self.behind.len() < WAITING_MAX || self.behind.contains_key(&new.job.key);
        if room && self.behind.get(&new.job.key).is_none_or(|waits| new.supersedes(waits)) {
            self.behind.insert(new.job.key.clone(), new);
        }
        room
    }

    /// Adds a range of rows, unless too many wait.
    pub(super) fn put_rows(&mut self, stretch: RowRun) {
        if self.rows.len() < ROWS_WAITING_MAX {
            self.rows.push(stretch);
        }
    }

    /// Records that a reader found the file damaged.
    pub(super) fn condemn(&mut self, file: u64, why: String) {
        if self.condemned.as_ref().is_none_or(|(known, _)| *known <= file) {
            self.condemned = Some((file, why));
        }
    }
}
