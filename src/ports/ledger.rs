//! What is remembered of following jobs, so that a restart goes on where the process stood: which jobs are tracked and
//! by which labels, and which were followed for someone. What is known *of* a job is the store's business.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::BoxFuture;
use super::store::StoreError;
use crate::domain::durations::{Durations, JobClass};
use crate::domain::id::JobKey;

/// Words that clients put on tracked jobs, by name.
pub type Labels = BTreeMap<String, String>;

/// Everything that was remembered, each list in the order of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerContents {
    /// The tracked jobs with their labels; those that have ended are among them, because they keep their labels.
    pub tracked: Vec<(JobKey, Labels)>,
    /// The jobs that were followed, for whatever reason.
    pub followed: Vec<JobKey>,
}

/// Remembers what is to be followed. One that fails forgets, and never fails a request.
pub trait Ledger: Debug + Send + Sync {
    /// Everything that was remembered. Asked at the start, when a source comes, and by replicas now and then.
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>>;

    /// Remembers tracked jobs with their labels, or with `None` forgets them. Resolves once that would survive a crash; an
    /// error where that cannot be had now.
    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Notes that a job is followed now, or no longer. Written by and by: never waits and never blocks.
    fn follow(&self, key: &JobKey, followed: bool);

    /// What was learned of how long jobs take. Asked once, at the start. Nothing, where it is not kept.
    fn learned(&self) -> BoxFuture<'_, Result<Vec<(JobClass, Durations)>, StoreError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Notes what is known by now of how long some jobs take. Written by and by: never waits and never blocks.
    fn learn(&self, class: &JobClass, durations: &Durations) {
        let _: (&JobClass, &Durations) = (class, durations);
    }
}
