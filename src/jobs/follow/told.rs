//! What was last told of one followed job, and how an answer or the lack of one changes it.

use std::sync::Arc;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::ports::clock::Reading;
use crate::ports::upstream::LookError;

use crate::jobs::access::not_found;
use crate::jobs::answer::{Answer, Miss, Seen, StaleReason};
use jiff::Timestamp;

/// What was last told of a job.
#[derive(Clone, Debug, Default)]
pub(in crate::jobs) struct Told {
    /// Grows with each change told of this job by this process.
    pub(in crate::jobs) sequence: u64,
    seen: Option<Observation>,
    /// Held, and older than asked for: told if the first look brings nothing.
    older: Option<Observation>,
    trouble: Option<Miss>,
    given_up: Option<ProblemCode>,
    /// How often it was given up.
    endings: u64,
    /// Why it was given up, while it is followed again for someone new and nothing was seen since.
    taken_back: Option<ProblemCode>,
    found: Option<Arc<Found>>,
}

/// The last change that a look found of a job that was known before: for saying how old the news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct Found {
    /// The number under which it was told.
    pub(in crate::jobs) sequence: u64,
    /// When it happened, by the upstream's clock; where that says nothing, when the look before was made.
    pub(in crate::jobs) changed_at: Timestamp,
    /// Whether the upstream said when.
    pub(in crate::jobs) said: bool,
    /// When the look before was made.
    pub(in crate::jobs) looked_before: Timestamp,
    /// When the answer was complete that held it.
    pub(in crate::jobs) at: Timestamp,
}

impl Found {
    fn new(held: &Observation, new: &Observation, sequence: u64) -> Self {
        let said = |seen: &Observation| seen.job.finished_at.or(seen.job.updated_at);
        // a time that did not move with the change is not the change's
        let changed_at = said(new).filter(|at| said(held) != Some(*at));
        Self {
            sequence,
            changed_at: changed_at.unwrap_or(held.asked_at),
            said: changed_at.is_some(),
            looked_before: held.asked_at,
            at: new.observed_at,
        }
    }
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that a watcher would notice, or it was an older answer.
    Nothing,
    /// Something, but not the state.
    Facts,
    /// The state, or this is the first that is known.
    State,
}

impl Told {
    /// Takes in what a look brought: it also ends any trouble. An older answer than the one told changes nothing.
    pub(super) fn observe(&mut self, new: &Observation) -> Change {
        let healed = self.trouble.take().is_some();
        (self.given_up, self.taken_back) = (None, None);
        match self.learn(new) {
            Change::Nothing if healed => {
                self.sequence += 1;
                Change::Facts
            }
            change @ (Change::Nothing | Change::Facts | Change::State) => change,
        }
    }

    /// Takes in what was held. An older answer than the one told changes nothing.
    pub(super) fn learn(&mut self, new: &Observation) -> Change {
        let change = match &self.seen {
            Some(held) if held != new && !new.supersedes(held) => return Change::Nothing,
            Some(held) if held.job.state() != new.job.state() => Change::State,
            Some(held) if !Arc::ptr_eq(&held.job, &new.job) && !held.job.says_the_same(&new.job) => {
                Change::Facts
            }
            Some(_) => Change::Nothing,
            None => Change::State,
        };
        let held = self.seen.replace(new.clone());
        self.older = None;
        self.sequence += u64::from(change != Change::Nothing);
        if let Some(held) = held.filter(|_| change != Change::Nothing) {
            self.found = Some(Arc::new(Found::new(&held, new, self.sequence)));
        }
        change
    }

    /// Takes in what is held while a look is under way that is to renew it: it stands in for what that look does not bring.
    pub(super) fn recall(&mut self, older: &Observation) -> Change {
        if self.seen.is_some() {
            return Change::Nothing;
        }
        if self.trouble.is_some() {
            return self.learn(older);
        }
        self.older = Some(older.clone());
        Change::Nothing
    }

    /// Takes back that it was given up, for those who come from now on. Says whether it was.
    pub(super) fn begin_anew(&mut self) -> bool {
        let was = self.given_up.is_some();
        if was {
            self.taken_back = self.given_up.take();
            // what is known of it is no fresher for being asked for again
            if self.seen.is_none() {
                self.trouble = None;
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
    pub(in crate::jobs) fn found(&self) -> Option<&Found> {
        self.found.as_deref()
    }

    /// Takes in that a look brought nothing. Says whether that is news: the same trouble again is not.
    pub(super) fn miss(&mut self, miss: Miss) -> bool {
        if self.seen.is_none() {
            self.seen = self.older.take();
        }
        let unseen = self.seen.is_none();
        let kind = |miss: &Miss| (miss.stale_reason(), unseen && miss.is_not_found());
        let news = !self.is_over() && self.trouble.as_ref().map(kind) != Some(kind(&miss));
        self.trouble = Some(miss);
        self.sequence += u64::from(news);
        news
    }

    /// Ends the following of a job that has not ended.
    pub(super) fn give_up(&mut self, why: ProblemCode) {
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
        self.seen.is_none() && self.trouble.as_ref().is_some_and(Miss::is_not_found)
    }

    /// Whether the upstream does not find the job any more, and nothing is known of how it ended.
    pub(super) fn has_vanished(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal())
            && self.trouble.as_ref().is_some_and(Miss::is_not_found)
    }

    /// Why what was last seen is stale; `None` where it is not, needs no renewing, or was never seen.
    pub(super) fn stale(&self) -> Option<StaleReason> {
        let open = self.seen.as_ref().is_some_and(|seen| !seen.job.is_terminal());
        self.trouble.as_ref().filter(|_| open).map(Miss::stale_reason)
    }

    /// The state last seen.
    pub(super) fn state(&self) -> Option<JobState> {
        self.seen.as_ref().map(|seen| seen.job.state())
    }

    /// Whether nothing has been learned yet, not even that there is trouble.
    pub(in crate::jobs) fn is_empty(&self) -> bool {
        self.seen.is_none() && self.trouble.is_none() && self.given_up.is_none()
    }

    /// Whether there is no more to tell.
    pub(in crate::jobs) fn is_over(&self) -> bool {
        self.given_up.is_some() || self.state().is_some_and(JobState::is_terminal)
    }

    /// What a client is told who sees no job here: one that nobody knows, or one that this client may not see, told in
    /// the same words. `None` while nothing has been learned.
    pub(in crate::jobs) fn unseen(&self, key: &JobKey) -> Option<Problem> {
        match (&self.seen, &self.trouble, self.given_up) {
            (None, None, None) => None,
            (None, _, Some(code)) if code != ProblemCode::NotFound => Some(given_up(key, code)),
            // What is over is not looked at any more, so no look would end the trouble.
            (Some(_), _, _) if self.is_over() => Some(not_found(key)),
            (_, Some(trouble), _) => Some(trouble.problem(key)),
            (_, None, _) => Some(not_found(key)),
        }
    }

    /// What a client is told who may see the job.
    pub(in crate::jobs) fn answer(&self, key: &JobKey, now: Reading) -> Answer {
        match (&self.seen, &self.trouble, self.given_up) {
            (_, _, Some(code)) => Err(given_up(key, code)),
            (Some(seen), Some(trouble), None) => {
                Ok(Seen::stale(seen.clone(), now, Some(trouble.stale_reason())))
            }
            (Some(seen), None, None) => Ok(Seen::fresh(seen.clone(), now)),
            (None, Some(trouble), None) => Err(trouble.problem(key)),
            (None, None, None) => Err(Miss::Impatient.problem(key)),
        }
    }
}

fn given_up(key: &JobKey, code: ProblemCode) -> Problem {
    if code == ProblemCode::NotFound {
        return Miss::Look(LookError::NotFound).problem(key);
    }
    let message = "the job did not reach a terminal state within poll.max_duration; query or subscribe again";
    Problem::new(code, Retry::Whenever, message)
}
