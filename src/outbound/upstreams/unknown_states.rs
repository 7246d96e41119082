//! Unknown states of an upstream: each is logged once, all are counted.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::domain::id::SourceName;

/// How many different states are remembered; a hostile upstream can send any number of them.
const MOST: usize = 64;
/// How much of a state is remembered and logged, in characters.
const LONGEST: usize = 40;

/// The unknown states of one source.
#[derive(Debug, Default)]
pub(super) struct UnknownStates {
    seen: Mutex<SeenState>,
}

#[derive(Debug, Default)]
struct SeenState {
    words: BTreeSet<String>,
    times: u64,
}

impl UnknownStates {
    /// Records a state, or that there was none; logs it if it is new. Returns whether it was logged.
    pub(super) fn note(&self, source: &SourceName, word: Option<&str>) -> bool {
        let word: String = word.unwrap_or_default().chars().take(LONGEST).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.times += 1;
        let times = seen.times;
        let new = seen.words.len() < MOST && seen.words.insert(word.clone());
        drop(seen);
        if new {
            // the debug form keeps control characters out of the log
            tracing::warn!(%source, native_state = ?word, times, "unknown native state; reported as UNKNOWN");
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unknown_state_is_logged_once() {
        let (words, source) = (UnknownStates::default(), SourceName::parse("s").unwrap());
        assert!(words.note(&source, Some("PAUSED")));
        assert!(!words.note(&source, Some("PAUSED")));
        assert!(words.note(&source, None));
    }

    #[test]
    fn logged_unknown_states_are_bounded() {
        let (words, source) = (UnknownStates::default(), SourceName::parse("s").unwrap());
        let logged = (0..1_000).filter(|number| words.note(&source, Some(&number.to_string()))).count();
        assert_eq!(logged, MOST);
    }
}
