//! The filter for jobs of `jobList` and `jobFeed`.

use async_graphql::InputObject;

use crate::jobs::list;

use super::job_fields::GqlJobState;
use super::label::Label;
use super::scalars::DateTime;

/// Filters for jobs. A job must match all filters that are set. A null or empty filter matches every job.
#[derive(Clone, Debug, Default, InputObject)]
#[graphql(name = "JobFilter")]
pub struct JobFilterInput {
    /// Include only jobs of the sources with these names. A name that the client may not read matches nothing.
    sources: Option<Vec<String>>,
    /// Include only jobs in one of these states.
    states: Option<Vec<GqlJobState>>,
    /// Include only tracked jobs that have all of these labels.
    labels: Option<Vec<Label>>,
    /// Include only jobs with `freshness.observedAt` at or after this time.
    observed_since: Option<DateTime>,
}

impl From<JobFilterInput> for list::JobListFilter {
    fn from(filter: JobFilterInput) -> Self {
        Self {
            sources: filter.sources.unwrap_or_default(),
            states: filter.states.unwrap_or_default().into_iter().map(Into::into).collect(),
            labels: filter
                .labels
                .unwrap_or_default()
                .into_iter()
                .map(|label| (label.name, label.value))
                .collect(),
            observed_since: filter.observed_since.map(|since| since.0),
        }
    }
}
