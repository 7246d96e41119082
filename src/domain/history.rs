//! The transitions of a job: each state and native state that was observed, oldest first, and how the transitions that two
//! replicas recorded are merged.

use std::sync::Arc;

use jiff::Timestamp;

use super::state::JobState;

/// The most transitions that are kept of a job; the oldest are dropped.
pub const TRANSITIONS_MAX: usize = 50;
/// The most bytes that are kept of a native state in a transition.
const NATIVE_MAX: usize = 100;

/// A change of the state or of the native state of a job, or its first observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state from then on.
    pub state: JobState,
    /// The upstream's own name for it, cut to 100 bytes.
    pub native_state: Option<Arc<str>>,
    /// When a response first contained it.
    pub observed_at: Timestamp,
    /// When the job was last changed, by the upstream's clock, in that response. Absent if it is not reported.
    pub upstream_at: Option<Timestamp>,
}

/// The last transitions of a job, through all of its runs. Empty in a record of a version that kept none. A clone shares
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Option<Arc<[Transition]>>);

impl Transition {
    /// A transition at this moment.
    pub fn new(
        state: JobState,
        native_state: Option<&str>,
        observed_at: Timestamp,
        upstream_at: Option<Timestamp>,
    ) -> Self {
        Self { state, native_state: native_state.map(|native| cut(native).into()), observed_at, upstream_at }
    }

    /// Whether both are into the same state.
    fn is_into_same(&self, other: &Self) -> bool {
        (self.state, &self.native_state) == (other.state, &other.native_state)
    }
}

impl History {
    /// The last of these transitions, which are in their order.
    pub fn new(mut transitions: Vec<Transition>) -> Self {
        transitions.drain(..transitions.len().saturating_sub(TRANSITIONS_MAX));
        Self((!transitions.is_empty()).then(|| transitions.into()))
    }

    /// The transitions, oldest first.
    pub fn transitions(&self) -> &[Transition] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether both are shared. Compares no transition.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The same with no time of an observation after this one.
    #[must_use]
    pub fn no_later_than(self, latest: Timestamp) -> Self {
        // in order, so the last one is the latest
        if self.transitions().last().is_none_or(|last| last.observed_at <= latest) {
            return self;
        }
        self.map(|at| at.min(latest))
    }

    fn map(&self, change: impl Fn(Timestamp) -> Timestamp) -> Self {
        let converted = |one: &Transition| Transition { observed_at: change(one.observed_at), ..one.clone() };
        Self(self.0.as_ref().map(|transitions| transitions.iter().map(converted).collect()))
    }

    /// The history after one more transition, unless it is into the state of the last one.
    #[must_use]
    pub fn then(&self, next: Transition) -> Self {
        if self.transitions().last().is_some_and(|last| last.is_into_same(&next)) {
            return self.clone();
        }
        let mut transitions = self.transitions().to_vec();
        transitions.push(next);
        Self::in_order(transitions)
    }

    /// The transitions of this history and of a newer one of the same job, which another observer may have recorded. It
    /// ends as the newer one.
    ///
    /// It is the shortest sequence that contains both, so that a transition that both recorded is in it once, whatever
    /// their clocks, and no other is lost. One that both recorded is as in the newer one. Where the order of two is not
    /// known, the one that was observed first is first.
    #[must_use]
    pub fn merged(&self, newer: &Self) -> Self {
        let (held, new) = (self.transitions(), newer.transitions());
        let Some((last, before)) = new.split_last() else { return self.clone() };
        if self.is_shared_with(newer) || contains(new, held) {
            return newer.clone();
        }
        let held = match held.split_last() {
            Some((held_last, held)) if held_last.is_into_same(last) => held,
            Some(_) | None => held,
        };
        let mut merged = shortest_common(held, before);
        merged.push(last.clone());
        Self::in_order(merged)
    }

    /// The last of these transitions. None is observed before the one that precedes it.
    fn in_order(mut transitions: Vec<Transition>) -> Self {
        let mut latest = Timestamp::MIN;
        for transition in &mut transitions {
            latest = latest.max(transition.observed_at);
            transition.observed_at = latest;
        }
        Self::new(transitions)
    }
}

/// Whether a sequence contains all of another one, in its order.
fn contains(whole: &[Transition], part: &[Transition]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.any(|other| other.is_into_same(one)))
}

/// The shortest sequence that contains two sequences, in their orders. Of several, the one whose common transitions were
/// observed at the nearest times.
fn shortest_common(held: &[Transition], new: &[Transition]) -> Vec<Transition> {
    let steps = MergeSteps::new(held, new);
    let (mut at, mut merged) = ((0, 0), Vec::new());
    loop {
        let (ours, theirs) = (held.get(at.0), new.get(at.1));
        let Some(step) = steps.next(at) else { return merged };
        merged.extend(match step {
            MergeStep::Held => ours.cloned(),
            MergeStep::New | MergeStep::Both => theirs.cloned(),
        });
        at = step.from(at);
    }
}

/// Where the next transition of a merged sequence is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MergeStep {
    Held,
    New,
    Both,
}

impl MergeStep {
    /// The positions in both sequences after this step.
    const fn from(self, (held, new): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Held => (held + 1, new),
            Self::New => (held, new + 1),
            Self::Both => (held + 1, new + 1),
        }
    }
}

/// The length of a merged sequence, and how far apart its common transitions were observed, in milliseconds.
type MergeCost = (usize, u128);

/// The best step at each pair of positions in two sequences, and the cost from there on.
struct MergeSteps {
    width: usize,
    steps: Vec<(Option<MergeStep>, MergeCost)>,
}

impl MergeSteps {
    fn new(held: &[Transition], new: &[Transition]) -> Self {
        let width = new.len() + 1;
        let mut best = Self { width, steps: vec![(None, (0, 0)); width * (held.len() + 1)] };
        for left in (0..=held.len()).rev() {
            for right in (0..=new.len()).rev() {
                let step = best.best((left, right), held.get(left), new.get(right));
                if let Some(place) = best.steps.get_mut(left * width + right) {
                    *place = step;
                }
            }
        }
        best
    }

    fn best(
        &self,
        at: (usize, usize),
        ours: Option<&Transition>,
        theirs: Option<&Transition>,
    ) -> (Option<MergeStep>, MergeCost) {
        let cost = |step: MergeStep, apart: u128| {
            let (length, far) = self.cost(step.from(at));
            (Some(step), (length + 1, far + apart))
        };
        match (ours, theirs) {
            (None, None) => (None, (0, 0)),
            (Some(_), None) => cost(MergeStep::Held, 0),
            (None, Some(_)) => cost(MergeStep::New, 0),
            (Some(ours), Some(theirs)) => {
                let theirs_first = theirs.observed_at < ours.observed_at;
                let steps = if theirs_first {
                    [MergeStep::New, MergeStep::Held]
                } else {
                    [MergeStep::Held, MergeStep::New]
                };
                let apart = ours.observed_at.duration_since(theirs.observed_at).unsigned_abs().as_millis();
                let both = ours.is_into_same(theirs).then(|| cost(MergeStep::Both, apart));
                let [first, second] = steps.map(|step| cost(step, 0));
                both.into_iter().chain([first, second]).min_by_key(|(_, cost)| *cost).unwrap_or(first)
            }
        }
    }

    fn cost(&self, (left, right): (usize, usize)) -> MergeCost {
        self.steps.get(left * self.width + right).map_or((0, 0), |(_, cost)| *cost)
    }

    fn next(&self, (left, right): (usize, usize)) -> Option<MergeStep> {
        self.steps.get(left * self.width + right).and_then(|(step, _)| *step)
    }
}

/// The first bytes of a native state.
fn cut(native: &str) -> &str {
    let end = native.floor_char_boundary(NATIVE_MAX);
    native.get(..end).unwrap_or(native)
}

#[cfg(test)]
mod tests;
