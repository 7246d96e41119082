//! The parts into which a batch without a page was split. They are kept from one poll to the next, so that a split that
//! did not finish within the time of a poll continues where it stopped.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::ExternalId;

/// How many jobs are remembered, and for how long.
const MOST: usize = 1_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Which jobs are queried together, if not all of them.
#[derive(Debug, Default)]
pub(super) struct OpenParts(Mutex<OpenPartsState>);

#[derive(Debug, Default)]
struct OpenPartsState {
    /// The number of the next part.
    next: u64,
    of: HashMap<ExternalId, (u64, Instant)>,
}

impl OpenPartsState {
    /// The number of the part that a job is in.
    fn part(&self, id: &ExternalId) -> Option<u64> {
        let (number, since) = self.of.get(id)?;
        (since.elapsed() < REMEMBERED_FOR).then_some(*number)
    }
}

impl OpenParts {
    /// Splits a batch into the parts that are queried; the jobs of no part are together.
    pub(super) fn divide<'a>(&self, ids: &[&'a ExternalId]) -> Vec<Vec<&'a ExternalId>> {
        let state = self.lock();
        let mut parts: BTreeMap<Option<u64>, Vec<&'a ExternalId>> = BTreeMap::new();
        for id in ids {
            parts.entry(state.part(id)).or_default().push(id);
        }
        parts.into_values().collect()
    }

    /// Records that these jobs are queried together, and without others.
    pub(super) fn note(&self, ids: &[&ExternalId]) {
        let mut state = self.lock();
        if state.of.len() + ids.len() > MOST {
            state.of.retain(|_, (_, since)| since.elapsed() < REMEMBERED_FOR);
        }
        let number = state.next;
        state.next = number.wrapping_add(1);
        for id in ids {
            if state.of.len() < MOST || state.of.contains_key(*id) {
                state.of.insert((*id).clone(), (number, Instant::now()));
            }
        }
    }

    /// Returns whether any of these jobs is in a part.
    pub(super) fn hold(&self, ids: &[&ExternalId]) -> bool {
        let state = self.lock();
        ids.iter().any(|id| state.part(id).is_some())
    }

    /// Queries these jobs with all others again.
    pub(super) fn forget(&self, ids: &[&ExternalId]) {
        let mut state = self.lock();
        for id in ids {
            state.of.remove(*id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenPartsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::testing::id;

    fn many() -> Vec<ExternalId> {
        (0..MOST + 10).map(|number| id(&format!("job{number}"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn batch_is_divided_by_its_open_parts() {
        let (all, parts) = (many(), OpenParts::default());
        let ids: Vec<&ExternalId> = all.iter().collect();
        parts.note(&ids[..2]);
        parts.note(&ids[2..3]);
        assert_eq!(parts.divide(&ids[..5]), [ids[3..5].to_vec(), ids[..2].to_vec(), ids[2..3].to_vec()]);
        parts.forget(&ids[..2]);
        assert_eq!(parts.divide(&ids[..3]), [ids[..2].to_vec(), ids[2..3].to_vec()]);
    }

    #[tokio::test(start_paused = true)]
    async fn open_parts_are_bounded() {
        let (all, parts) = (many(), OpenParts::default());
        let ids: Vec<&ExternalId> = all.iter().collect();
        parts.note(&ids);
        assert_eq!(parts.lock().of.len(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn open_parts_expire() {
        let (all, parts) = (many(), OpenParts::default());
        let ids: Vec<&ExternalId> = all.iter().collect();
        parts.note(&ids);
        tokio::time::advance(REMEMBERED_FOR).await;
        assert_eq!(parts.divide(&ids), std::slice::from_ref(&ids));
        assert!(!parts.hold(&ids));
        parts.note(&ids[MOST..]);
        assert_eq!(parts.lock().of.len(), 10, "the oldest are removed");
    }
}
