//! The ledger of followed jobs, so that a restart resumes them: which jobs are tracked, with their labels, and which
//! were followed for other reasons. Observations are kept in the store.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::BoxFuture;
use super::leases::FencingToken;
use super::store::StoreError;
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::{JobKey, SourceName};
use crate::domain::sweep::SweepRecord;

/// The labels that clients set on tracked jobs, by name.
pub type Labels = BTreeMap<String, String>;

/// The contents of the ledger, each list in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerContents {
    /// The tracked jobs with their labels, including terminal ones, because they keep their labels.
    pub tracked: Vec<(JobKey, Labels)>,
    /// The jobs that were followed, for any reason.
    pub followed: Vec<JobKey>,
}

/// Records which jobs to follow. A failure loses the record, and never fails a request.
pub trait Ledger: Debug + Send + Sync {
    /// Everything that is recorded. Read at the start, when a source is added, and by replicas at intervals.
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>>;

    /// Records tracked jobs with their labels, or deletes them with `None`. Resolves once the change would survive a
    /// crash; returns an error if that is not possible now.
    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Records that a job is followed, or no longer is. Written in the background: never waits and never blocks.
    fn follow(&self, key: &JobKey, followed: bool);

    /// The recorded duration statistics. Read once, at the start. Empty if they are not persistent.
    fn learned(&self) -> BoxFuture<'_, Result<Vec<(JobClass, Durations)>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Records the present duration statistics of some jobs. Written in the background: never waits and never blocks.
    fn learn(&self, class: &JobClass, durations: &Durations) {
        let _: (&JobClass, &Durations) = (class, durations);
    }

    /// What is recorded of the sweeps of a source, by this process or another replica. `lease` is the lease on them. `None`
    /// if nothing is recorded, or if it is not persistent.
    fn sweep<'a>(&'a self, lease: &'a JobKey) -> BoxFuture<'a, Result<Option<SweepRecord>, StoreError>> {
        let _: &JobKey = lease;
        Box::pin(async { Ok(None) })
    }

    /// Records the sweeps of a source under the fencing token of the lease on them, and keeps the lease. Returns `false` if
    /// that lease was lost: nothing is recorded, because a later lease holder has a newer record. A record that cannot be
    /// written for another reason is lost: the next one replaces it.
    fn note_sweep<'a>(
        &'a self,
        lease: &'a JobKey,
        record: &'a SweepRecord,
        fencing_token: FencingToken,
    ) -> BoxFuture<'a, bool> {
        let _: (&JobKey, &SweepRecord, FencingToken) = (lease, record, fencing_token);
        Box::pin(async { true })
    }

    /// Reports how many jobs of a source this process verifies by id, and returns how many all replicas verify, as far as
    /// is known.
    fn share_verified<'a>(&'a self, source: &'a SourceName, jobs: u64) -> BoxFuture<'a, u64> {
        let _: &SourceName = source;
        Box::pin(std::future::ready(jobs))
    }
}
