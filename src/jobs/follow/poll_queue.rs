//! The scheduled polls of one source in the order of their times, and the same by client, so that choosing the next ones
//! costs in proportion to those that are chosen and to the clients, not to the jobs that are due.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::round_robin::{RoundRobin, by_rank};
use crate::domain::id::JobKey;

/// The position of a poll in a queue: its time, and the number of its job.
pub(super) type QueuePosition = (Instant, u64);

/// The client on whose behalf a job is polled; reads of jobs that are not followed have none.
pub(super) type PollClient = Option<Arc<str>>;

/// What decides about when a job is chosen among those that are due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PollMarks {
    pub(super) client: PollClient,
    /// It is read before other jobs that are due.
    pub(super) is_urgent: bool,
    /// It can be polled before it is due, to find out whether its source has recovered.
    pub(super) is_probe: bool,
}

/// The scheduled polls of one source.
#[derive(Debug, Default)]
pub(super) struct PollQueue {
    by_time: BTreeMap<QueuePosition, (JobKey, PollMarks)>,
    by_client: HashMap<PollClient, BTreeSet<QueuePosition>>,
    urgent: BTreeSet<QueuePosition>,
    probes: BTreeSet<QueuePosition>,
}

impl PollQueue {
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }

    pub(super) fn insert(&mut self, position: QueuePosition, key: JobKey, marks: PollMarks) {
        self.remove(position);
        self.by_client.entry(marks.client.clone()).or_default().insert(position);
        if marks.is_urgent {
            self.urgent.insert(position);
        }
        if marks.is_probe {
            self.probes.insert(position);
        }
        self.by_time.insert(position, (key, marks));
    }

    pub(super) fn remove(&mut self, position: QueuePosition) {
        let Some((_, marks)) = self.by_time.remove(&position) else { return };
        if marks.is_urgent {
            self.urgent.remove(&position);
        }
        if marks.is_probe {
            self.probes.remove(&position);
        }
        if let Some(positions) = self.by_client.get_mut(&marks.client) {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_client.remove(&marks.client);
            }
        }
    }

    /// Replaces the marks of a scheduled poll.
    pub(super) fn mark(&mut self, position: QueuePosition, marks: PollMarks) {
        let Some((key, before)) = self.by_time.get(&position) else { return };
        if *before != marks {
            let key = key.clone();
            self.insert(position, key, marks);
        }
    }

    /// The job at a position.
    pub(super) fn key(&self, position: QueuePosition) -> Option<&JobKey> {
        self.by_time.get(&position).map(|(key, _)| key)
    }

    /// Every position, in order.
    pub(super) fn positions(&self) -> impl Iterator<Item = QueuePosition> {
        self.by_time.keys().copied()
    }

    /// Everything, in order.
    #[cfg(test)]
    pub(super) fn entries(&self) -> Vec<(QueuePosition, JobKey, PollMarks)> {
        let marked: usize = self.by_client.values().map(BTreeSet::len).sum();
        assert_eq!(marked, self.by_time.len(), "each position has a client");
        let entry = |(position, (key, marks)): (&QueuePosition, &(JobKey, PollMarks))| {
            assert_eq!(
                (marks.is_urgent, marks.is_probe),
                (self.urgent.contains(position), self.probes.contains(position))
            );
            assert!(self.by_client[&marks.client].contains(position));
            (*position, key.clone(), marks.clone())
        };
        self.by_time.iter().map(entry).collect()
    }

    /// The polls behind a position, or all, in order.
    pub(super) fn behind(
        &self,
        position: Option<QueuePosition>,
    ) -> impl Iterator<Item = (QueuePosition, &JobKey)> {
        let from = position.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_time.range((from, Bound::Unbounded)).map(|(position, (key, _))| (*position, key))
    }

    /// The polls that become due after `now`, in order.
    pub(super) fn later(&self, now: Instant) -> impl Iterator<Item = (QueuePosition, &JobKey)> {
        self.behind(Some((now, u64::MAX)))
    }

    /// Whether any poll is due.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        self.positions().next().is_some_and(|(at, _)| at <= now)
    }

    /// The due polls that are made before others.
    pub(super) fn urgent(&self, now: Instant, limit: usize) -> Vec<QueuePosition> {
        self.urgent.iter().take_while(|(at, _)| *at <= now).take(limit).copied().collect()
    }

    /// The first poll that can find out whether the source has recovered.
    pub(super) fn first_probe(&self) -> Option<QueuePosition> {
        self.probes.first().copied()
    }

    /// Chooses up to `limit` of the due polls without those in `taken`: those that have been due longest if all fit, and in round
    /// robin over the clients if not. While polls are spaced, `spaced` remembers which client was served.
    pub(super) fn choose(
        &self,
        now: Instant,
        limit: usize,
        taken: &[QueuePosition],
        spaced: Option<&mut RoundRobin<PollClient>>,
    ) -> Vec<QueuePosition> {
        if limit == 0 {
            return Vec::new();
        }
        let is_due = move |position: &QueuePosition| position.0 <= now;
        let mut chosen: HashSet<QueuePosition> = taken.iter().copied().collect();
        let mut first: Vec<(QueuePosition, &PollClient)> = self
            .by_time
            .iter()
            .map(|(position, (_, marks))| (*position, &marks.client))
            .take_while(|(position, _)| is_due(position))
            .filter(|(position, _)| !chosen.contains(position))
            .take(limit.saturating_add(1))
            .collect();
        if first.len() <= limit {
            return first.into_iter().map(|(position, _)| position).collect();
        }
        let mut spaced = spaced;
        let by_age = spaced.as_mut().map_or(0, |order| order.by_age(limit));
        first.truncate(by_age);
        let mut positions = Vec::with_capacity(limit);
        for (position, client) in first {
            if let Some(order) = &mut spaced {
                order.serve(client);
            }
            positions.push(position);
            chosen.insert(position);
        }
        let waiting = self.by_client.iter().map(|(client, positions)| {
            let due = positions.iter().copied().take_while(is_due);
            (client, due.filter(|position| !chosen.contains(position)))
        });
        let left = limit - positions.len();
        if let Some(order) = spaced {
            positions.extend(order.choose(waiting, left));
        } else {
            let waiting = waiting.map(|(client, due)| (client, 0, due)).collect();
            positions.extend(by_rank(waiting, left, |_, rank| rank + 1));
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::id::{ExternalId, SourceName};

    /// A queue of jobs that are due at different times, the first one first, each of the client with this number.
    #[derive(Debug)]
    struct Due {
        queue: PollQueue,
        clients: Vec<u32>,
        began: Instant,
        scheduled: u64,
    }

    impl Due {
        fn new(clients: &[u32]) -> Self {
            let mut due = Self {
                queue: PollQueue::default(),
                clients: clients.to_vec(),
                began: Instant::now(),
                scheduled: 0,
            };
            for job in 0..clients.len() {
                due.schedule(job);
            }
            due
        }

        fn schedule(&mut self, job: usize) {
            self.scheduled += 1;
            let client = self.clients[job].to_string().into();
            let marks = PollMarks { client: Some(client), ..PollMarks::default() };
            let position = (self.began + Duration::from_micros(self.scheduled), job as u64);
            self.queue.insert(position, key(job), marks);
        }

        /// The numbers of the jobs that are chosen.
        fn choose(&self, room: usize, spaced: Option<&mut RoundRobin<PollClient>>) -> Vec<usize> {
            let now = self.began + Duration::from_hours(1);
            let chosen = self.queue.choose(now, room, &[], spaced);
            chosen.into_iter().map(|(_, job)| usize::try_from(job).unwrap()).collect()
        }
    }

    fn key(job: usize) -> JobKey {
        JobKey {
            source: SourceName::parse("source").unwrap(),
            external_id: ExternalId::parse(&format!("job-{job}")).unwrap(),
        }
    }

    /// Makes `polls` polls, `room` at once, of jobs that are due again as soon as they were polled. Returns for each job the
    /// most polls between two of its own.
    fn longest_waits(clients: &[u32], room: usize, polls: usize) -> Vec<usize> {
        let mut order = RoundRobin::default();
        let mut due = Due::new(clients);
        let (mut last, mut longest) = (vec![0; clients.len()], vec![0; clients.len()]);
        for poll in 1..=polls / room {
            let positions: Vec<QueuePosition> = due.queue.positions().collect();
            for job in due.choose(room, Some(&mut order)) {
                longest[job] = longest[job].max(poll - last[job]);
                last[job] = poll;
                let position = positions.iter().find(|(_, number)| *number == job as u64).unwrap();
                due.queue.remove(*position);
                due.schedule(job);
            }
        }
        last.iter().zip(longest).map(|(last, longest)| longest.max(polls / room - last)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn large_client_does_not_starve_a_small_client() {
        let clients: Vec<u32> = std::iter::repeat_n(0, 300).chain([1, 2]).collect();
        let waits = longest_waits(&clients, 1, 3_000);
        assert!(waits[300..].iter().all(|wait| *wait <= 12), "{:?}", &waits[300..]);
        assert!(waits.iter().all(|wait| *wait <= 302 * 4 / 3 + 2), "{:?}", waits.iter().max());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn no_job_waits_longer_than_four_thirds_of_a_round(
            clients in proptest::collection::vec(0_u32..40, 20..120), room in 1_usize..15
        ) {
            let rounds = clients.len().div_ceil(room);
            let waits = longest_waits(&clients, room, 8 * clients.len());
            prop_assert!(waits.iter().all(|wait| *wait <= (rounds * 4).div_ceil(3) + 2), "{waits:?} at {room}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn round_robin_takes_one_job_per_client_before_a_second() {
        let clients: Vec<u32> = std::iter::repeat_n(0, 1_000).chain([1, 2]).collect();
        let due = Due::new(&clients);
        assert_eq!(due.choose(4, None), [0, 1_000, 1_001, 1]);
        let all: Vec<usize> = (0..1_002).collect();
        assert_eq!(due.choose(2_000, None), all, "all are chosen if all fit");
        assert!(due.choose(0, None).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn marks_follow_their_poll() {
        let mut due = Due::new(&[0, 0, 1]);
        let positions: Vec<QueuePosition> = due.queue.positions().collect();
        let later = due.began + Duration::from_secs(1);
        let marks = |is_urgent, is_probe| PollMarks { client: Some("b".into()), is_urgent, is_probe };
        due.queue.mark(positions[1], marks(true, false));
        due.queue.mark(positions[2], marks(false, true));
        assert_eq!(due.queue.urgent(later, 9), [positions[1]]);
        assert_eq!(due.queue.urgent(due.began, 9), [], "it is not due yet");
        assert_eq!(due.queue.first_probe(), Some(positions[2]));
        assert_eq!(due.queue.choose(later, 9, &[positions[1]], None), [positions[0], positions[2]]);
        due.queue.mark(positions[1], marks(false, false));
        due.queue.remove(positions[2]);
        assert_eq!((due.queue.urgent(later, 9), due.queue.first_probe()), (Vec::new(), None));
        due.queue.mark(positions[2], marks(true, true));
        assert_eq!((due.queue.len(), due.queue.by_client.len()), (2, 2), "a removed poll stays removed");
    }
}
