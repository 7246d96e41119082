//! Reads of jobs that are not followed, such as discovered ones: scheduled among the polls of their source, so that they
//! are paced by the same budget. The registry calls it under its lock.

use tokio::time::Instant;

use super::schedule::PollSchedule;
use crate::domain::id::{JobKey, SourceName};

/// The numbers of reads in a queue begin here: behind those of all followed jobs.
const FIRST: u64 = 1 << 63;

impl PollSchedule {
    /// Schedules the read of a job that is not followed. One that is scheduled already keeps its time, so the job that was
    /// scheduled first is read first.
    pub(super) fn schedule_read(&mut self, key: &JobKey, at: Instant) {
        self.last_read += 1;
        let place = (at, FIRST | self.last_read);
        let reads = &mut self.polls.entry(key.source.clone()).or_default().reads;
        if reads.contains_key(key) {
            return;
        }
        reads.insert(key.clone(), place);
        self.queues.entry(key.source.clone()).or_default().insert(place, key.clone());
    }

    /// Whether a job is scheduled for a read, or being read, although it is not followed.
    pub(super) fn is_read(&self, key: &JobKey) -> bool {
        let polls = self.polls.get(&key.source);
        polls.is_some_and(|polls| polls.reads.contains_key(key) || polls.reading.contains(key))
    }

    /// Removes a read from the schedule, because it starts. Returns whether there was one.
    pub(super) fn start_read(&mut self, key: &JobKey) -> bool {
        let Some(polls) = self.polls.get_mut(&key.source) else { return false };
        let Some(place) = polls.reads.remove(key) else { return false };
        polls.reading.insert(key.clone());
        if let Some(queue) = self.queues.get_mut(&key.source) {
            queue.remove(&place);
        }
        true
    }

    /// Applies that a read has ended, whatever came of it.
    pub(super) fn end_read(&mut self, key: &JobKey) {
        if let Some(polls) = self.polls.get_mut(&key.source) {
            polls.reading.remove(key);
        }
    }

    /// Removes all reads of a source from the schedule.
    pub(super) fn forget_reads(&mut self, source: &SourceName) {
        let reads = self.polls.get_mut(source).map(|polls| std::mem::take(&mut polls.reads));
        let Some(queue) = self.queues.get_mut(source) else { return };
        for place in reads.unwrap_or_default().into_values() {
            queue.remove(&place);
        }
    }

    /// How many jobs of a source are scheduled for a read although they are not followed.
    pub(super) fn count_reads(&self, source: &SourceName) -> usize {
        self.polls.get(source).map_or(0, |polls| polls.reads.len())
    }
}
