//! Waits for the terminal state of one job.
//!
//! Interest is registered before the job is read, so a terminal state in between is not missed. Whether the client may
//! see the job is checked for every value.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::view::{View, VisibleState};
use crate::domain::error::ProblemCode;
use crate::domain::principal::Principal;
use crate::jobs::answer::LookupResult;
use crate::jobs::authentication::Authentication;
use crate::jobs::cacheability::Freshness;
use crate::jobs::fetch::Ingest;
use crate::jobs::first_requests::NotFoundRetry;
use crate::jobs::follow::FollowRegistry;
use crate::jobs::lookup::{Lookup, RequestedJobs};
use crate::jobs::reference::{RequestedRef, not_found};
use crate::jobs::visibility::{CheckedRef, Visibility};

/// Waits for terminal states.
#[derive(Debug)]
pub(in crate::jobs) struct AwaitTerminal {
    authentication: Arc<Authentication>,
    visibility: Arc<Visibility>,
    lookup: Arc<Lookup>,
    ingest: Arc<Ingest>,
    following: Arc<FollowRegistry>,
    retry: Arc<NotFoundRetry>,
    view: Arc<View>,
    freshness: Arc<Freshness>,
}

impl AwaitTerminal {
    #[expect(clippy::too_many_arguments, reason = "the services that it joins")]
    pub(in crate::jobs) const fn new(
        authentication: Arc<Authentication>,
        visibility: Arc<Visibility>,
        lookup: Arc<Lookup>,
        ingest: Arc<Ingest>,
        following: Arc<FollowRegistry>,
        retry: Arc<NotFoundRetry>,
        view: Arc<View>,
        freshness: Arc<Freshness>,
    ) -> Self {
        Self { authentication, visibility, lookup, ingest, following, retry, view, freshness }
    }

    /// Waits at most `timeout` until a job is terminal, and returns the state reached.
    ///
    /// A job that is not found is waited for as in a watch, since it may have been created a moment ago; an invalid
    /// reference is answered at once. The wait ends when the credential expires; if the credential was revoked
    /// meanwhile, the answer is "no such job". Cancel safe.
    pub(in crate::jobs) async fn wait(
        &self,
        principal: &Principal,
        reference: RequestedRef,
        timeout: Duration,
    ) -> LookupResult {
        let target = self.visibility.resolve(principal, &reference);
        let target = target.map_err(|problem| self.retry.retryable_ref(principal, &reference, problem))?;
        let stood = self.authentication.is_still_valid(principal);
        let holds = self.authentication.time_left(principal).unwrap_or(Duration::MAX);
        let deadline = Instant::now() + timeout.min(self.freshness.rules().answer_within).min(holds);
        let CheckedRef { key, reader } = target;
        let mut interest = self.following.interest(&key, Arc::clone(principal.shared_name()), None);
        let requested = RequestedJobs::from_iter([(key.clone(), reader)]);
        let first = self.lookup.answer(&requested, principal, None);
        match tokio::time::timeout_at(deadline, first).await {
            Ok(answers) => answers.iter().for_each(|answer| self.ingest.apply_answer(&key, answer)),
            Err(_) => self.ingest.apply_timeout(&key),
        }
        // Counted from the delivery to this caller, so that the wait ends at the same time whatever others know of the
        // job.
        let mut missing_until = None;
        loop {
            let published = interest.read();
            if self.visibility.is_removed(&key) {
                return Err(not_found(&key));
            }
            let until = match self.view.of(principal, &published, &key) {
                VisibleState::Seen if published.is_over() => None,
                VisibleState::Nothing | VisibleState::Seen => Some(deadline),
                VisibleState::Unseen(problem) => match problem.code {
                    ProblemCode::FollowLimit => None,
                    ProblemCode::NotFound => {
                        let missing_for = self.following.settings().missing_for;
                        let until = *missing_until.get_or_insert_with(|| Instant::now() + missing_for);
                        Some(deadline.min(until))
                    }
                    ProblemCode::Expired
                    | ProblemCode::InvalidRef
                    | ProblemCode::Throttled
                    | ProblemCode::Unavailable
                    | ProblemCode::TimedOut
                    | ProblemCode::CredentialRejected
                    | ProblemCode::Unconfigured
                    | ProblemCode::BadAnswer
                    | ProblemCode::Internal => Some(deadline),
                },
            };
            // a publisher would copy a state that is held across the wait
            drop(published);
            let waited = match until {
                Some(until) => tokio::time::timeout_at(until, interest.changed()).await.map_err(drop),
                None => Err(()),
            };
            if waited.is_err() {
                // Read again: a poll without a change renews the time of the observation and wakes no watcher.
                let published = interest.read();
                // A credential that was revoked meanwhile gives no access to later states.
                if stood
                    && !self.authentication.is_still_valid(principal)
                    && self.authentication.time_left(principal) != Some(Duration::ZERO)
                {
                    return Err(not_found(&key));
                }
                let waited_it_out = missing_until.is_some_and(|until| until <= Instant::now());
                return match self.view.of(principal, &published, &key) {
                    VisibleState::Unseen(problem) if waited_it_out => Err(problem),
                    VisibleState::Unseen(problem) => Err(self.retry.retryable(principal, &key, problem)),
                    VisibleState::Nothing | VisibleState::Seen => self.view.answer(&published, &key),
                };
            }
        }
    }
}
