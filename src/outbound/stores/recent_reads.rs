//! The observations that were read last, in front of the cache in memory: finding one here costs a tenth of a read of the
//! cache, which records each read and checks each age.

use std::array;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::id::{JobHasher, JobKey};
use crate::domain::observation::Observation;

/// How many sets of slots there are. A slot in use takes some 150 bytes.
const SETS: usize = 2 * 1024;
/// How many jobs a set holds.
const SLOTS: usize = 2;
/// So many reads of a job are answered here, then one by the cache, so that the cache knows which jobs are read, and ends
/// those that are too old.
const READS: u8 = 15;

/// The observations that were read last. An observation is removed when the cache replaces or removes it.
pub(super) struct RecentReads {
    hasher: JobHasher,
    sets: Box<[Mutex<SlotSet>]>,
}

/// The slots of some jobs.
#[derive(Default)]
struct SlotSet {
    slots: [Option<Box<RecentRead>>; SLOTS],
    /// The slot that is filled next.
    next: usize,
    /// How often one of these jobs was replaced or removed.
    removals: u64,
}

struct RecentRead {
    observation: Observation,
    /// How many reads are left.
    reads: u8,
}

/// The state of the slots before a read of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct BeforeRead {
    set: usize,
    removals: u64,
}

impl RecentReads {
    /// The observation of a job, or what [`Self::keep`] needs to keep the one that the cache returns.
    pub(super) fn find(&self, key: &JobKey) -> Result<Observation, BeforeRead> {
        let set = self.set_of(key);
        let mut slots = self.lock(set);
        let removals = slots.removals;
        let slot = slots.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(|read| read.is_of(key)));
        let Some(Some(read)) = slot else { return Err(BeforeRead { set, removals }) };
        let Some(left) = read.reads.checked_sub(1) else { return Err(BeforeRead { set, removals }) };
        read.reads = left;
        Ok(read.observation.clone())
    }

    /// Keeps what the cache returned, unless one of the jobs of its slots was replaced or removed since `before`.
    pub(super) fn keep(&self, before: BeforeRead, observation: &Observation) {
        let BeforeRead { set, removals } = before;
        let mut slots = self.lock(set);
        if slots.removals != removals {
            return;
        }
        let known = slots
            .slots
            .iter()
            .position(|slot| slot.as_ref().is_some_and(|read| read.is_of(&observation.job.key)));
        let index = known.unwrap_or(slots.next);
        slots.next = (index + 1) % SLOTS;
        let replaced = slots.slots.get_mut(index).and_then(|slot| {
            slot.replace(Box::new(RecentRead { observation: observation.clone(), reads: READS }))
        });
        drop(slots);
        drop(replaced);
    }

    /// Removes a job, because the cache has replaced or removed it.
    pub(super) fn remove(&self, key: &JobKey) {
        let mut slots = self.lock(self.set_of(key));
        slots.removals += 1;
        let removed: [Option<Box<RecentRead>>; SLOTS] = array::from_fn(|index| {
            slots.slots.get_mut(index).and_then(|slot| slot.take_if(|read| read.is_of(key)))
        });
        drop(slots);
        drop(removed);
    }

    fn set_of(&self, key: &JobKey) -> usize {
        let hash = self.hasher.hash_one(key);
        usize::try_from(hash % self.sets.len() as u64).unwrap_or_default()
    }

    fn lock(&self, set: usize) -> MutexGuard<'_, SlotSet> {
        self.sets[set].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecentRead {
    fn is_of(&self, key: &JobKey) -> bool {
        self.observation.job.key == *key
    }
}

impl Default for RecentReads {
    fn default() -> Self {
        let sets = std::iter::repeat_with(Mutex::default).take(SETS).collect();
        Self { hasher: JobHasher::default(), sets }
    }
}

impl fmt::Debug for RecentReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentReads").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::domain::details::Details;
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::{Job, Life};

    fn seen(id: &str, second: i64) -> Observation {
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse(id).unwrap() };
        let at = Timestamp::from_second(second).unwrap();
        let job = Job::new(key, Life::Running, Details::Supermetrics(Box::default()));
        Observation::new(Arc::new(job), at, at)
    }

    #[test]
    fn every_sixteenth_read_is_one_of_the_cache() {
        let (reads, job) = (RecentReads::default(), seen("a", 1));
        let from_cache = (0..64).filter(|_| match reads.find(&job.job.key) {
            Ok(found) => {
                assert_eq!(found, job);
                false
            }
            Err(before) => {
                reads.keep(before, &job);
                true
            }
        });
        assert_eq!(from_cache.collect::<Vec<_>>(), [0, 16, 32, 48]);
    }

    #[test]
    fn what_was_replaced_during_a_read_is_not_kept() {
        let (reads, old, new) = (RecentReads::default(), seen("a", 1), seen("a", 2));
        let key = &old.job.key;
        let before = reads.find(key).unwrap_err();
        reads.remove(key);
        reads.keep(before, &old);
        let before = reads.find(key).unwrap_err();
        reads.keep(before, &new);
        assert_eq!(reads.find(key).unwrap(), new);
        reads.remove(key);
        assert!(reads.find(key).is_err());
    }

    #[test]
    fn jobs_of_one_set_do_not_replace_each_other_at_once() {
        let reads = RecentReads::default();
        let all: Vec<Observation> = (0..1_000).map(|number| seen(&format!("job-{number}"), number)).collect();
        for job in &all {
            reads.keep(reads.find(&job.job.key).unwrap_err(), job);
        }
        let found =
            all.iter().filter(|job| reads.find(&job.job.key).is_ok_and(|found| found == **job)).count();
        assert!(found > 950, "{found} of 1000");
    }
}
