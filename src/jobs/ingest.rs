//! The one way an observation enters: compare, keep, publish.
//!
//! What the upstream has forgotten is decided here too, because only a gateway that remembers can tell "expired"
//! from "never was" (`upstreams/supermetrics`, "Expiry").

use std::sync::Arc;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::store::{JobStore, Kept, StoreError};
use crate::ports::upstream::{Look, LookError};
use crate::telemetry::limited::LimitedWarning;

use super::answer::Miss;
use super::feed::Feeds;
use super::follow::Following;

/// What a look came to once it was taken in: the newest truth held, or why there is none.
pub(super) type Landing = Result<Observation, LookError>;

/// Takes observations in.
#[derive(Debug)]
pub(super) struct Ingest {
    store: Arc<dyn JobStore>,
    following: Arc<Following>,
    feeds: Arc<Feeds>,
    store_failing: LimitedWarning,
}

impl Ingest {
    pub(super) fn new(store: Arc<dyn JobStore>, following: Arc<Following>, feeds: Arc<Feeds>) -> Self {
        Self { store, following, feeds, store_failing: LimitedWarning::default() }
    }

    /// Takes in what came of looking at one job: keeps it before it is told.
    pub(super) async fn take(&self, key: &JobKey, look: Look) -> Landing {
        let landing = self.compare_and_keep(key, look).await;
        self.following.looked(key, landing.as_ref().map_err(|error| Miss::Look(error.clone())));
        landing
    }

    async fn compare_and_keep(&self, key: &JobKey, look: Look) -> Landing {
        let Look { asked_at, observed_at, outcome } = look;
        match outcome {
            Ok(job) => Ok(self.keep(Observation::new(job, asked_at, observed_at)).await),
            // A watched job is remembered by those who watch it, even when the store had to let it go.
            Err(LookError::NotFound) => match self.held(key).await.or_else(|| self.following.seen(key)) {
                Some(held) if held.job.is_terminal() => Ok(held),
                Some(held) => {
                    let expired = Arc::new(held.job.expired());
                    Ok(self.keep(Observation::new(expired, asked_at, observed_at)).await)
                }
                None => {
                    self.tolerate(self.store.note_missing(key).await);
                    Err(LookError::NotFound)
                }
            },
            Err(error) => Err(error),
        }
    }

    /// What is held for one job.
    pub(super) async fn held(&self, key: &JobKey) -> Option<Observation> {
        self.held_all(std::slice::from_ref(key)).await.pop().flatten()
    }

    /// What is held for each job: same order, same length. A store that fails is a miss.
    pub(super) async fn held_all(&self, keys: &[JobKey]) -> Vec<Option<Observation>> {
        let held = self.tolerate(self.store.get(keys).await);
        held.unwrap_or_else(|| vec![None; keys.len()])
    }

    /// Takes a store's failure as a miss, with one rate-limited warning.
    pub(super) fn tolerate<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if let Some(held_back) = self.store_failing.due() {
                    tracing::warn!(%error, held_back, "job store failed, going on without it");
                }
                None
            }
        }
    }

    async fn keep(&self, new: Observation) -> Observation {
        let replaced = match self.tolerate(self.store.keep(new.clone()).await) {
            Some(Kept::Older(held)) => return held,
            Some(Kept::New(replaced)) => replaced,
            None => None,
        };
        if new.job.is_terminal() {
            self.feeds.tracking().ended(&new.job.key);
        }
        if replaced.is_none_or(|before| !before.job.says_the_same(&new.job)) {
            self.feeds.publish(&new);
        }
        new
    }
}
