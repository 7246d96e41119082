//! The one way an observation enters: compare, keep, publish.
//!
//! What the upstream has forgotten is decided here too, because only a gateway that remembers can tell "expired"
//! from "never was" (`upstreams/supermetrics`, "Expiry").

use std::sync::Arc;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::ports::store::{JobStore, Kept, StoreError};
use crate::ports::turns::{Fence, Turns};
use crate::ports::upstream::{Look, LookError};
use crate::telemetry::limited::LimitedWarning;
use crate::telemetry::meters;

use super::answer::Miss;
use super::feed::Feeds;
use super::follow::Following;

/// What a look came to once it was taken in: the newest truth held, or why there is none.
pub(super) type Landing = Result<Observation, LookError>;

/// Takes observations in.
#[derive(Debug)]
pub(super) struct Ingest {
    store: Arc<dyn JobStore>,
    turns: Arc<dyn Turns>,
    following: Arc<Following>,
    feeds: Arc<Feeds>,
    store_failing: LimitedWarning,
}

impl Ingest {
    pub(super) fn new(
        store: Arc<dyn JobStore>,
        turns: Arc<dyn Turns>,
        following: Arc<Following>,
        feeds: Arc<Feeds>,
    ) -> Self {
        Self { store, turns, following, feeds, store_failing: LimitedWarning::default() }
    }

    /// Takes in what came of looking at one job in one turn, which it ends: keeps it before it is told.
    ///
    /// `None` when that turn was over before: then it is not told, because whoever had the turn since knows better.
    pub(super) async fn take(&self, key: &JobKey, look: Look, fence: Fence) -> Option<Landing> {
        let landing = self.compare_and_keep(key, look, fence).await?;
        self.following.looked(key, landing.as_ref().map_err(|error| Miss::Look(error.clone())));
        Some(landing)
    }

    /// Takes in what another replica has kept. `changed` when it said that this is something new.
    pub(super) fn hear(&self, observation: &Observation, changed: bool) {
        self.following.heard(observation);
        if observation.job.is_terminal() {
            self.feeds.tracking().ended(&observation.job.key);
        }
        if changed {
            self.feeds.publish_once(observation);
        }
    }

    /// Takes in that another replica found no such job.
    pub(super) fn hear_missing(&self, key: &JobKey) {
        self.following.looked(key, Err(Miss::Look(LookError::NotFound)));
    }

    async fn compare_and_keep(&self, key: &JobKey, look: Look, fence: Fence) -> Option<Landing> {
        let Look { asked_at, observed_at, outcome } = look;
        match outcome {
            Ok(job) => self.keep(Observation::new(job, asked_at, observed_at), fence).await.map(Ok),
            // A watched job is remembered by those who watch it, even when the store had to let it go.
            Err(LookError::NotFound) => match self.held(key).await.or_else(|| self.following.seen(key)) {
                Some(held) if held.job.is_terminal() => {
                    self.turns.release(key, fence).await;
                    Some(Ok(held))
                }
                Some(held) => {
                    let expired = Arc::new(held.job.expired());
                    self.keep(Observation::new(expired, asked_at, observed_at), fence).await.map(Ok)
                }
                None => {
                    let noted = self.tolerate(self.store.note_missing_under(key, fence).await);
                    noted.unwrap_or(true).then_some(Err(LookError::NotFound))
                }
            },
            Err(error) => {
                self.turns.release(key, fence).await;
                Some(Err(error))
            }
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
                meters::store_failed();
                if let Some(held_back) = self.store_failing.due() {
                    tracing::warn!(%error, held_back, "job store failed, going on without it");
                }
                None
            }
        }
    }

    async fn keep(&self, new: Observation, fence: Fence) -> Option<Observation> {
        let replaced = match self.tolerate(self.store.keep_under(new.clone(), fence).await) {
            Some(None) => return None,
            Some(Some(Kept::Older(held))) => return Some(held),
            Some(Some(Kept::New(replaced))) => replaced,
            None => None,
        };
        if new.job.is_terminal() {
            self.feeds.tracking().ended(&new.job.key);
        }
        if replaced.is_none_or(|before| !before.job.says_the_same(&new.job)) {
            self.feeds.publish(&new);
        }
        Some(new)
    }
}
