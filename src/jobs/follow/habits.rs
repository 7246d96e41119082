//! How long jobs take, learned from those that were followed, by kind of job. Bounded in kinds; handed to the ledger by and
//! by.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::told::{Change, Told};
use super::{Followed, Following};
use crate::domain::durations::{Durations, Habit};
use crate::domain::job::Job;
use crate::domain::state::JobState;

/// The most kinds of which something is learned, about 500 bytes each.
const HABITS_MAX: usize = 1_000;
/// Names of kinds longer than this are not worth it.
const KIND_MAX: usize = 200;

/// What is known of each kind of job.
#[derive(Debug, Default)]
pub(super) struct Habits {
    known: HashMap<Habit, Arc<Durations>>,
    /// What was learned since the ledger was told.
    news: BTreeSet<Habit>,
}

impl Habits {
    /// What is known of jobs like this one, in the state that it is in.
    pub(super) fn of(&self, job: &Job) -> Option<Arc<Durations>> {
        self.known.get(&Habit::of(job)?).cloned()
    }

    /// Learns how long a job stayed in the state that it was in `before`. One that was lost tells nothing.
    pub(super) fn learn(&mut self, before: &Job, now: JobState, lasted: Duration) {
        if matches!(now, JobState::Expired | JobState::Unknown) {
            return;
        }
        let Some(habit) = Habit::of(before) else { return };
        let known = self.known.contains_key(&habit) || self.known.len() < HABITS_MAX;
        if known && habit.kind.as_ref().is_none_or(|kind| kind.len() <= KIND_MAX) {
            Arc::make_mut(self.known.entry(habit.clone()).or_default()).learn(lasted);
            self.news.insert(habit);
        }
    }

    /// What the ledger has to be told.
    pub(super) fn take_news(&mut self) -> Vec<(Habit, Arc<Durations>)> {
        let news = std::mem::take(&mut self.news).into_iter();
        news.filter_map(|habit| Some((habit.clone(), Arc::clone(self.known.get(&habit)?)))).collect()
    }
}

impl Following {
    /// Takes up what was learned before a restart, unless something was learned since.
    pub(in crate::jobs) fn learned_before(&self, learned: Vec<(Habit, Durations)>) {
        let mut state = self.lock();
        for (habit, durations) in learned.into_iter().take(HABITS_MAX) {
            state.habits.known.entry(habit).or_insert_with(|| Arc::new(durations));
        }
    }
}

impl Followed {
    /// Changes what is told; watchers wake only for a change that they would notice. What a change of state says of the time
    /// that it took is learned: it came between this look and the last.
    pub(super) fn tell(&mut self, habits: &mut Habits, take_in: impl FnOnce(&mut Told) -> Change) {
        let before = self.news.borrow().seen().map(|seen| Arc::clone(&seen.job));
        let mut change = Change::Nothing;
        self.news.send_if_modified(|told| {
            change = take_in(told);
            change != Change::Nothing
        });
        let now = Instant::now();
        if change == Change::State {
            let told = self.news.borrow();
            let seen = told.seen().map(|seen| &*seen.job);
            if let (Some(before), Some(seen)) = (before, seen) {
                let gap = now.duration_since(self.seen_at);
                habits.learn(&before, seen.state(), now.duration_since(self.since).saturating_sub(gap / 2));
            }
            self.learned = seen.and_then(|seen| habits.of(seen));
            self.since = now;
            let state = told.state();
            drop(told);
            self.tally.set(state);
        }
        self.seen_at = now;
    }
}
