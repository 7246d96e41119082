//! The access check of all inbound adapters: resolves a client's reference, and decides whether the client may read the
//! job.
//!
//! It is made twice. Before a lookup it covers what is known then: source, watch token and labels. It is repeated for
//! each answer, cached or fetched, because only the answer contains the kind of a job. A job that the client may not
//! read is answered as if it did not exist.

use std::sync::Arc;

use super::answer::LookupResult;
use super::list::filter::JobListFilter;
pub use super::reference::{RequestedRef, WrittenRef};
use super::reference::{invalid, not_found};
use super::sources::{Readers, SourcesByName};
use super::tracked_jobs::TrackedJobs;
use crate::domain::error::Problem;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::job::Job;
use crate::domain::observation::Observation;
use crate::domain::principal::{Principal, SourceGrant};
use crate::domain::upstream::Profile;
use crate::domain::viewer::ViewerGrant;
use crate::ports::clock::ClockReading;
pub use crate::ports::identity::AuthError;
use crate::ports::ledger::Labels;
use crate::ports::upstream::JobReader;

/// A checked reference: a job that this client may request, and the reader of its source.
#[derive(Clone, Debug)]
pub(super) struct CheckedRef {
    pub(super) key: JobKey,
    pub(super) reader: Arc<dyn JobReader>,
}

/// Checks the references of a request. What is known of a source is looked up once for references in a row.
#[derive(Debug)]
pub(super) struct RefChecker<'a> {
    visibility: &'a Visibility,
    sources: &'a SourcesByName,
    principal: &'a Principal,
    last: Option<(&'a SourceName, CheckedSource<'a>)>,
}

/// A configured source that the client's grant contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckedSource<'a> {
    pub(super) reader: &'a Arc<dyn JobReader>,
    pub(super) grant: SourceGrant<'a>,
    profile: &'static Profile,
}

/// A client with a watch token can read and watch, but not change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("watch tokens are read-only; use a client key")]
pub struct WatchOnly;

/// Checks whether the client may change the gateway's state, for the jobs that it may read.
///
/// # Errors
/// When the client uses a watch token.
pub(super) fn may_change(principal: &Principal) -> Result<(), WatchOnly> {
    if principal.only_watches() { Err(WatchOnly) } else { Ok(()) }
}

/// Decides what each client may read.
#[derive(Debug)]
pub(super) struct Visibility {
    readers: Arc<Readers>,
    tracked: Arc<TrackedJobs>,
}

impl Visibility {
    pub(super) const fn new(readers: Arc<Readers>, tracked: Arc<TrackedJobs>) -> Self {
        Self { readers, tracked }
    }

    /// Parses a reference and checks the grant, as far as that is possible without an answer. Makes no call.
    pub(super) fn resolve(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
    ) -> Result<CheckedRef, Problem> {
        let sources = self.sources();
        let (key, source) = self.ref_checker(&sources, principal).resolve(reference)?;
        Ok(CheckedRef { key: key.clone(), reader: Arc::clone(source.reader) })
    }

    /// A checker for the references of a request. All are checked by the same sources, also if they change meanwhile.
    pub(super) const fn ref_checker<'a>(
        &'a self,
        sources: &'a SourcesByName,
        principal: &'a Principal,
    ) -> RefChecker<'a> {
        RefChecker { visibility: self, sources, principal, last: None }
    }

    /// The sources at this moment.
    pub(super) fn sources(&self) -> Arc<SourcesByName> {
        self.readers.all()
    }

    /// The same for a change: with a watch token it always fails.
    pub(super) fn resolve_to_change(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
    ) -> Result<CheckedRef, Problem> {
        let target = self.resolve(principal, reference)?;
        may_change(principal).map_err(|_| not_found(&target.key))?;
        Ok(target)
    }

    /// Returns whether a client may read a job, based on all that is known of it.
    pub(super) fn may_see(&self, principal: &Principal, job: &Job) -> bool {
        principal.source_grant(&job.key.source).is_some_and(|grant| self.may_see_by(grant, job))
    }

    /// The same by the client's grant for the source of the job.
    pub(super) fn may_see_by(&self, grant: SourceGrant<'_>, job: &Job) -> bool {
        grant.scope().is_none_or(|scope| scope.admits_kind(job.kind())) && self.may_request(grant, &job.key)
    }

    /// The grant of a client that shows a job to it; `None` if none does.
    pub(super) fn grant_showing(&self, principal: &Principal, job: &Job) -> Option<ViewerGrant> {
        if self.may_see(principal, job) { ViewerGrant::of(principal, &job.key.source) } else { None }
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

    /// Whether a job matches a filter.
    pub(super) fn matches(
        &self,
        filter: &JobListFilter,
        observation: &Observation,
        now: ClockReading,
    ) -> bool {
        filter.matches(observation, &self.tracked, now)
    }

    /// Whether a job is tracked and has all of the given labels.
    pub(super) fn carries(&self, key: &JobKey, labels: &Labels) -> bool {
        self.tracked.carries(key, labels)
    }

    /// Whether the source of a job was removed from the configuration.
    pub(super) fn is_removed(&self, key: &JobKey) -> bool {
        !self.readers.contains_key(&key.source)
    }

    /// Returns whether a client may request a job of a source: checks its watch token, and the labels it is restricted to.
    fn may_request(&self, grant: SourceGrant<'_>, key: &JobKey) -> bool {
        grant.admits_key(key) && grant.scope().is_none_or(|scope| self.carries(key, &scope.labels))
    }
}

impl<'a> RefChecker<'a> {
    /// Parses a reference and checks the grant, as far as that is possible without an answer. Nothing is copied, since
    /// threads that answer for the same jobs would wait for each other's counts of references.
    pub(super) fn resolve(
        &mut self,
        reference: &'a RequestedRef,
    ) -> Result<(&'a JobKey, CheckedSource<'a>), Problem> {
        let key = reference.key()?;
        let source = self.source(&key.source).filter(|source| self.visibility.may_request(source.grant, key));
        let Some(source) = source else { return Err(not_found(key)) };
        (source.profile.check_id)(&key.external_id).map_err(|error| invalid("externalId", error))?;
        Ok((key, source))
    }

    /// The configured source of this name, if the client's grant contains it. Looked up once for names in a row.
    fn source(&mut self, name: &'a SourceName) -> Option<CheckedSource<'a>> {
        if let Some((last, source)) = self.last
            && last == name
        {
            return Some(source);
        }
        let reader = self.sources.get(name)?;
        let grant = self.principal.source_grant(name)?;
        let source = CheckedSource { reader, grant, profile: reader.upstream().profile() };
        self.last = Some((name, source));
        Some(source)
    }
}
