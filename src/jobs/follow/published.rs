//! The published state of one followed job, and how an answer or an error changes it.

use std::sync::Arc;

use jiff::Timestamp;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::ports::clock::ClockReading;
use crate::ports::upstream::FetchError;

use super::last_snapshot::LastSnapshot;
use crate::jobs::answer::{JobSnapshot, LookupError, LookupResult, StaleReason};
use crate::jobs::reference::not_found;

/// The published state of a job.
#[derive(Clone, Debug, Default)]
pub(in crate::jobs) struct PublishedState {
    /// Grows with each change of this job that this process publishes.
    pub(in crate::jobs) sequence: u64,
    seen: Option<Observation>,
    /// Cached, and older than requested: published if the first fetch fails.
    older: Option<Observation>,
    error: Option<LookupError>,
    given_up: Option<ProblemCode>,
    /// The number of times the job has expired.
    endings: u64,
    /// Why it expired, while it is followed again for a new interest and has not been observed since.
    taken_back: Option<ProblemCode>,
    found: Option<Arc<DetectedChange>>,
    /// When a sweep last confirmed the observed state, by the time of its request.
    confirmed_at: Option<Timestamp>,
    last_snapshot: LastSnapshot,
}

/// The last change that a fetch found in a job that was known before; used to measure the delivery lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct DetectedChange {
    /// The sequence number under which it was published.
    pub(in crate::jobs) sequence: u64,
    /// When it happened, by the upstream's clock; if the upstream reports no time, when the previous fetch or sweep was
    /// made.
    pub(in crate::jobs) changed_at: Timestamp,
    /// Whether the upstream reported the time.
    pub(in crate::jobs) from_upstream: bool,
    /// When the previous fetch or sweep was made.
    pub(in crate::jobs) previous_request_at: Timestamp,
    /// When the response that contained it was complete.
    pub(in crate::jobs) at: Timestamp,
}

impl DetectedChange {
    fn new(held: &Observation, new: &Observation, sequence: u64, confirmed_at: Option<Timestamp>) -> Self {
        // A sweep after the held answer had not shown the change.
        let previous = confirmed_at.map_or(held.requested_at, |at| at.max(held.requested_at));
        let previous = previous.min(new.requested_at.max(held.requested_at));
        let from_upstream = |seen: &Observation| seen.job.changed_at();
        // A time that did not move with the change is not the time of the change.
        let changed_at = from_upstream(new).filter(|at| from_upstream(held) != Some(*at));
        Self {
            sequence,
            changed_at: changed_at.unwrap_or(previous),
            from_upstream: changed_at.is_some(),
            previous_request_at: previous,
            at: new.observed_at,
        }
    }
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObservedChange {
    /// Nothing that is visible to a watcher, or it was an older answer.
    Nothing,
    /// Something other than the state.
    Facts,
    /// The state, or this is the first known one.
    State,
}

impl PublishedState {
    /// Applies the result of a fetch, which also clears any error. An answer older than the published one changes
    /// nothing.
    pub(super) fn observe(&mut self, new: &Observation) -> ObservedChange {
        let healed = self.error.take().is_some();
        (self.given_up, self.taken_back) = (None, None);
        match self.learn(new) {
            ObservedChange::Nothing if healed => {
                self.sequence += 1;
                ObservedChange::Facts
            }
            change @ (ObservedChange::Nothing | ObservedChange::Facts | ObservedChange::State) => change,
        }
    }

    /// Applies a cached observation. An answer older than the published one changes nothing.
    pub(super) fn learn(&mut self, new: &Observation) -> ObservedChange {
        let change = match &self.seen {
            Some(held) if held != new && !new.supersedes(held) => return ObservedChange::Nothing,
            Some(held) if held.job.state() != new.job.state() => ObservedChange::State,
            Some(held) if !Arc::ptr_eq(&held.job, &new.job) && !held.job.same_report(&new.job) => {
                ObservedChange::Facts
            }
            Some(_) => ObservedChange::Nothing,
            None => ObservedChange::State,
        };
        let held = self.seen.replace(new.clone());
        self.older = None;
        self.sequence += u64::from(change != ObservedChange::Nothing);
        if let Some(held) = held.filter(|_| change != ObservedChange::Nothing) {
            self.found =
                Some(Arc::new(DetectedChange::new(&held, new, self.sequence, self.confirmed_at.take())));
        }
        change
    }

    /// Applies that a sweep, requested at this time, confirmed the observed state.
    pub(super) fn confirm(&mut self, at: Timestamp) {
        self.confirmed_at = self.confirmed_at.max(Some(at));
    }

    /// Applies a cached observation while a fetch runs to renew it: it is used if that fetch fails.
    pub(super) fn recall(&mut self, older: &Observation) -> ObservedChange {
        if self.seen.is_some() {
            return ObservedChange::Nothing;
        }
        if self.error.is_some() {
            return self.learn(older);
        }
        self.older = Some(older.clone());
        ObservedChange::Nothing
    }

    /// Clears the expiry for new interests. Returns whether the job had expired.
    pub(super) fn restart(&mut self) -> bool {
        let was = self.given_up.is_some();
        if was {
            self.taken_back = self.given_up.take();
            // A new request makes the known state no fresher.
            if self.seen.is_none() {
                self.error = None;
            }
            self.sequence += 1;
        }
        was
    }

    /// The last observation.
    pub(in crate::jobs) const fn seen(&self) -> Option<&Observation> {
        self.seen.as_ref()
    }

    /// The last detected change.
    pub(in crate::jobs) fn found(&self) -> Option<&DetectedChange> {
        self.found.as_deref()
    }

    /// Applies that a fetch failed. Returns whether watchers are notified; a repeated error of the same kind is not
    /// published.
    pub(super) fn record_error(&mut self, error: LookupError) -> bool {
        if self.seen.is_none() {
            self.seen = self.older.take();
        }
        let unseen = self.seen.is_none();
        let kind = |error: &LookupError| (error.stale_reason(), unseen && error.is_not_found());
        let changed = !self.is_over() && self.error.as_ref().map(kind) != Some(kind(&error));
        self.error = Some(error);
        self.sequence += u64::from(changed);
        changed
    }

    /// Stops the following of a job that is not terminal.
    pub(super) fn expire(&mut self, why: ProblemCode) {
        self.given_up = Some(why);
        self.endings += 1;
        self.sequence += 1;
    }

    /// The number of times the job has expired so far.
    pub(super) const fn endings(&self) -> u64 {
        self.endings
    }

    /// The state for an interest that was registered after `endings` expiries: a later expiry applies to it even if it
    /// was cleared since.
    pub(super) fn for_one_who_came_after(mut published: Arc<Self>, endings: u64) -> Arc<Self> {
        if published.given_up.is_none() && published.endings > endings && published.taken_back.is_some() {
            let own = Arc::make_mut(&mut published);
            own.given_up = own.taken_back;
        }
        published
    }

    /// Whether the upstream does not know the job and it was never observed.
    pub(super) fn is_missing(&self) -> bool {
        self.seen.is_none() && self.error.as_ref().is_some_and(LookupError::is_not_found)
    }

    /// Whether the upstream no longer finds the job, and its terminal state is unknown.
    pub(super) fn has_vanished(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal())
            && self.error.as_ref().is_some_and(LookupError::is_not_found)
    }

    /// Why the last observation is stale; `None` if it is not, needs no renewal, or does not exist.
    pub(super) fn stale(&self) -> Option<StaleReason> {
        let open = self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal());
        self.error.as_ref().filter(|_| open).map(LookupError::stale_reason)
    }

    /// The last observed state.
    pub(super) fn state(&self) -> Option<JobState> {
        self.seen.as_ref().map(|seen| seen.job.state())
    }

    /// Whether there is neither an observation nor an error yet.
    pub(in crate::jobs) fn is_empty(&self) -> bool {
        self.seen.is_none() && self.error.is_none() && self.given_up.is_none()
    }

    /// Whether it is followed no more although it is not terminal.
    pub(super) const fn has_expired(&self) -> bool {
        self.given_up.is_some()
    }

    /// Whether no more updates follow.
    pub(in crate::jobs) fn is_over(&self) -> bool {
        self.given_up.is_some() || self.state().is_some_and(JobState::is_terminal)
    }

    /// The problem for a client that sees no job here: one that does not exist, or one that this client may not see, in
    /// the same words. `None` while nothing is known yet.
    pub(in crate::jobs) fn unseen(&self, key: &JobKey) -> Option<Problem> {
        match (&self.seen, &self.error, self.given_up) {
            (None, None, None) => None,
            (None, _, Some(code)) if code != ProblemCode::NotFound => Some(given_up(key, code)),
            // A job that is over is not polled any more, so no poll would clear the error.
            (Some(_), _, _) if self.is_over() => Some(not_found(key)),
            (_, Some(error), _) => Some(error.problem(key)),
            (_, None, _) => Some(not_found(key)),
        }
    }

    /// The snapshot that another watcher received, with the reading of the clock at `now`, if a new one has the same values.
    pub(in crate::jobs) fn shared_snapshot(
        &self,
        now: Timestamp,
    ) -> Option<(Arc<JobSnapshot>, ClockReading)> {
        let observation = self.seen.as_ref().filter(|_| self.given_up.is_none())?;
        self.last_snapshot.at(now, observation, self.stale())
    }

    /// Shares a snapshot of this state with the watchers that follow.
    pub(in crate::jobs) fn share(&self, seen: &Arc<JobSnapshot>) {
        self.last_snapshot.keep(seen);
    }

    /// Shares the last snapshot no more: the time of the next poll has changed.
    pub(super) fn forget_snapshot(&self) {
        self.last_snapshot.clear();
    }

    /// The answer for a client that may see the job.
    pub(in crate::jobs) fn answer(&self, key: &JobKey, now: ClockReading) -> LookupResult {
        match (&self.seen, &self.error, self.given_up) {
            (_, _, Some(code)) => Err(given_up(key, code)),
            (Some(seen), Some(error), None) => {
                Ok(JobSnapshot::stale(seen.clone(), now, Some(error.stale_reason())))
            }
            (Some(seen), None, None) => Ok(JobSnapshot::fresh(seen.clone(), now)),
            (None, Some(error), None) => Err(error.problem(key)),
            (None, None, None) => Err(LookupError::Impatient.problem(key)),
        }
    }
}

fn given_up(key: &JobKey, code: ProblemCode) -> Problem {
    if code == ProblemCode::NotFound {
        return LookupError::Fetch(FetchError::NotFound).problem(key);
    }
    let message = "the job did not reach a terminal state within poll.max_duration; query or subscribe again";
    Problem::new(code, Retry::Whenever, message)
}
