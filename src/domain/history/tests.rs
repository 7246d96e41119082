//! A merged history contains each transition once, is bounded, and ends in the newer state.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn into(state: JobState, second: i64) -> Transition {
    Transition::new(state, None, at(second), None)
}

/// The history of an observer that observed these states at these seconds.
fn observed(states: impl IntoIterator<Item = (JobState, i64)>) -> History {
    states.into_iter().fold(History::default(), |history, (state, second)| history.then(into(state, second)))
}

/// The states and seconds of a history.
fn times(history: &History) -> Vec<(JobState, i64)> {
    let second = |one: &Transition| (one.state, one.observed_at.as_second() - 1_000_000);
    history.transitions().iter().map(second).collect()
}

use JobState::{Queued, Running, Succeeded};

#[test]
fn equal_state_is_no_transition() {
    let history = observed([(Queued, 1), (Queued, 2), (Running, 3), (Running, 4), (Queued, 5)]);
    assert_eq!(times(&history), [(Queued, 1), (Running, 3), (Queued, 5)]);
}

#[test]
fn another_native_state_is_a_transition() {
    let one = History::default().then(Transition::new(Queued, Some("SCHEDULED"), at(1), None));
    let two = one.then(Transition::new(Queued, Some("QUEUED"), at(2), None));
    assert_eq!((one.transitions().len(), two.transitions().len()), (1, 2));
}

#[test]
fn long_native_state_is_cut_at_a_character() {
    let native = "é".repeat(80);
    let cut = Transition::new(Queued, Some(&native), at(1), None).native_state.unwrap();
    assert_eq!(cut.len(), 100);
    let history = History::default().then(Transition::new(Queued, Some(&native), at(1), None));
    let same = history.then(Transition::new(Queued, Some(&native), at(2), None));
    assert_eq!(same, history);
}

#[test]
fn only_the_last_fifty_transitions_are_kept() {
    let states = (0..120).map(|second| (if second % 2 == 0 { Queued } else { Running }, second));
    let history = times(&observed(states));
    assert_eq!((history.len(), history[0], history[49]), (TRANSITIONS_MAX, (Queued, 70), (Running, 119)));
}

#[test]
fn merge_keeps_what_only_one_observer_recorded() {
    type States<'a> = &'a [(JobState, i64)];
    let cases: [(&str, States<'_>, States<'_>, States<'_>); 8] = [
        ("newer one continues", &[(Queued, 1)], &[(Queued, 1), (Running, 2)], &[(Queued, 1), (Running, 2)]),
        (
            "one recorded a state that the other missed",
            &[(Queued, 1), (Running, 3)],
            &[(Queued, 1), (Succeeded, 9)],
            &[(Queued, 1), (Running, 3), (Succeeded, 9)],
        ),
        (
            "both recorded the change, at different times",
            &[(Queued, 1), (Running, 4)],
            &[(Queued, 1), (Running, 5)],
            &[(Queued, 1), (Running, 5)],
        ),
        (
            "the same states again are another run",
            &[(Queued, 1), (Running, 2), (Succeeded, 3)],
            &[(Queued, 1), (Running, 2), (Succeeded, 3), (Queued, 7), (Running, 8), (Succeeded, 9)],
            &[(Queued, 1), (Running, 2), (Succeeded, 3), (Queued, 7), (Running, 8), (Succeeded, 9)],
        ),
        (
            "common transitions are those at the nearest times",
            &[(Queued, 1), (Running, 2), (Queued, 3), (Succeeded, 4)],
            &[(Queued, 3), (Running, 5)],
            &[(Queued, 1), (Running, 2), (Queued, 3), (Succeeded, 4), (Running, 5)],
        ),
        ("the held one is unknown", &[], &[(Running, 2)], &[(Running, 2)]),
        ("the newer one is unknown", &[(Running, 2)], &[], &[(Running, 2)]),
        (
            "no transition is before an earlier one",
            &[(Queued, 1), (Running, 9)],
            &[(Queued, 1), (Succeeded, 5)],
            &[(Queued, 1), (Running, 9), (Succeeded, 9)],
        ),
    ];
    for (case, held, newer, expected) in cases {
        let merged = observed(held.iter().copied()).merged(&observed(newer.iter().copied()));
        assert_eq!(times(&merged), expected, "{case}");
    }
}

fn state() -> impl Strategy<Value = JobState> {
    prop_oneof![Just(Queued), Just(Running), Just(Succeeded)]
}

/// The states that an observer observes, with the seconds in between.
fn history(steps: usize) -> impl Strategy<Value = History> {
    proptest::collection::vec((state(), 0_i64..20), 0..steps).prop_map(|steps| {
        let mut second = 0;
        observed(steps.into_iter().map(|(state, gap)| {
            second += gap;
            (state, second)
        }))
    })
}

fn states_of(history: &History) -> Vec<JobState> {
    history.transitions().iter().map(|one| one.state).collect()
}

/// Whether one sequence contains another in its order, apart from what the limit removed of it.
fn contains_last(whole: &[JobState], part: &[JobState]) -> bool {
    let mut rest = whole.iter().rev();
    let missing = part.iter().rev().skip_while(|state| rest.any(|other| other == *state)).count();
    missing == 0 || whole.len() == TRANSITIONS_MAX
}

proptest! {
    #[test]
    fn merged_history_contains_both_and_ends_as_the_newer(held in history(70), newer in history(70)) {
        let merged = held.merged(&newer);
        prop_assert!(contains_last(&states_of(&merged), &states_of(&held)));
        prop_assert!(contains_last(&states_of(&merged), &states_of(&newer)));
        let last = |history: &History| states_of(history).last().copied();
        prop_assert_eq!(last(&merged), last(&newer).or_else(|| last(&held)));
    }

    #[test]
    fn merged_history_is_bounded_and_in_order(held in history(70), newer in history(70)) {
        let merged = held.merged(&newer);
        prop_assert!(merged.transitions().len() <= TRANSITIONS_MAX);
        for pair in merged.transitions().windows(2) {
            prop_assert!(pair[0].observed_at <= pair[1].observed_at && !pair[0].is_into_same(&pair[1]));
        }
    }

    /// However often, and whatever the clock with which a record is read.
    #[test]
    fn merging_again_doubles_no_transition(held in history(25), newer in history(25), step in -5_000_i64..5_000) {
        let merged = held.merged(&newer);
        prop_assert_eq!(&held.merged(&merged), &merged);
        prop_assert_eq!(&merged.merged(&merged), &merged);
        let moved = held.map(|at| Timestamp::from_millisecond(at.as_millisecond() + step).unwrap());
        prop_assert_eq!(moved.merged(&merged), merged);
    }

    /// Replicas whose clocks differ a little observe some of the states of a job each, and exchange their records.
    #[test]
    fn replicas_together_have_each_observed_state_once(
        truth in Just(JobState::ALL.to_vec()).prop_shuffle(),
        observers in proptest::collection::vec((proptest::collection::vec(any::<bool>(), 7), 0_i64..5), 2..5),
    ) {
        let mut expected = vec![false; truth.len()];
        let mut merged = History::default();
        for (observes, clock) in observers {
            let states = (0_i64..).zip(&truth).zip(&observes).filter(|(_, observes)| **observes);
            let own = observed(states.map(|((step, state), _)| (*state, step * 10 + clock)));
            expected.iter_mut().zip(&observes).for_each(|(known, observes)| *known |= observes);
            let reached = |history: &History| {
                states_of(history).last().and_then(|last| truth.iter().position(|state| state == last))
            };
            // the one that observed the later state is the newer
            merged = if reached(&merged) > reached(&own) { own.merged(&merged) } else { merged.merged(&own) };
        }
        let expected: Vec<JobState> =
            truth.iter().zip(expected).filter(|(_, known)| *known).map(|(state, _)| *state).collect();
        prop_assert_eq!(states_of(&merged), expected);
    }

    /// The record of a replica continues the history that another one holds.
    #[test]
    fn continued_history_is_taken_as_it_is(history in history(70), held in any::<prop::sample::Index>()) {
        let transitions = history.transitions();
        prop_assume!(!transitions.is_empty());
        let held = History::new(transitions[..held.index(transitions.len())].to_vec());
        prop_assert_eq!(held.merged(&history), history);
    }
}
