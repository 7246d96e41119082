//! The filter of a list or a feed of jobs.

use jiff::Timestamp;

use crate::domain::job::Job;
use crate::domain::observation::Observation;
use crate::domain::state::JobState;
use crate::jobs::tracked_jobs::TrackedJobs;
use crate::ports::clock::ClockReading;
use crate::ports::ledger::Labels;

/// Selects which of the stored jobs to list. An empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobListFilter {
    /// Names of sources, as the client wrote them. A source that the client may not read matches nothing.
    pub sources: Vec<String>,
    /// States.
    pub states: Vec<JobState>,
    /// Kinds, as the upstream names them.
    pub kinds: Vec<String>,
    /// Labels of tracked jobs; a job must have all of them.
    pub labels: Labels,
    /// How the gateway knows the jobs.
    pub origins: Vec<JobOrigin>,
    /// A text in the job.
    pub text: Option<SearchText>,
    /// Observed at this time or later, by the system clock.
    pub observed_since: Option<Timestamp>,
    /// Last changed at this time or later; see [`last_change`].
    pub updated_since: Option<Timestamp>,
}

/// The bytes of a text that are searched: an upstream can send messages of any length.
const SEARCHED: usize = 4096;

/// How the gateway knows a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobOrigin {
    /// A client tracks it.
    Tracked,
    /// A list of its source contained it before any client read it.
    Discovered,
    /// A client read it first.
    Requested,
}

impl JobOrigin {
    /// Every origin.
    pub const ALL: [Self; 3] = [Self::Tracked, Self::Discovered, Self::Requested];

    /// The name in the schema.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracked => "TRACKED",
            Self::Discovered => "DISCOVERED",
            Self::Requested => "REQUESTED",
        }
    }

    /// The origin of a job.
    pub(in crate::jobs) fn of(observation: &Observation, is_tracked: bool) -> Self {
        match (is_tracked, observation.sightings.discovered) {
            (true, _) => Self::Tracked,
            (false, true) => Self::Discovered,
            (false, false) => Self::Requested,
        }
    }
}

/// A text to search for, without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// The maximum length in bytes.
    pub const MAX: usize = 200;

    /// A text without the white space around it; `None` if nothing is left.
    ///
    /// # Errors
    /// When it is longer than [`SearchText::MAX`].
    pub fn parse(text: &str) -> Result<Option<Self>, SearchTextTooLong> {
        let text = text.trim();
        if text.len() > Self::MAX {
            return Err(SearchTextTooLong);
        }
        Ok((!text.is_empty()).then(|| Self(text.to_lowercase())))
    }

    fn is_in(&self, text: &str) -> bool {
        let searched = text.get(..text.floor_char_boundary(SEARCHED)).unwrap_or(text);
        searched.to_lowercase().contains(&self.0)
    }

    /// Whether a job contains it in its external id, kind or failure, or in the value of a label.
    fn matches(&self, job: &Job, labels: impl FnOnce() -> Option<Labels>) -> bool {
        let failure = job.failure().map(|failure| [failure.code.as_deref(), failure.message.as_deref()]);
        let mut texts = [Some(job.key.external_id.as_str()), job.kind()]
            .into_iter()
            .chain(failure.into_iter().flatten())
            .flatten();
        texts.any(|text| self.is_in(text))
            || labels().is_some_and(|labels| labels.values().any(|value| self.is_in(value)))
    }
}

/// A text to search for is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is longer than {} bytes", SearchText::MAX)]
pub struct SearchTextTooLong;

/// When a job was last changed: by the upstream's clock, or, where it reports no time, when its state was first observed
/// by the system clock.
pub(in crate::jobs) fn last_change(observation: &Observation, now: ClockReading) -> Timestamp {
    let observed = || now.date(observation.sightings.state_since.unwrap_or(observation.observed_at));
    observation.job.changed_at().unwrap_or_else(observed)
}

impl JobListFilter {
    /// Whether the stores apply all of it, or an index of the tracked jobs does.
    pub(super) fn is_stored(&self) -> bool {
        let Self { sources: _, states: _, labels: _, observed_since: _, kinds, origins, text, updated_since } =
            self;
        kinds.is_empty() && origins.is_empty() && text.is_none() && updated_since.is_none()
    }

    /// Whether a job matches.
    pub(in crate::jobs) fn matches(
        &self,
        observation: &Observation,
        tracked: &TrackedJobs,
        now: ClockReading,
    ) -> bool {
        let job = &observation.job;
        let (source, state) = (job.key.source.as_str(), job.state());
        is_any(&self.sources, |one| one == source)
            && is_any(&self.states, |one| *one == state)
            && is_any(&self.kinds, |one| job.kind() == Some(one))
            && self.observed_since.is_none_or(|since| now.date(observation.observed_at) >= since)
            && self.updated_since.is_none_or(|since| last_change(observation, now) >= since)
            && tracked.carries(&job.key, &self.labels)
            && (self.origins.is_empty()
                || self.origins.contains(&JobOrigin::of(observation, tracked.holds(&job.key))))
            && self.text.as_ref().is_none_or(|text| text.matches(job, || tracked.labels(&job.key)))
    }
}

/// Whether a list contains a match, or is empty.
fn is_any<T>(list: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::domain::details::{Details, MindBridgeDetails};
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Failure, Life};
    use crate::domain::sightings::Sightings;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A failed analysis that changed at second 50 by the upstream's clock, and was observed at second 100.
    fn failed() -> Observation {
        let key = JobKey {
            source: SourceName::parse("audit").unwrap(),
            external_id: ExternalId::parse("Ledger-7").unwrap(),
        };
        let failure = Failure { code: Some("BAD_ROW".into()), message: Some("Kein gültiges Datum".into()) };
        let details = MindBridgeDetails { kind: Some("ANALYSIS_RUN".into()), ..MindBridgeDetails::default() };
        let mut job = Job::new(key, Life::Failed(failure), Details::MindBridge(Box::new(details)));
        job.updated_at = Some(at(50));
        Observation::new(Arc::new(job), at(99), at(100))
    }

    fn matches(filter: &JobListFilter, observation: &Observation) -> bool {
        let now = ClockReading { now: at(200), correction: SignedDuration::from_secs(1_000) };
        filter.matches(observation, &TrackedJobs::default(), now)
    }

    #[test]
    fn text_is_found_in_id_kind_and_failure_in_any_case() {
        for (text, expected) in [
            ("ledger", true),
            ("analysis_run", true),
            ("bad_r", true),
            ("GÜLTIGES", true),
            (" dger-7 ", true),
            ("audit", false),
            ("failed", false),
        ] {
            let filter = JobListFilter { text: SearchText::parse(text).unwrap(), ..JobListFilter::default() };
            assert_eq!(matches(&filter, &failed()), expected, "{text}");
        }
        assert_eq!(SearchText::parse(" \t"), Ok(None));
        assert_eq!(SearchText::parse(&"a".repeat(SearchText::MAX + 1)), Err(SearchTextTooLong));
    }

    #[test]
    fn kinds_match_exactly() {
        for (kinds, expected) in [
            (vec![], true),
            (vec!["ANALYSIS_RUN"], true),
            (vec!["X", "ANALYSIS_RUN"], true),
            (vec!["ANALYSIS"], false),
        ] {
            let kinds = kinds.into_iter().map(ToOwned::to_owned).collect();
            let filter = JobListFilter { kinds, ..JobListFilter::default() };
            assert_eq!(matches(&filter, &failed()), expected, "{filter:?}");
        }
    }

    #[test]
    fn times_are_compared_by_the_clock_that_set_them() {
        let updated = |second| JobListFilter { updated_since: Some(at(second)), ..JobListFilter::default() };
        assert_eq!([50, 51].map(|since| matches(&updated(since), &failed())), [true, false]);
        let mut undated = failed();
        undated.job = Arc::new(Job { updated_at: None, ..(*undated.job).clone() });
        assert_eq!([1_100, 1_101].map(|since| matches(&updated(since), &undated)), [true, false]);
        let observed =
            |second| JobListFilter { observed_since: Some(at(second)), ..JobListFilter::default() };
        assert_eq!([1_100, 1_101].map(|since| matches(&observed(since), &failed())), [true, false]);
    }

    #[test]
    fn origin_of_a_job_that_no_client_requested_is_discovered() {
        let discovered =
            Observation { sightings: Sightings { discovered: true, ..failed().sightings }, ..failed() };
        let of = |origin| JobListFilter { origins: vec![origin], ..JobListFilter::default() };
        for (origin, requested, found) in [
            (JobOrigin::Requested, true, false),
            (JobOrigin::Discovered, false, true),
            (JobOrigin::Tracked, false, false),
        ] {
            assert_eq!(matches(&of(origin), &failed()), requested, "{origin:?}");
            assert_eq!(matches(&of(origin), &discovered), found, "{origin:?}");
        }
    }
}
