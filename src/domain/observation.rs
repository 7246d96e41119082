//! An answer with its time, and the one rule that says which of two answers is the newer truth.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::Timestamp;

use super::job::Job;

/// A job as answered to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The job, shared because many readers hold it.
    pub job: Arc<Job>,
    /// When the question left us.
    pub asked_at: Timestamp,
    /// When the answer was complete. Never before `asked_at`.
    pub observed_at: Timestamp,
}

impl Observation {
    /// An answer and the two times it lies between. A clock that stepped back in between is read as no time at all.
    pub fn new(job: Arc<Job>, asked_at: Timestamp, observed_at: Timestamp) -> Self {
        Self { job, asked_at, observed_at: observed_at.max(asked_at) }
    }

    /// Says whether this observation replaces the held one.
    ///
    /// Where both carry the upstream's own counter and it differs, the larger wins. Else the later *moment of truth*
    /// wins, with an end before no end at the same moment. An end is true from the answer on: its moment is
    /// `observed_at`. Anything else was true at the latest when it was asked: its moment is `asked_at`.
    ///
    /// From that one key follow the rules of the design: a question sent after the held answer arrived wins (so a
    /// second run shows itself); an answer older than the held question loses; where the two overlap, an end beats
    /// no end, and of two ends the later answer wins. Of two overlapping answers that are no end, the later *question*
    /// wins: taking the later answer would let three answers beat each other in a ring, and then the order of arrival
    /// would matter.
    pub fn supersedes(&self, held: &Self) -> bool {
        self.compare(held) == Ordering::Greater
    }

    /// Orders two observations of one job by the rule of [`Observation::supersedes`]; total among those that all
    /// carry a counter, and among those of which none does.
    pub fn compare(&self, other: &Self) -> Ordering {
        let by_counter = match (self.job.counter(), other.job.counter()) {
            (Some(ours), Some(theirs)) => ours.cmp(&theirs),
            (Some(_) | None, None) | (None, Some(_)) => Ordering::Equal,
        };
        by_counter.then_with(|| self.moment().cmp(&other.moment()))
    }

    /// The moment of truth, then whether it is an end, then the answer's time to make it total.
    fn moment(&self) -> (Timestamp, bool, Timestamp) {
        let terminal = self.job.is_terminal();
        let moment = if terminal { self.observed_at } else { self.asked_at };
        (moment, terminal, self.observed_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::details::{Details, MindBridgeDetails};
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Failure, Life};
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn seen(life: Life, counter: Option<i64>, asked: i64, observed: i64) -> Observation {
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
        Observation::new(Arc::new(job), at(asked), at(observed))
    }

    #[test]
    fn the_rules_of_the_design_hold_line_by_line() {
        let failed = || Life::Failed(Failure::default());
        let cases = [
            ("a later question wins", seen(Life::Running, None, 5, 6), seen(Life::Queued, None, 1, 2), true),
            (
                "a second run shows itself",
                seen(Life::Running, None, 5, 6),
                seen(Life::Succeeded, None, 1, 4),
                true,
            ),
            (
                "an answer older than the held question loses",
                seen(failed(), None, 1, 2),
                seen(Life::Running, None, 3, 4),
                false,
            ),
            (
                "where they overlap an end beats no end",
                seen(Life::Succeeded, None, 1, 4),
                seen(Life::Running, None, 2, 9),
                true,
            ),
            (
                "where they overlap no end loses to an end",
                seen(Life::Running, None, 2, 9),
                seen(Life::Succeeded, None, 1, 4),
                false,
            ),
            (
                "asked at the moment the end arrived is no second run",
                seen(Life::Running, None, 4, 9),
                seen(Life::Succeeded, None, 1, 4),
                false,
            ),
            (
                "of two ends the later answer wins",
                seen(failed(), None, 2, 5),
                seen(Life::Succeeded, None, 1, 6),
                false,
            ),
            (
                "of two that are no end the later question wins",
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
        let one = (life(), 0_i64..4, 0_i64..40, 0_i64..20).prop_map(move |(life, count, asked, took)| {
            seen(life, counted.then_some(count), asked, asked + took)
        });
        proptest::collection::vec(one, 1..8)
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

        #[test]
        fn an_end_never_regresses_within_a_run(end in 0_i64..40, took in 0_i64..20, other in history(false)) {
            let held = seen(Life::Succeeded, None, end, end + took);
            for new in other.iter().filter(|new| !new.job.is_terminal() && new.asked_at <= held.observed_at) {
                prop_assert!(!new.supersedes(&held));
            }
        }

        #[test]
        fn a_second_run_shows_itself(end in 0_i64..40, took in 0_i64..20, later in 1_i64..40) {
            let held = seen(Life::Succeeded, None, end, end + took);
            prop_assert!(seen(Life::Running, None, end + took + later, end + took + later).supersedes(&held));
        }

        #[test]
        fn two_answers_never_replace_each_other(a in history(false), b in history(true)) {
            for (one, other) in a.iter().zip(&b).chain(a.iter().zip(a.iter().skip(1))) {
                prop_assert!(!(one.supersedes(other) && other.supersedes(one)));
            }
        }
    }
}
