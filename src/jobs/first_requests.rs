//! When a client first requested an id that is not found: a new job may not be visible yet, so for a while retrying can
//! help.
//!
//! Counted per client: a client must not learn whether another one requested the id before.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::principal::Principal;

use super::cacheability::Freshness;
use super::follow::{FollowRegistry, FollowSettings};
use super::reference::RequestedRef;

/// The maximum number of requests that are remembered, about 300 bytes each. When it is exceeded, the oldest ones are
/// dropped.
const REMEMBERED_MAX: usize = 20_000;

/// A client and the job it requested.
type Request = (Arc<str>, JobKey);

/// The first requests for ids that were not found.
#[derive(Debug, Default)]
struct FirstRequests(Mutex<RequestTimes>);

#[derive(Debug, Default)]
struct RequestTimes {
    first: HashMap<Arc<Request>, Instant>,
    /// In order of arrival.
    order: VecDeque<Arc<Request>>,
}

impl FirstRequests {
    /// Returns how long ago a client first requested an id; zero if this is the first time.
    fn since(&self, client: Arc<str>, key: &JobKey) -> Duration {
        let request = (client, key.clone());
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = remembered.first.get(&request) {
            return first.elapsed();
        }
        if remembered.order.len() >= REMEMBERED_MAX {
            let oldest = remembered.order.pop_front();
            oldest.and_then(|oldest| remembered.first.remove(&oldest));
        }
        let request = Arc::new(request);
        remembered.order.push_back(Arc::clone(&request));
        remembered.first.insert(request, Instant::now());
        Duration::ZERO
    }
}

/// Decides whether a client may retry for a job that is not found.
#[derive(Debug)]
pub(super) struct NotFoundRetry {
    first: FirstRequests,
    freshness: Arc<Freshness>,
    following: Arc<FollowRegistry>,
}

impl NotFoundRetry {
    pub(super) fn new(freshness: Arc<Freshness>, following: Arc<FollowRegistry>) -> Self {
        Self { first: FirstRequests::default(), freshness, following }
    }

    /// The problem for a client: an id that is not found and that the client first requested less than `missing_for`
    /// ago is retryable.
    ///
    /// The delay depends on the configuration only, so that a job that the client may not see is answered like a
    /// missing one.
    pub(super) fn retryable(&self, principal: &Principal, key: &JobKey, problem: Problem) -> Problem {
        if problem.code != ProblemCode::NotFound {
            return problem;
        }
        let FollowSettings { missing_for, pace, .. } = self.following.settings();
        if self.first.since(Arc::clone(principal.shared_name()), key) >= missing_for {
            return problem;
        }
        let again = self.freshness.rules().missing_for.max(pace.fastest).min(missing_for);
        Problem { retry: Retry::After(again), ..problem }
    }

    /// The same for a reference as the client wrote it.
    pub(super) fn retryable_ref(
        &self,
        principal: &Principal,
        reference: &RequestedRef,
        problem: Problem,
    ) -> Problem {
        match reference.key() {
            Ok(key) => self.retryable(principal, key, problem),
            Err(_) => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ExternalId, SourceName};

    fn key(id: &str) -> JobKey {
        JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse(id).unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_first_request() {
        let requests = FirstRequests::default();
        assert_eq!(requests.since("one".into(), &key("a")), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(requests.since("one".into(), &key("a")), Duration::from_secs(7));
        assert_eq!(requests.since("other".into(), &key("a")), Duration::ZERO);
        assert_eq!(requests.since("one".into(), &key("b")), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_first_requests_are_bounded() {
        let requests = FirstRequests::default();
        for number in 0..REMEMBERED_MAX + 10 {
            requests.since("one".into(), &key(&format!("j{number}")));
        }
        let remembered = {
            let remembered = requests.0.lock().unwrap();
            (remembered.first.len(), remembered.order.len())
        };
        assert_eq!(remembered, (REMEMBERED_MAX, REMEMBERED_MAX));
        tokio::time::advance(Duration::from_secs(1)).await;
        let last = key(&format!("j{}", REMEMBERED_MAX + 9));
        assert_eq!(requests.since("one".into(), &last), Duration::from_secs(1), "the newest is remembered");
        assert_eq!(requests.since("one".into(), &key("j0")), Duration::ZERO, "the oldest was dropped");
    }
}
