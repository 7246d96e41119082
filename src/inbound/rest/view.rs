//! A job as plain JSON: the fields of the GraphQL schema under the same names.

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::domain::details::Details;
use crate::domain::history::Transition;
use crate::domain::job::{Failure, Progress};
use crate::domain::observation::Observation;
use crate::domain::sightings::Sightings;
use crate::domain::upstream::Upstream;
use crate::inbound::http::etag;
use crate::jobs::JobEstimate;
use crate::jobs::answer::JobSnapshot;

/// The retry delay for a job that is not followed, in seconds.
const DEFAULT_RETRY_AFTER: u64 = 5;

/// The whole response. Serialized directly and not through values, which would round the digits of large numbers.
pub(super) fn body(seen: &JobSnapshot, estimate: Option<JobEstimate>) -> String {
    write(&JobView::new(seen, estimate))
}

/// A weak tag of the job's content: two responses that differ only in age, in the estimate, or in the id of the upstream
/// request, are equal for a reader.
pub(super) fn etag(seen: &JobSnapshot) -> HeaderValue {
    let mut observation = seen.observation.clone();
    Arc::make_mut(&mut observation.job).details.common_mut().clear_volatile();
    // another replica may have observed it earlier
    let facts = write(&(JobFacts::of(&observation, Sightings::default()), seen.stale.is_some()));
    etag::weak(facts.as_bytes())
}

/// Whole seconds until the next request is useful: until the gateway's next poll, or a default; at least one.
pub(super) fn worth_asking_in(seen: &JobSnapshot) -> u64 {
    let until = seen.next_poll.map(|next| next.duration_since(seen.observed_at).as_secs());
    let left = until.map(|seconds| u64::try_from(seconds).unwrap_or(0).saturating_sub(seen.age.as_secs()));
    left.unwrap_or(DEFAULT_RETRY_AFTER).max(1)
}

fn write(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("texts, numbers and JSON can be serialized"))
}

/// A job.
#[derive(Serialize)]
pub(super) struct JobView<'a> {
    #[serde(flatten)]
    facts: JobFacts<'a>,
    transitions: Vec<TransitionBody>,
    estimate: Option<EstimateBody>,
    freshness: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransitionBody {
    state: &'static str,
    native_state: Option<String>,
    observed_at: Timestamp,
    upstream_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobFacts<'a> {
    id: String,
    source: &'a str,
    external_id: &'a str,
    state: &'static str,
    is_terminal: bool,
    native_state: Option<&'a str>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    first_seen_at: Option<Timestamp>,
    state_since: Option<Timestamp>,
    terminal_seen_at: Option<Timestamp>,
    progress: Option<Progress>,
    failure: Option<&'a Failure>,
    #[serde(flatten)]
    details: DetailsByUpstream<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EstimateBody {
    expected_finish_at: Timestamp,
    earliest: Timestamp,
    latest: Timestamp,
    sample_size: u32,
}

impl<'a> JobView<'a> {
    /// A job with its freshness.
    pub(super) fn new(seen: &'a JobSnapshot, estimate: Option<JobEstimate>) -> Self {
        let freshness = json!({
            "observedAt": seen.observed_at,
            "ageMs": u64::try_from(seen.age.as_millis()).unwrap_or(u64::MAX),
            "isStale": seen.stale.is_some(),
            "staleReason": seen.stale.map(crate::jobs::answer::StaleReason::name),
            "nextPollAt": seen.next_poll,
        });
        Self {
            facts: JobFacts::of(&seen.observation, seen.sightings()),
            transitions: seen.transitions().map(TransitionBody::from).collect(),
            estimate: estimate.map(EstimateBody::from),
            freshness,
        }
    }
}

impl From<JobEstimate> for EstimateBody {
    fn from(estimate: JobEstimate) -> Self {
        let JobEstimate { expected_finish_at, earliest, latest, sample_size } = estimate;
        Self { expected_finish_at, earliest, latest, sample_size }
    }
}

impl From<Transition> for TransitionBody {
    fn from(transition: Transition) -> Self {
        let Transition { state, native_state, observed_at, upstream_at } = transition;
        let native_state = native_state.as_deref().map(ToOwned::to_owned);
        Self { state: state.name(), native_state, observed_at, upstream_at }
    }
}

impl<'a> JobFacts<'a> {
    fn of(observation: &'a Observation, sightings: Sightings) -> Self {
        let job = &*observation.job;
        Self {
            id: job.key.node_id(),
            source: job.key.source.as_str(),
            external_id: job.key.external_id.as_str(),
            state: job.state().name(),
            is_terminal: job.is_terminal(),
            native_state: job.native_state.as_deref(),
            created_at: job.created_at,
            updated_at: job.updated_at,
            finished_at: job.finished_at,
            first_seen_at: sightings.first_seen_at,
            state_since: sightings.state_since,
            terminal_seen_at: sightings.terminal_seen_at,
            progress: job.progress,
            failure: job.failure(),
            details: DetailsByUpstream(&job.details),
        }
    }
}

/// One member for each upstream, by its name: the details of the job, or null for another upstream.
struct DetailsByUpstream<'a>(&'a Details);

impl Serialize for DetailsByUpstream<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own = self.0.upstream();
        serializer.collect_map(
            Upstream::ALL.iter().map(|one| (one.profile().name, (*one == own).then_some(self.0))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::details::{QueryMeta, SupermetricsDetails};
    use crate::domain::id::{ExternalId, JobKey, SourceName};
    use crate::domain::job::{Job, Life};
    use crate::domain::json_text::JsonText;

    #[test]
    fn details_are_under_the_name_of_their_upstream() {
        let details = Details::from(SupermetricsDetails {
            query: Some(QueryMeta {
                accounts: JsonText::parse("18446744073709551616.10").into_iter().collect(),
                ..Default::default()
            }),
            ..Default::default()
        });
        let key =
            JobKey { source: SourceName::parse("s").unwrap(), external_id: ExternalId::parse("j").unwrap() };
        let job = Job::new(key, Life::Running, details);
        let at = Timestamp::UNIX_EPOCH;
        let observation = Observation::new(Arc::new(job), at, at);
        let written = write(&JobView {
            facts: JobFacts::of(&observation, Sightings::default()),
            transitions: Vec::new(),
            estimate: None,
            freshness: Value::Null,
        });
        let (_, end) = written.split_once("\"progress\"").unwrap();
        let expected = ":null,\"failure\":null,\"mindbridge\":null,\"supermetrics\":{\"requestId\":null,\"scheduleId\":null,\
             \"queue\":null,\"query\":{\"startDate\":null,\"endDate\":null,\"accounts\":[18446744073709551616.10],\
             \"fields\":[]},\"result\":null},";
        assert!(end.starts_with(expected), "{end}");
    }
}
