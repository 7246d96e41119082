//! The access check of all inbound adapters: resolves a client's reference, and decides whether the client may read the
//! job.
//!
//! It is made twice. Before a lookup it covers what is known then: source, watch token and labels. It is repeated for
//! each answer, cached or fetched, because only the answer contains the kind of a job. A job that the client may not
//! read is answered as if it did not exist.

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

/// A reference to a job, as a client wrote it and before any check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestedRef {
    /// By the opaque id that this gateway issued.
    Id(String),
    /// By source and the upstream's own id.
    External {
        /// The name of a source.
        source: String,
        /// The upstream's own id.
        external_id: String,
    },
}

/// A checked reference: a job that this client may request, and the reader of its source.
#[derive(Clone, Debug)]
pub(super) struct CheckedRef {
    pub(super) key: JobKey,
    pub(super) reader: Arc<dyn JobReader>,
}

/// A client with a watch token can read and watch, but not change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watch tokens are read-only; use a client key")]
pub struct WatchOnly;

impl Jobs {
    /// Checks whether the client may change the gateway's state, for the jobs that it may read.
    ///
    /// # Errors
    /// When the client uses a watch token.
    pub fn may_change(&self, principal: &Principal) -> Result<(), WatchOnly> {
        if principal.only_watches() { Err(WatchOnly) } else { Ok(()) }
    }

    /// The same as [`Jobs::resolve`] for a change: with a watch token it always fails.
    pub(super) fn resolve_to_change(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
    ) -> Result<CheckedRef, Problem> {
        let target = self.resolve(principal, reference)?;
        self.may_change(principal).map_err(|_| not_found(&target.key))?;
        Ok(target)
    }

    /// Parses a reference and checks the grant, as far as that is possible without an answer. Makes no call.
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
    /// Returns whether a client may read a job, based on all that is known of it.
    pub(super) fn may_see(&self, principal: &Principal, job: &Job) -> bool {
        may_see(principal, job, &self.tracking)
    }

    /// Converts an answer for a client: a job that it may not read becomes "not found".
    pub(super) fn visible(&self, principal: &Principal, answer: LookupResult) -> LookupResult {
        match answer {
            Ok(seen) if !self.may_see(principal, &seen.observation.job) => {
                Err(not_found(&seen.observation.job.key))
            }
            answer => answer,
        }
    }
}

/// Returns whether a client may request a job: checks its source, its watch token, and the labels it is restricted to.
fn may_read(principal: &Principal, key: &JobKey, tracking: &TrackingRegistry) -> bool {
    let labelled = || principal.scope(&key.source).is_none_or(|scope| tracking.carries(key, &scope.labels));
    principal.may_read_job(key) && labelled()
}

/// Returns whether a client may read a job, based on all that is known of it.
pub(super) fn may_see(principal: &Principal, job: &Job, tracking: &TrackingRegistry) -> bool {
    let of_kind = || principal.scope(&job.key.source).is_none_or(|scope| scope.admits_kind(job.kind()));
    may_read(principal, &job.key, tracking) && of_kind()
}

/// The same answer for a job that does not exist, a source that does not exist, and a missing grant for either.
pub(super) fn not_found(key: &JobKey) -> Problem {
    let JobKey { source, external_id } = key;
    let message = format!(
        "job \"{external_id}\" of source \"{source}\" does not exist, or this client is not allowed to read it"
    );
    Problem::new(ProblemCode::NotFound, Retry::Never, message)
}

/// The key that a reference names, whether or not the job exists.
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
