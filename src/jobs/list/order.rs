//! The orders of a list of jobs, and the cursors with which it is continued.

use std::collections::BTreeMap;

use super::filter::last_change;
use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::ports::clock::ClockReading;

/// The order of a list of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobListOrder {
    /// What it is ordered by. Jobs with the same value are ordered by source and external id.
    pub field: JobListField,
    /// Whether the largest value is first.
    pub descending: bool,
}

/// What a list of jobs is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobListField {
    /// The source and the external id.
    Key,
    /// When the job was last changed; see [`last_change`].
    UpdatedAt,
    /// When the job was created by the upstream's clock, or, where it reports no time, when it was first observed by the
    /// system clock.
    CreatedAt,
    /// The state, in the order of the schema.
    State,
}

impl JobListField {
    /// The fields that a client can name.
    pub const NAMED: [Self; 3] = [Self::UpdatedAt, Self::CreatedAt, Self::State];

    /// The name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "KEY",
            Self::UpdatedAt => "UPDATED_AT",
            Self::CreatedAt => "CREATED_AT",
            Self::State => "STATE",
        }
    }
}

impl Default for JobListOrder {
    /// The order of the stores, in which a page is read without reading all jobs.
    fn default() -> Self {
        Self { field: JobListField::Key, descending: false }
    }
}

impl JobListOrder {
    /// Whether it is the order of the stores.
    pub(super) const fn is_stored(self) -> bool {
        matches!(self.field, JobListField::Key) && !self.descending
    }

    fn value(self, observation: &Observation, now: ClockReading) -> i64 {
        let job = &observation.job;
        match self.field {
            JobListField::Key => 0,
            JobListField::UpdatedAt => last_change(observation, now).as_millisecond(),
            JobListField::CreatedAt => {
                let first_seen = || observation.sightings.first_seen_at.unwrap_or(observation.observed_at);
                job.created_at.unwrap_or_else(|| now.date(first_seen())).as_millisecond()
            }
            JobListField::State => {
                let index = JobState::ALL.into_iter().position(|state| state == job.state());
                index.and_then(|index| i64::try_from(index).ok()).unwrap_or_default()
            }
        }
    }

    /// Whether `one` is behind `other`.
    fn is_behind(self, one: (i64, &JobKey), other: (i64, &JobKey)) -> bool {
        if self.descending { one < other } else { one > other }
    }
}

/// The position of a job in an order. Its value is whole milliseconds, or the index of a state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListPosition {
    value: i64,
    pub(super) key: JobKey,
}

impl ListPosition {
    /// The letter before the value in a cursor, so that the cursor of one order is not used in another.
    const fn mark(field: JobListField) -> Option<char> {
        match field {
            JobListField::Key => None,
            JobListField::UpdatedAt => Some('u'),
            JobListField::CreatedAt => Some('c'),
            JobListField::State => Some('s'),
        }
    }

    /// The cursor of this position: the node id, after the value where the order has one.
    pub(super) fn cursor(&self, order: JobListOrder) -> String {
        let node_id = self.key.node_id();
        match Self::mark(order.field) {
            Some(mark) => format!("{mark}{}.{node_id}", self.value),
            None => node_id,
        }
    }

    /// Parses a cursor.
    ///
    /// # Errors
    /// When it is not a cursor of this order.
    pub(super) fn parse(cursor: &str, order: JobListOrder) -> Result<Self, Problem> {
        let invalid = |why: String| Problem::new(ProblemCode::InvalidRef, Retry::Never, why);
        let of_another_order = || {
            invalid("after is a cursor of another orderBy; pass the endCursor of a page in this order".into())
        };
        let (value, node_id) = match (Self::mark(order.field), cursor.split_once('.')) {
            (None, None) => (0, cursor),
            (Some(mark), Some((value, node_id))) => {
                let value = value.strip_prefix(mark).and_then(|value| value.parse().ok());
                (value.ok_or_else(of_another_order)?, node_id)
            }
            (None, Some(_)) => return Err(of_another_order()),
            (Some(_), None) => (0, ""),
        };
        let key = JobKey::from_node_id(node_id)
            .map_err(|error| invalid(format!("after {error}; pass the endCursor of a page")))?;
        Ok(Self { value, key })
    }
}

/// The first jobs of an order behind a position, collected from jobs in any order.
#[derive(Debug)]
pub(super) struct FirstJobs {
    order: JobListOrder,
    after: Option<ListPosition>,
    now: ClockReading,
    limit: usize,
    found: BTreeMap<ListPosition, Observation>,
}

impl FirstJobs {
    /// Collects at most `limit` jobs, one or more.
    pub(super) const fn new(
        order: JobListOrder,
        after: Option<ListPosition>,
        now: ClockReading,
        limit: usize,
    ) -> Self {
        Self { order, after, now, limit, found: BTreeMap::new() }
    }

    /// Whether no later job of the store is among the first.
    pub(super) fn is_complete(&self) -> bool {
        self.order.is_stored() && self.is_full()
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }

    /// Adds a job if it is among the first.
    pub(super) fn offer(&mut self, observation: Observation) {
        let order = self.order;
        let value = order.value(&observation, self.now);
        let place = (value, &observation.job.key);
        let at = |position: &ListPosition| order.is_behind(place, (position.value, &position.key));
        let last = if order.descending { self.found.first_key_value() } else { self.found.last_key_value() };
        let is_beyond = self.is_full() && last.is_some_and(|(last, _)| at(last));
        if is_beyond || self.after.as_ref().is_some_and(|after| !at(after)) {
            return;
        }
        let position = ListPosition { value, key: observation.job.key.clone() };
        self.found.insert(position, observation);
        if self.found.len() > self.limit {
            if order.descending {
                self.found.pop_first()
            } else {
                self.found.pop_last()
            };
        }
    }

    /// The jobs in their order.
    pub(super) fn into_jobs(self) -> Vec<(ListPosition, Observation)> {
        let mut jobs: Vec<_> = self.found.into_iter().collect();
        if self.order.descending {
            jobs.reverse();
        }
        jobs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::*;
    use crate::domain::details::{Details, MindBridgeDetails};
    use crate::domain::id::{ExternalId, SourceName};
    use crate::domain::job::{Job, Life};

    fn now() -> ClockReading {
        ClockReading { now: at(1_000), correction: SignedDuration::ZERO }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(name: &str, life: Life, updated: Option<i64>) -> Observation {
        let key = JobKey {
            source: SourceName::parse("audit").unwrap(),
            external_id: ExternalId::parse(name).unwrap(),
        };
        let details = Details::from(MindBridgeDetails::default());
        let job = Job { updated_at: updated.map(at), ..Job::new(key, life, details) };
        Observation::new(Arc::new(job), at(500), at(500))
    }

    fn names(jobs: &[(ListPosition, Observation)]) -> Vec<&str> {
        jobs.iter().map(|(position, _)| position.key.external_id.as_str()).collect()
    }

    fn first(
        order: JobListOrder,
        after: Option<&str>,
        limit: usize,
        jobs: &[Observation],
    ) -> Vec<(ListPosition, Observation)> {
        let after = after.map(|after| ListPosition::parse(after, order).unwrap());
        let mut first = FirstJobs::new(order, after, now(), limit);
        jobs.iter().cloned().for_each(|job| first.offer(job));
        first.into_jobs()
    }

    #[test]
    fn each_order_puts_equal_values_in_the_order_of_their_keys() {
        let jobs = [
            job("a", Life::Running, Some(30)),
            job("b", Life::Succeeded, Some(10)),
            job("c", Life::Queued, None),
            job("d", Life::Running, Some(30)),
        ];
        for (field, descending, expected) in [
            (JobListField::UpdatedAt, true, ["c", "d", "a", "b"]),
            (JobListField::UpdatedAt, false, ["b", "a", "d", "c"]),
            (JobListField::State, false, ["c", "a", "d", "b"]),
            (JobListField::Key, true, ["d", "c", "b", "a"]),
        ] {
            let order = JobListOrder { field, descending };
            assert_eq!(names(&first(order, None, 9, &jobs)), expected, "{order:?}");
        }
    }

    #[test]
    fn cursor_of_another_order_is_refused_with_a_reason() {
        let updated = JobListOrder { field: JobListField::UpdatedAt, descending: true };
        let state = JobListOrder { field: JobListField::State, descending: true };
        let jobs = first(updated, None, 1, &[job("a", Life::Running, Some(30))]);
        let cursor = jobs[0].0.cursor(updated);
        for other in [state, JobListOrder::default()] {
            let problem = ListPosition::parse(&cursor, other).unwrap_err();
            assert!(problem.message.contains("cursor of another orderBy"), "{}", problem.message);
        }
        let stored = jobs[0].0.cursor(JobListOrder::default());
        assert!(ListPosition::parse(&stored, updated).is_err());
        for bad in ["", ".", "u.", "u1.", "ux.am9i", "u99999999999999999999.am9i"] {
            assert!(ListPosition::parse(bad, updated).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Pages of any size contain each job once, in the order.
        #[test]
        fn pages_are_the_parts_of_the_whole_list(
            updated in prop::collection::vec(prop::option::of(0_i64..5), 0..30), size in 1_usize..7, field in 0_usize..4,
            descending in any::<bool>()
        ) {
            use JobListField::{CreatedAt, Key, State, UpdatedAt};
            let order = JobListOrder { field: [Key, UpdatedAt, CreatedAt, State][field], descending };
            let jobs: Vec<_> = updated.iter().enumerate().map(|(index, updated)| {
                let life = if index % 3 == 0 { Life::Running } else { Life::Canceled };
                job(&format!("j{index}"), life, *updated)
            }).collect();
            let whole = first(order, None, 100, &jobs);
            prop_assert_eq!(whole.len(), jobs.len());
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = first(order, after.as_deref(), size, &jobs);
                let Some((last, _)) = page.last() else { break };
                after = Some(last.cursor(order));
                paged.extend(page);
            }
            prop_assert_eq!(names(&paged), names(&whole));
        }
    }
}
