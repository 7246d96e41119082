//! What was last told of one followed job, and how an answer or the lack of one changes it.

use std::sync::Arc;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::ports::clock::ClockReading;
use crate::ports::upstream::FetchError;

use crate::jobs::answer::{JobSnapshot, LookupError, LookupResult, StaleReason};
use crate::jobs::visibility::not_found;
use jiff::Timestamp;

/// What was last told of a job.
#[derive(Clone, Debug, Default)]
pub(in crate::jobs) struct PublishedState {
    /// Grows with each change told of this job by this process.
    pub(in crate::jobs) sequence: u64,
    seen: Option<Observation>,
    /// Held, and older than asked for: told if the first look brings nothing.
    older: Option<Observation>,
    error: Option<LookupError>,
    given_up: Option<ProblemCode>,
    /// How often it was given up.
    endings: u64,
    /// Why it was given up, while it is followed again for someone new and nothing was seen since.
    taken_back: Option<ProblemCode>,
    found: Option<Arc<DetectedChange>>,
}

/// The last change that a look found of a job that was known before: for saying how old the news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct DetectedChange {
    /// The number under which it was told.
    pub(in crate::jobs) sequence: u64,
    /// When it happened, by the upstream's clock; where that says nothing, when the look before was made.
    pub(in crate::jobs) changed_at: Timestamp,
    /// Whether the upstream said when.
    pub(in crate::jobs) from_upstream: bool,
    /// When the look before was made.
    pub(in crate::jobs) previous_request_at: Timestamp,
    /// When the answer was complete that held it.
    pub(in crate::jobs) at: Timestamp,
}

impl DetectedChange {
    fn new(held: &Observation, new: &Observation, sequence: u64) -> Self {
        let from_upstream = |seen: &Observation| seen.job.finished_at.or(seen.job.updated_at);
        // a time that did not move with the change is not the change's
        let changed_at = from_upstream(new).filter(|at| from_upstream(held) != Some(*at));
        Self {
            sequence,
            changed_at: changed_at.unwrap_or(held.requested_at),
            from_upstream: changed_at.is_some(),
            previous_request_at: held.requested_at,
            at: new.observed_at,
        }
    }
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ObservedChange {
    /// Nothing that a watcher would notice, or it was an older answer.
    Nothing,
    /// Something, but not the state.
    Facts,
    /// The state, or this is the first that is known.
    State,
}

impl PublishedState {
    /// Takes in what a look brought: it also ends any trouble. An older answer than the one told changes nothing.
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

    /// Takes in what was held. An older answer than the one told changes nothing.
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
            self.found = Some(Arc::new(DetectedChange::new(&held, new, self.sequence)));
        }
        change
    }

    /// Takes in what is held while a look is under way that is to renew it: it stands in for what that look does not bring.
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

    /// Takes back that it was given up, for those who come from now on. Says whether it was.
    pub(super) fn restart(&mut self) -> bool {
        let was = self.given_up.is_some();
        if was {
            self.taken_back = self.given_up.take();
            // what is known of it is no fresher for being asked for again
            if self.seen.is_none() {
                self.error = None;
            }
            self.sequence += 1;
        }
        was
    }

    /// What was last seen.
    pub(in crate::jobs) const fn seen(&self) -> Option<&Observation> {
        self.seen.as_ref()
    }

    /// The last change that was found.
    pub(in crate::jobs) fn found(&self) -> Option<&DetectedChange> {
        self.found.as_deref()
    }

    /// Takes in that a look brought nothing. Says whether that is news: the same trouble again is not.
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

    /// Ends the following of a job that has not ended.
    pub(super) fn expire(&mut self, why: ProblemCode) {
        self.given_up = Some(why);
        self.endings += 1;
        self.sequence += 1;
    }

    /// How often it was given up so far.
    pub(super) const fn endings(&self) -> u64 {
        self.endings
    }

    /// The same for someone who came after so many endings: one that was taken back since is theirs all the same.
    pub(super) fn for_one_who_came_after(mut self, endings: u64) -> Self {
        if self.given_up.is_none() && self.endings > endings {
            self.given_up = self.taken_back;
        }
        self
    }

    /// Whether the upstream does not know the job, and never did.
    pub(super) fn is_missing(&self) -> bool {
        self.seen.is_none() && self.error.as_ref().is_some_and(LookupError::is_not_found)
    }

    /// Whether the upstream does not find the job any more, and nothing is known of how it ended.
    pub(super) fn has_vanished(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal())
            && self.error.as_ref().is_some_and(LookupError::is_not_found)
    }

    /// Why what was last seen is stale; `None` where it is not, needs no renewing, or was never seen.
    pub(super) fn stale(&self) -> Option<StaleReason> {
        let open = self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal());
        self.error.as_ref().filter(|_| open).map(LookupError::stale_reason)
    }

    /// The state last seen.
    pub(super) fn state(&self) -> Option<JobState> {
        self.seen.as_ref().map(|seen| seen.job.state())
    }

    /// Whether nothing has been learned yet, not even that there is trouble.
    pub(in crate::jobs) fn is_empty(&self) -> bool {
        self.seen.is_none() && self.error.is_none() && self.given_up.is_none()
    }

    /// Whether there is no more to tell.
    pub(in crate::jobs) fn is_over(&self) -> bool {
        self.given_up.is_some() || self.state().is_some_and(JobState::is_terminal)
    }

    /// What a client is told who sees no job here: one that nobody knows, or one that this client may not see, told in
    /// the same words. `None` while nothing has been learned.
    pub(in crate::jobs) fn unseen(&self, key: &JobKey) -> Option<Problem> {
        match (&self.seen, &self.error, self.given_up) {
            (None, None, None) => None,
            (None, _, Some(code)) if code != ProblemCode::NotFound => Some(given_up(key, code)),
            // What is over is not looked at any more, so no look would end the trouble.
            (Some(_), _, _) if self.is_over() => Some(not_found(key)),
            (_, Some(error), _) => Some(error.problem(key)),
            (_, None, _) => Some(not_found(key)),
        }
    }

    /// What a client is told who may see the job.
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
