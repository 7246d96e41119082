//! When this gateway first observed a run of a job, its present state and its terminal state. These are our own times,
//! since upstreams report few.

use jiff::Timestamp;

use super::state::JobState;

/// When a run was first observed, by our clock. An unknown time is absent: records of earlier versions have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// When a response first contained this run.
    pub first_seen_at: Option<Timestamp>,
    /// When a response first contained the present state.
    pub state_since: Option<Timestamp>,
    /// When a response first contained a terminal state of this run; absent until then.
    pub terminal_seen_at: Option<Timestamp>,
    /// A list of its source contained the job before any client requested it. Stays for later runs.
    pub discovered: bool,
}

impl Sightings {
    /// The times of a run that one response contains for the first time.
    pub fn first(state: JobState, at: Timestamp) -> Self {
        let terminal_seen_at = state.is_terminal().then_some(at);
        Self { first_seen_at: Some(at), state_since: Some(at), terminal_seen_at, discovered: false }
    }

    /// The same with each known time converted.
    #[must_use]
    pub fn map(self, change: impl Fn(Timestamp) -> Timestamp) -> Self {
        Self {
            first_seen_at: self.first_seen_at.map(&change),
            state_since: self.state_since.map(&change),
            terminal_seen_at: self.terminal_seen_at.map(&change),
            discovered: self.discovered,
        }
    }

    /// The times of an answer in this state that replaces a held one with these times.
    ///
    /// A state that is not terminal after a terminal one belongs to another run, which starts anew. Within a run the
    /// earliest time counts. A terminal state after EXPIRED is the first one that the upstream reported.
    #[must_use]
    pub fn replacing(self, state: JobState, held: Self, held_state: JobState) -> Self {
        if held_state.is_terminal() && !state.is_terminal() {
            return Self { discovered: held.discovered, ..self };
        }
        let still_terminal =
            held_state.is_terminal() && (held_state != JobState::Expired || state == JobState::Expired);
        Self {
            first_seen_at: earlier(self.first_seen_at, held.first_seen_at),
            state_since: if state == held_state {
                earlier(self.state_since, held.state_since)
            } else {
                self.state_since
            },
            terminal_seen_at: if still_terminal {
                earlier(self.terminal_seen_at, held.terminal_seen_at)
            } else {
                self.terminal_seen_at
            },
            discovered: held.discovered,
        }
    }
}

/// The earlier of the two; unknown if it is unknown when the held answer was first observed.
fn earlier(new: Option<Timestamp>, held: Option<Timestamp>) -> Option<Timestamp> {
    held.map(|held| new.map_or(held, |new| new.min(held)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Folds states observed at the seconds 1, 2, 3 and so on, and returns the three times.
    fn fold(states: &[JobState]) -> [Option<i64>; 3] {
        let mut seen =
            states.iter().zip(1..).map(|(state, second)| (*state, Sightings::first(*state, at(second))));
        let (first_state, first) = seen.next().unwrap();
        let (_, last) = seen.fold((first_state, first), |(held_state, held), (state, new)| {
            (state, new.replacing(state, held, held_state))
        });
        [last.first_seen_at, last.state_since, last.terminal_seen_at].map(|at| at.map(Timestamp::as_second))
    }

    #[test]
    fn sighting_times_are_those_of_the_first_observation() {
        use JobState::{Expired, Failed, Queued, Running, Succeeded, Unknown};
        let cases: [(&[JobState], [Option<i64>; 3]); 10] = [
            (&[Queued], [Some(1), Some(1), None]),
            (&[Queued, Queued, Queued], [Some(1), Some(1), None]),
            (&[Queued, Running, Running], [Some(1), Some(2), None]),
            (&[Queued, Running, Queued], [Some(1), Some(3), None]),
            (&[Running, Succeeded, Succeeded], [Some(1), Some(2), Some(2)]),
            (&[Succeeded], [Some(1), Some(1), Some(1)]),
            (&[Running, Succeeded, Failed], [Some(1), Some(3), Some(2)]),
            (&[Running, Expired, Succeeded], [Some(1), Some(3), Some(3)]),
            (&[Running, Succeeded, Queued, Running], [Some(3), Some(4), None]),
            (&[Running, Unknown, Expired, Expired], [Some(1), Some(3), Some(3)]),
        ];
        for (states, expected) in cases {
            assert_eq!(fold(states), expected, "{states:?}");
        }
    }

    #[test]
    fn unknown_first_seen_time_stays_unknown_within_a_run() {
        let unknown = Sightings::default();
        let new = |state| Sightings::first(state, at(9));
        let running = new(JobState::Running).replacing(JobState::Running, unknown, JobState::Running);
        assert_eq!(running, unknown);
        let ended = new(JobState::Failed).replacing(JobState::Failed, unknown, JobState::Running);
        assert_eq!(
            ended,
            Sightings {
                first_seen_at: None,
                state_since: Some(at(9)),
                terminal_seen_at: Some(at(9)),
                discovered: false
            }
        );
        let again = new(JobState::Queued).replacing(JobState::Queued, ended, JobState::Failed);
        assert_eq!(again, new(JobState::Queued));
    }

    #[test]
    fn job_stays_discovered_or_requested_through_all_runs() {
        use JobState::{Queued, Running, Succeeded};
        for discovered in [true, false] {
            let mut held = Sightings { discovered, ..Sightings::first(Running, at(1)) };
            let mut held_state = Running;
            for state in [Succeeded, Queued, Running] {
                let new = Sightings { discovered: !discovered, ..Sightings::first(state, at(2)) };
                held = new.replacing(state, held, held_state);
                held_state = state;
                assert_eq!(held.discovered, discovered, "{state:?}");
            }
        }
    }

    #[test]
    fn replacing_sightings_is_idempotent() {
        let held = Sightings::first(JobState::Running, at(1));
        let once =
            Sightings::first(JobState::Running, at(5)).replacing(JobState::Running, held, JobState::Running);
        assert_eq!(once.replacing(JobState::Running, held, JobState::Running), once);
    }
}
