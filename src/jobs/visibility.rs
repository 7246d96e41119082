//! The one place every door passes: what a client's reference means, and whether the client may read it.
//!
//! Asked twice. Before anything is done, of what is known by then: source, pass and labels. And of each answer, held or
//! fetched, which alone tells the kind of a job. What is out of reach is answered as if it did not exist.

use std::sync::Arc;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{ExternalId, IdError, JobKey, SourceName};
use crate::domain::job::Job;
use crate::domain::principal::Principal;
use crate::ports::upstream::JobReader;

use super::answer::LookupResult;
use super::tracking::TrackingRegistry;
use super::{Core, Jobs};

pub use crate::ports::identity::AuthError;

/// A reference to a job, as a client wrote it: nothing about it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestedRef {
    /// By the opaque id that this gateway gave out.
    Id(String),
    /// By source and the upstream's own id.
    External {
        /// The name of a source.
        source: String,
        /// The upstream's own id.
        external_id: String,
    },
}

/// A reference that was checked: a job this client may ask about, and who can be asked.
#[derive(Clone, Debug)]
pub(super) struct CheckedRef {
    pub(super) key: JobKey,
    pub(super) reader: Arc<dyn JobReader>,
}

/// Whoever came in with a watch token reads and watches, and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watch tokens are read-only; use a client key")]
pub struct WatchOnly;

impl Jobs {
    /// Says whether the client may change what this gateway does, as far as it may read.
    ///
    /// # Errors
    /// When it came in with a watch token.
    pub fn may_change(&self, principal: &Principal) -> Result<(), WatchOnly> {
        if principal.only_watches() { Err(WatchOnly) } else { Ok(()) }
    }

    /// The same as [`Jobs::resolve`] for whoever means to change something: with a watch token there is nothing to change.
    pub(super) fn resolve_to_change(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
    ) -> Result<CheckedRef, Problem> {
        let target = self.resolve(principal, reference)?;
        self.may_change(principal).map_err(|_| not_found(&target.key))?;
        Ok(target)
    }

    /// Reads a reference and checks the grant, as far as it can be checked without an answer. Makes no call.
    pub(super) fn resolve(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
    ) -> Result<CheckedRef, Problem> {
        let key = key_of(reference)?;
        let reader = self.inner.readers.get(&key.source);
        let Some(reader) = reader.filter(|_| may_read(principal, &key, &self.inner.tracking)) else {
            return Err(not_found(&key));
        };
        reader.upstream().check_id(&key.external_id).map_err(|error| invalid("externalId", error))?;
        Ok(CheckedRef { key, reader })
    }
}

impl Core {
    /// Says whether a client may read a job, all that is known of it considered.
    pub(super) fn may_see(&self, principal: &Principal, job: &Job) -> bool {
        may_see(principal, job, &self.tracking)
    }

    /// An answer as a client may have it: a job out of its reach is none.
    pub(super) fn visible(&self, principal: &Principal, answer: LookupResult) -> LookupResult {
        match answer {
            Ok(seen) if !self.may_see(principal, &seen.observation.job) => {
                Err(not_found(&seen.observation.job.key))
            }
            answer => answer,
        }
    }
}

/// Says whether a client may ask about a job: its source, its pass, and the labels it is held to.
fn may_read(principal: &Principal, key: &JobKey, tracking: &TrackingRegistry) -> bool {
    let labelled = || principal.scope(&key.source).is_none_or(|scope| tracking.carries(key, &scope.labels));
    principal.may_read_job(key) && labelled()
}

/// Says whether a client may read a job, all that is known of it considered.
pub(super) fn may_see(principal: &Principal, job: &Job, tracking: &TrackingRegistry) -> bool {
    let of_kind = || principal.scope(&job.key.source).is_none_or(|scope| scope.admits_kind(job.kind()));
    may_read(principal, &job.key, tracking) && of_kind()
}

/// The one answer for a job that does not exist, a source that does not exist, and either behind a missing grant.
pub(super) fn not_found(key: &JobKey) -> Problem {
    let JobKey { source, external_id } = key;
    let message = format!(
        "job \"{external_id}\" of source \"{source}\" does not exist, or this client is not allowed to read it"
    );
    Problem::new(ProblemCode::NotFound, Retry::Never, message)
}

/// The job that a reference names, whether or not there is one.
pub(super) fn key_of(reference: &RequestedRef) -> Result<JobKey, Problem> {
    match reference {
        RequestedRef::Id(text) => JobKey::from_node_id(text).map_err(|error| invalid("id", error)),
        RequestedRef::External { source, external_id } => Ok(JobKey {
            source: SourceName::parse(source).map_err(|error| invalid("source", error))?,
            external_id: ExternalId::parse(external_id).map_err(|error| invalid("externalId", error))?,
        }),
    }
}

fn invalid(field: &str, error: IdError) -> Problem {
    Problem::new(ProblemCode::InvalidRef, Retry::Never, format!("{field} {error}"))
}
