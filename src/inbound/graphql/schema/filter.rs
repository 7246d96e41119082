//! The filter and the order of jobs, for `jobList` and `jobFeed`.

use async_graphql::{Enum, InputObject, Result};

use crate::inbound::graphql::plan::output::output_enum;
use crate::jobs::list::{self, JobListField, JobListFilter, SearchText};
use crate::jobs::tracking::Labels;

use super::job_fields::GqlJobState;
use super::label::Label;
use super::problem::bad_input;
use super::scalars::DateTime;

/// The maximum number of items of each list of a filter, which is compared with many jobs.
const ITEMS_MAX: usize = 100;

/// Filters for jobs. A job must match all filters that are set; each list has at most 100 items. A null or empty filter matches every job.
#[derive(Clone, Debug, Default, InputObject)]
#[graphql(name = "JobFilter")]
pub struct JobFilterInput {
    /// Include only jobs of the sources with these names. A name that the client may not read matches nothing.
    sources: Option<Vec<String>>,
    /// Include only jobs in one of these states.
    states: Option<Vec<GqlJobState>>,
    /// Include only jobs of one of these kinds, as in `MindBridgeJob.kind`. A Supermetrics query has no kind.
    kinds: Option<Vec<String>>,
    /// Include only tracked jobs that have all of these labels.
    labels: Option<Vec<Label>>,
    /// Include only jobs that the gateway knows in one of these ways.
    origins: Option<Vec<GqlJobOrigin>>,
    /// Include only jobs that contain this text in the external ID, the kind, the code or message of the failure, or the
    /// value of a label. Case and surrounding white space are ignored. At most 200 bytes.
    text: Option<String>,
    /// Include only jobs with `freshness.observedAt` at or after this time.
    observed_since: Option<DateTime>,
    /// Include only jobs that were last changed at or after this time: `finishedAt`, else `updatedAt`, else `stateSince`.
    updated_since: Option<DateTime>,
}

/// The ways in which the gateway knows a job.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
#[graphql(name = "JobOrigin", remote = "list::JobOrigin")]
pub enum GqlJobOrigin {
    /// A client tracks the job; see `trackJobs`.
    Tracked,
    /// A list of the source contained the job before any client read it.
    Discovered,
    /// A client read the job before any list contained it.
    Requested,
}

output_enum!(GqlJobOrigin);

/// The order of a list of jobs.
#[derive(Clone, Copy, Debug, InputObject)]
#[graphql(name = "JobOrder")]
pub struct JobOrderInput {
    /// What to order by. Jobs with the same value are ordered by source and external ID.
    field: JobOrderField,
    /// The direction of the order.
    #[graphql(default_with = "OrderDirection::Desc")]
    direction: OrderDirection,
}

/// The values by which jobs can be ordered.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
pub enum JobOrderField {
    /// When the job was last changed: `finishedAt`, else `updatedAt`, else `stateSince`.
    UpdatedAt,
    /// When the job was created: `createdAt`, else `firstSeenAt`.
    CreatedAt,
    /// The state, in the order of `JobState`.
    State,
}

/// The directions of an order.
#[derive(Clone, Copy, Debug, Enum, PartialEq, Eq)]
pub enum OrderDirection {
    /// The smallest or earliest value first.
    Asc,
    /// The largest or latest value first.
    Desc,
}

impl JobFilterInput {
    /// The filter of the use cases.
    ///
    /// # Errors
    /// When a list or the text is too long, or two labels of one name have different values.
    pub(in crate::inbound::graphql) fn parse(self) -> Result<JobListFilter> {
        let length = |list: Option<usize>| list.unwrap_or_default();
        for (name, items) in [
            ("sources", length(self.sources.as_ref().map(Vec::len))),
            ("states", length(self.states.as_ref().map(Vec::len))),
            ("kinds", length(self.kinds.as_ref().map(Vec::len))),
            ("labels", length(self.labels.as_ref().map(Vec::len))),
            ("origins", length(self.origins.as_ref().map(Vec::len))),
        ] {
            if items > ITEMS_MAX {
                return Err(bad_input(format!("filter.{name} has more than {ITEMS_MAX} items")));
            }
        }
        let mut labels = Labels::new();
        for Label { name, value } in self.labels.unwrap_or_default() {
            if labels.insert(name, value.clone()).is_some_and(|other| other != value) {
                return Err(bad_input("filter.labels has two values for one name; no job has both"));
            }
        }
        let text = self.text.as_deref().map(SearchText::parse).transpose();
        Ok(JobListFilter {
            sources: self.sources.unwrap_or_default(),
            states: self.states.unwrap_or_default().into_iter().map(Into::into).collect(),
            kinds: self.kinds.unwrap_or_default(),
            labels,
            origins: self.origins.unwrap_or_default().into_iter().map(Into::into).collect(),
            text: text.map_err(|error| bad_input(format!("filter.text {error}")))?.flatten(),
            observed_since: self.observed_since.map(|since| since.0),
            updated_since: self.updated_since.map(|since| since.0),
        })
    }
}

impl From<JobOrderInput> for list::JobListOrder {
    fn from(JobOrderInput { field, direction }: JobOrderInput) -> Self {
        let field = match field {
            JobOrderField::UpdatedAt => JobListField::UpdatedAt,
            JobOrderField::CreatedAt => JobListField::CreatedAt,
            JobOrderField::State => JobListField::State,
        };
        Self { field, descending: direction == OrderDirection::Desc }
    }
}
