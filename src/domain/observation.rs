//! An observation: an answer with its times, and the one rule that decides which of two answers is newer.

mod clamp;

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use super::history::{History, Transition};
use super::job::Job;
use super::sightings::Sightings;
use super::state::JobState;

/// A job as reported in one response.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The job, shared between many readers.
    pub job: Arc<Job>,
    /// When the request was sent. For EXPIRED: when the last request that returned this run was sent.
    pub requested_at: Timestamp,
    /// When the response was complete. Never before `requested_at`.
    pub observed_at: Timestamp,
    /// How many rollbacks of the upstream had been accepted for this job when this response arrived. An observation
    /// with more of them is newer, whatever its counter is, because the counter itself was set back.
    pub rollbacks: u32,
    /// When this run and its state were first observed: carried along, not a part of the answer.
    pub sightings: Sightings,
    /// The transitions up to this observation: carried along, not a part of the answer. Empty for an answer that did not
    /// replace another one yet.
    pub history: History,
}

impl PartialEq for Observation {
    /// Two observations of one answer are equal, whatever else was observed of its run.
    fn eq(&self, other: &Self) -> bool {
        let Self { job, requested_at, observed_at, rollbacks, sightings: _, history: _ } = self;
        (job, requested_at, observed_at, rollbacks)
            == (&other.job, &other.requested_at, &other.observed_at, &other.rollbacks)
    }
}

impl Observation {
    /// An answer with the times of its request and response. If the clock stepped back in between, both are equal.
    pub fn new(job: Arc<Job>, requested_at: Timestamp, observed_at: Timestamp) -> Self {
        let observed_at = observed_at.max(requested_at);
        let sightings = Sightings::first(job.state(), observed_at);
        Self { job, requested_at, observed_at, rollbacks: 0, sightings, history: History::default() }
    }

    /// The same run, deleted by its upstream before a terminal state of it was observed.
    ///
    /// EXPIRED contains no information about a later run, so it has the position of `self` in the order, whenever it
    /// was detected.
    #[must_use]
    pub fn expired(&self, observed_at: Timestamp) -> Self {
        let expired = Self::new(Arc::new(self.job.expired()), self.requested_at, observed_at);
        Self { rollbacks: self.rollbacks, ..expired }
    }

    /// The same answer, received after this many accepted rollbacks.
    #[must_use]
    pub fn after_rollbacks(self, rollbacks: u32) -> Self {
        Self { rollbacks, ..self }
    }

    /// This observation as a replacement of the held one: it inherits the times at which its run and its state were
    /// first observed, and its transitions.
    #[must_use]
    pub fn replacing(self, held: Option<&Self>) -> Self {
        let history = self.history_after(held);
        let sightings = held.map_or(self.sightings, |held| {
            self.sightings.replacing(self.job.state(), held.sightings, held.job.state())
        });
        Self { sightings, history, ..self }
    }

    /// The same observation, with the transitions that another observer recorded of the same job before.
    #[must_use]
    pub fn with_history_of(self, earlier: &Self) -> Self {
        let history = earlier.history.merged(&self.history);
        Self { history, ..self }
    }

    /// The transitions up to this observation, as a replacement of the held one.
    fn history_after(&self, held: Option<&Self>) -> History {
        match held {
            None if self.history.is_empty() => History::default().then(self.transition(None)),
            None => self.history.clone(),
            Some(held) if !self.history.is_empty() => held.history.merged(&self.history),
            // of a record of a version that kept none
            Some(held) if held.history.is_empty() && held.job.is_in_state_of(&self.job) => History::default(),
            Some(held) => held.history.then(self.transition(Some(held))),
        }
    }

    /// The transition into the state of this observation.
    fn transition(&self, held: Option<&Self>) -> Transition {
        let since = self.sightings.state_since.unwrap_or(self.observed_at);
        let upstream_at = self.job.changed_at();
        // A time that did not move with the change is not the time of the change.
        let moved = upstream_at.filter(|at| held.and_then(|held| held.job.changed_at()) != Some(*at));
        Transition::new(self.job.state(), self.job.native_state.as_deref(), since, moved)
    }

    /// Returns whether this observation replaces the held one.
    ///
    /// The one with more accepted rollbacks wins. Otherwise, if both have the upstream's own counter and it differs,
    /// the larger wins. Otherwise the later *moment of truth* wins: a terminal state is true from the response on, so
    /// its moment is `observed_at`; any other state was true at the latest when it was requested, so its moment is
    /// `requested_at`; and EXPIRED has the moment of the last response that contained its run. At the same moment a
    /// terminal state wins over EXPIRED, and EXPIRED over a state that is not terminal.
    ///
    /// The consequences: an answer requested after the held response arrived wins (so a second run is detected); an
    /// answer older than the held request loses; where the two overlap, a terminal state wins over one that is not, and
    /// of two terminal states the later response wins. EXPIRED loses to every other terminal state of its run, whatever
    /// the times, since none of them can have been observed before the run was last observed as not terminal. Of two
    /// overlapping answers that are not terminal, the later *request* wins: with the later response, three answers
    /// could supersede each other in a cycle, and then the order of arrival would matter.
    ///
    /// MindBridge documents `version`, its counter, as required. An answer without it is therefore an exception, and it
    /// is compared by the times alone, also with an answer that has a version.
    pub fn supersedes(&self, held: &Self) -> bool {
        self.compare(held) == Ordering::Greater
    }

    /// Orders two observations of one job by the rule of [`Observation::supersedes`].
    ///
    /// The order is total only among observations that all have a counter, or that all lack it. In a mixture three can
    /// supersede each other in a cycle: an answer without a counter replaces an earlier higher counter, a later lower
    /// counter replaces that answer, and the higher counter wins over the lower one. Then the order of arrival decides,
    /// and a lower counter that follows an answer without one is accepted at once. This is accepted, because such an
    /// answer contradicts the documentation of the upstream, because a rule that ranked it below every counter would
    /// cache an older state for as long as the upstream omits the counter, and because the next answer with a counter
    /// ends the exception.
    pub fn compare(&self, other: &Self) -> Ordering {
        let by_rollbacks = self.rollbacks.cmp(&other.rollbacks);
        by_rollbacks
            .then_with(|| self.compare_counters(other))
            .then_with(|| self.moment().cmp(&other.moment()))
    }

    /// Returns whether this answer has a lower counter than the held one, with the same number of accepted rollbacks:
    /// the upstream contradicts its earlier report.
    pub fn contradicts(&self, held: &Self) -> bool {
        self.rollbacks == held.rollbacks && self.compare_counters(held) == Ordering::Less
    }

    fn compare_counters(&self, other: &Self) -> Ordering {
        match (self.job.counter(), other.job.counter()) {
            (Some(ours), Some(theirs)) => ours.cmp(&theirs),
            (Some(_) | None, None) | (None, Some(_)) => Ordering::Equal,
        }
    }

    /// The moment of truth, then the rank at the same moment, then the time of the response to make the order total.
    fn moment(&self) -> (Timestamp, u8, Timestamp) {
        let (moment, rank) = match self.job.state() {
            JobState::Queued | JobState::Running | JobState::Unknown => (self.requested_at, 0),
            JobState::Expired => (self.requested_at, 1),
            JobState::Succeeded | JobState::Failed | JobState::Canceled => (self.observed_at, 2),
        };
        (moment, rank, self.observed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::details::{Details, MindBridgeDetails};
    use crate::domain::history::TRANSITIONS_MAX;
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Failure, Life};
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn seen(life: Life, counter: Option<i64>, requested_at: i64, observed: i64) -> Observation {
        let details = match counter {
            Some(version) => Details::MindBridge(Box::new(MindBridgeDetails {
                version: Some(version),
                ..Default::default()
            })),
            None => Details::Supermetrics(Box::default()),
        };
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, life, details);
        Observation::new(Arc::new(job), at(requested_at), at(observed))
    }

    #[test]
    fn supersedes_follows_each_rule_of_the_design() {
        let failed = || Life::Failed(Failure::default());
        let cases = [
            ("a later request wins", seen(Life::Running, None, 5, 6), seen(Life::Queued, None, 1, 2), true),
            (
                "a second run is detected",
                seen(Life::Running, None, 5, 6),
                seen(Life::Succeeded, None, 1, 4),
                true,
            ),
            (
                "an answer older than the held request loses",
                seen(failed(), None, 1, 2),
                seen(Life::Running, None, 3, 4),
                false,
            ),
            (
                "of overlapping answers a terminal one wins",
                seen(Life::Succeeded, None, 1, 4),
                seen(Life::Running, None, 2, 9),
                true,
            ),
            (
                "of overlapping answers one that is not terminal loses",
                seen(Life::Running, None, 2, 9),
                seen(Life::Succeeded, None, 1, 4),
                false,
            ),
            (
                "requested when the terminal state arrived is no second run",
                seen(Life::Running, None, 4, 9),
                seen(Life::Succeeded, None, 1, 4),
                false,
            ),
            (
                "of two terminal states the later response wins",
                seen(failed(), None, 2, 5),
                seen(Life::Succeeded, None, 1, 6),
                false,
            ),
            (
                "of two that are not terminal the later request wins",
                seen(Life::Running, None, 3, 5),
                seen(Life::Queued, None, 1, 9),
                true,
            ),
            (
                "the larger counter wins whatever the times",
                seen(Life::Succeeded, Some(3), 1, 2),
                seen(Life::Running, Some(2), 8, 9),
                true,
            ),
            (
                "the smaller counter loses whatever the times",
                seen(Life::Succeeded, Some(2), 8, 9),
                seen(Life::Running, Some(3), 1, 2),
                false,
            ),
            (
                "equal counters fall back to the times",
                seen(Life::Succeeded, Some(2), 5, 6),
                seen(Life::Running, Some(2), 1, 2),
                true,
            ),
            (
                "more accepted rollbacks win whatever the counter and the times",
                seen(Life::Running, Some(1), 1, 2).after_rollbacks(1),
                seen(Life::Succeeded, Some(9), 8, 9),
                true,
            ),
            (
                "fewer accepted rollbacks lose whatever the counter and the times",
                seen(Life::Succeeded, Some(9), 8, 9),
                seen(Life::Running, Some(1), 1, 2).after_rollbacks(1),
                false,
            ),
            (
                "EXPIRED loses to a success that was observed long before it",
                seen(Life::Running, None, 1, 2).expired(at(90)),
                seen(Life::Succeeded, None, 3, 4),
                false,
            ),
            (
                "a success that arrives after EXPIRED wins though it is older",
                seen(Life::Succeeded, None, 3, 4),
                seen(Life::Running, None, 1, 2).expired(at(90)),
                true,
            ),
            (
                "EXPIRED of a second run wins over the first run",
                seen(Life::Running, None, 5, 6).expired(at(90)),
                seen(Life::Succeeded, None, 3, 4),
                true,
            ),
            (
                "EXPIRED replaces the last observation of its run",
                seen(Life::Running, None, 1, 2).expired(at(90)),
                seen(Life::Running, None, 1, 2),
                true,
            ),
            (
                "a run that begins after EXPIRED is detected",
                seen(Life::Queued, None, 91, 92),
                seen(Life::Running, None, 1, 2).expired(at(90)),
                true,
            ),
            (
                "the same answer does not replace itself",
                seen(Life::Running, None, 1, 2),
                seen(Life::Running, None, 1, 2),
                false,
            ),
        ];
        for (rule, new, held, expected) in cases {
            assert_eq!(new.supersedes(&held), expected, "{rule}");
        }
    }

    fn life() -> impl Strategy<Value = Life> {
        prop_oneof![
            Just(Life::Queued),
            Just(Life::Running),
            Just(Life::Unknown),
            Just(Life::Succeeded),
            Just(Life::Failed(Failure::default())),
            Just(Life::Expired),
        ]
    }

    fn history(counted: bool) -> impl Strategy<Value = Vec<Observation>> {
        let one = (life(), 0_i64..4, 0_i64..40, 0_i64..20, 0_u32..3);
        let one = one.prop_map(move |(life, count, requested_at, took, rollbacks)| {
            let counter = counted.then_some(count);
            let rollbacks = if counted { rollbacks } else { 0 };
            if life == Life::Expired {
                let last =
                    seen(Life::Running, counter, requested_at, requested_at).after_rollbacks(rollbacks);
                return last.expired(at(requested_at + took));
            }
            seen(life, counter, requested_at, requested_at + took).after_rollbacks(rollbacks)
        });
        proptest::collection::vec(one, 1..8)
    }

    fn transitions(of: &Observation) -> Vec<(JobState, Timestamp)> {
        of.history.transitions().iter().map(|one| (one.state, one.observed_at)).collect()
    }

    #[test]
    fn transition_has_the_upstreams_time_of_the_change() {
        let changed = |life, second, updated: i64| {
            let seen = seen(life, None, second, second);
            let job = Job { updated_at: Some(at(updated)), ..Job::clone(&seen.job) };
            Observation { job: Arc::new(job), ..seen }
        };
        let first = changed(Life::Queued, 10, 1).replacing(None);
        let moved = changed(Life::Running, 20, 15).replacing(Some(&first));
        let not_moved = changed(Life::Failed(Failure::default()), 30, 15).replacing(Some(&moved));
        let known = not_moved.history.transitions().iter().map(|one| one.upstream_at);
        assert_eq!(known.collect::<Vec<_>>(), [Some(at(1)), Some(at(15)), None]);
    }

    #[test]
    fn first_change_after_a_record_without_history_is_its_first() {
        let held = Observation { sightings: Sightings::default(), ..seen(Life::Running, None, 1, 1) };
        let same = seen(Life::Running, None, 2, 2).replacing(Some(&held));
        assert!(same.history.is_empty());
        let ended = seen(Life::Succeeded, None, 3, 3).replacing(Some(&same));
        assert_eq!(transitions(&ended), [(JobState::Succeeded, at(3))]);
    }

    fn fold(arrivals: &[Observation]) -> &Observation {
        let mut held = &arrivals[0];
        for new in &arrivals[1..] {
            if new.supersedes(held) {
                held = new;
            }
        }
        held
    }

    fn order_does_not_matter(history: &[Observation], shuffled: &[Observation]) {
        let (one, other) = (fold(history), fold(shuffled));
        assert_eq!(one.compare(other), Ordering::Equal, "{one:?} {other:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn order_of_arrival_does_not_matter_without_counters(
            (history, shuffled) in history(false).prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle()))
        ) {
            order_does_not_matter(&history, &shuffled);
        }

        #[test]
        fn order_of_arrival_does_not_matter_with_counters(
            (history, shuffled) in history(true).prop_flat_map(|h| (Just(h.clone()), Just(h).prop_shuffle()))
        ) {
            order_does_not_matter(&history, &shuffled);
        }

        /// A store and its callers replace one after the other.
        #[test]
        fn each_observed_change_is_one_transition(lives in proptest::collection::vec(life(), 1..60)) {
            let mut expected = Vec::new();
            let mut held: Option<Observation> = None;
            for (life, second) in lives.into_iter().zip(1..) {
                let new = seen(life, None, second, second);
                if held.as_ref().is_none_or(|held| held.job.state() != new.job.state()) {
                    expected.push((new.job.state(), new.observed_at));
                }
                let stored = new.clone().replacing(held.as_ref());
                prop_assert_eq!(&stored.clone().replacing(held.as_ref()).history, &stored.history);
                prop_assert_eq!(&new.replacing(held.as_ref()).history, &stored.history);
                held = Some(stored);
            }
            let kept = expected.split_off(expected.len().saturating_sub(TRANSITIONS_MAX));
            prop_assert_eq!(held.map(|held| transitions(&held)), Some(kept));
        }

        #[test]
        fn terminal_state_never_regresses_within_a_run(end in 0_i64..40, took in 0_i64..20, other in history(false)) {
            let held = seen(Life::Succeeded, None, end, end + took);
            for new in other.iter().filter(|new| !new.job.is_terminal() && new.requested_at <= held.observed_at) {
                prop_assert!(!new.supersedes(&held));
            }
        }

        #[test]
        fn terminal_state_supersedes_expired_of_the_same_run(
            last in 0_i64..40, gone in 0_i64..99, ended in 0_i64..99, took in 0_i64..20, failed in any::<bool>()
        ) {
            let expired = seen(Life::Running, None, last, last).expired(at(gone));
            // The run was observed as not terminal at `last`, so its terminal state was observed then at the earliest.
            let observed = last + ended;
            let life = if failed { Life::Failed(Failure::default()) } else { Life::Succeeded };
            let end = seen(life, None, observed - took, observed);
            prop_assert!(end.supersedes(&expired));
            prop_assert!(!expired.supersedes(&end));
        }

        #[test]
        fn supersedes_is_transitive(a in history(false), b in history(true)) {
            for seen in [a, b] {
                for one in &seen {
                    for two in seen.iter().filter(|two| two.supersedes(one)) {
                        prop_assert!(seen.iter().all(|three| !three.supersedes(two) || three.supersedes(one)));
                    }
                }
            }
        }

        #[test]
        fn rerun_supersedes_an_earlier_terminal_state(end in 0_i64..40, took in 0_i64..20, later in 1_i64..40) {
            let held = seen(Life::Succeeded, None, end, end + took);
            prop_assert!(seen(Life::Running, None, end + took + later, end + took + later).supersedes(&held));
        }

        #[test]
        fn supersedes_is_asymmetric(a in history(false), b in history(true)) {
            for (one, other) in a.iter().zip(&b).chain(a.iter().zip(a.iter().skip(1))) {
                prop_assert!(!(one.supersedes(other) && other.supersedes(one)));
            }
        }
    }
}
