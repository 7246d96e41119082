//! Reads of jobs that are not followed, such as discovered ones: scheduled among the polls of their source, so that they
//! are paced by the same budget. The registry calls it under its lock.

use tokio::time::Instant;

use super::followed_job::phase;
use super::poll_queue::PollMarks;
use super::schedule::PollSchedule;
use super::settings::FollowSettings;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::observation::Observation;
use crate::domain::sweep::verify_after;

/// The numbers of reads in a queue begin here: behind those of all followed jobs.
const FIRST: u64 = 1 << 63;

impl PollSchedule {
    /// Schedules the read of a job that is not followed. One that is scheduled already keeps its time, so the job that was
    /// scheduled first is read first.
    pub(super) fn schedule_read(&mut self, key: &JobKey, at: Instant) {
        self.last_read += 1;
        let position = (at, FIRST | self.last_read);
        let reads = &mut self.polls.entry(key.source.clone()).or_default().reads;
        if reads.contains_key(key) {
            return;
        }
        reads.insert(key.clone(), position);
        self.queues.entry(key.source.clone()).or_default().insert(
            position,
            key.clone(),
            PollMarks::default(),
        );
    }

    /// Whether a job is scheduled for a read, or being read, although it is not followed.
    pub(super) fn is_read(&self, key: &JobKey) -> bool {
        let polls = self.polls.get(&key.source);
        polls.is_some_and(|polls| polls.reads.contains_key(key) || polls.reading.contains(key))
    }

    /// Removes a read from the schedule, because it starts. Returns whether there was one.
    /// A job that is verified is scheduled again.
    pub(super) fn start_read(&mut self, key: &JobKey, settings: &FollowSettings) -> bool {
        let Some(polls) = self.polls.get_mut(&key.source) else { return false };
        let Some(position) = polls.reads.remove(key) else { return false };
        polls.reading.insert(key.clone());
        let again = polls.verified.contains(key);
        if let Some(queue) = self.queues.get_mut(&key.source) {
            queue.remove(position);
        }
        if again {
            self.schedule_verification(key, settings);
        }
        true
    }

    /// Reads a discovered job by its id at the verification interval from now on. The first read is within the interval, and
    /// for a job that was stored before, whose last read is not known, at any time within it.
    pub(super) fn verify(&mut self, key: &JobKey, was_stored: bool, settings: &FollowSettings) {
        let polls = self.polls.entry(key.source.clone()).or_default();
        if !polls.verified.insert(key.clone()) {
            return;
        }
        if was_stored {
            let interval = polls.verify_interval.unwrap_or(settings.verify_interval);
            self.schedule_read(key, Instant::now() + interval.mul_f64(phase(key)));
        } else {
            self.schedule_verification(key, settings);
        }
    }

    /// Ends the verification of a job, because it is terminal.
    pub(super) fn end_verification(&mut self, key: &JobKey) {
        let Some(polls) = self.polls.get_mut(&key.source) else { return };
        if !polls.verified.remove(key) {
            return;
        }
        if let Some(position) = polls.reads.remove(key)
            && let Some(queue) = self.queues.get_mut(&key.source)
        {
            queue.remove(position);
        }
    }

    fn schedule_verification(&mut self, key: &JobKey, settings: &FollowSettings) {
        let known = self.polls.get(&key.source).and_then(|polls| polls.verify_interval);
        let interval = known.unwrap_or(settings.verify_interval);
        self.schedule_read(key, Instant::now() + verify_after(interval, phase(key)));
    }

    /// How many jobs of a source are verified although they are not followed.
    pub(super) fn count_verified(&self, source: &SourceName) -> usize {
        self.polls.get(source).map_or(0, |polls| polls.verified.len())
    }

    /// Records a change that a read by id found of a job that is not followed, for the comparison with the next lists.
    pub(super) fn note_unfollowed(&mut self, before: Option<&Observation>, observation: &Observation) {
        let key = &observation.job.key;
        if self.jobs.contains_key(key) {
            return;
        }
        if observation.job.is_terminal() {
            self.end_verification(key);
        }
        let covered = before.zip(self.coverage(&key.source));
        if covered.is_some_and(|(before, coverage)| coverage.covers_since(before.observed_at)) {
            self.expect_in_a_list(before, observation);
        }
    }

    /// Applies that a read has ended, whatever came of it.
    pub(super) fn end_read(&mut self, key: &JobKey) {
        if let Some(polls) = self.polls.get_mut(&key.source) {
            polls.reading.remove(key);
        }
    }

    /// Removes all reads of a source from the schedule.
    pub(super) fn forget_reads(&mut self, source: &SourceName) {
        let reads = self.polls.get_mut(source).map(|polls| {
            polls.verified.clear();
            std::mem::take(&mut polls.reads)
        });
        let Some(queue) = self.queues.get_mut(source) else { return };
        for position in reads.unwrap_or_default().into_values() {
            queue.remove(position);
        }
    }

    /// How many jobs of a source are scheduled for a read although they are not followed.
    pub(super) fn count_reads(&self, source: &SourceName) -> usize {
        self.polls.get(source).map_or(0, |polls| polls.reads.len())
    }
}
