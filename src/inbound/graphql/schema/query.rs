//! The root query type.

use async_graphql::{Context, ID, InputObject, Object, OneofObject, Result};

use crate::domain::error::{Problem, ProblemCode};
use crate::jobs::Jobs;
use crate::jobs::answer::LookupResult;
use crate::jobs::list;
use crate::jobs::visibility;

use super::job::{GqlJob, GqlJobState, JobResult, Node};
use super::job_connection::{JobConnection, page_size};
use super::mutation::Label;
use super::problem::{as_error, bad_input};
use super::scalars::{DateTime, Duration};
use super::source::GqlSource;

/// The maximum number of entries of one `jobs` or `nodes` field.
pub const REFS_MAX: usize = 200;

/// Identifies a job. Exactly one field must be set.
#[derive(Clone, Debug, OneofObject)]
#[graphql(name = "JobRef")]
pub enum JobRefInput {
    /// The global node ID of the job, as returned in `Job.id`.
    Id(ID),
    /// The source of the job and its ID in the upstream's API.
    External(ExternalJobRef),
}

/// Identifies a job by its source and its ID in the upstream's API.
#[derive(Clone, Debug, InputObject)]
pub struct ExternalJobRef {
    /// The name of the source, as returned in `Source.name`: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter
    /// or a digit.
    source: String,
    /// The ID in the upstream's API: `asyncResultId` for MindBridge, `schedule_id` for Supermetrics. Case-sensitive. 1
    /// to 200 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`, `~` and `:`, but not only dots; for Supermetrics, without `.`, `~`
    /// and `:`.
    external_id: String,
}

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

/// The root query type.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueryRoot;

#[Object(name = "Query")]
/// The root query type.
impl QueryRoot {
    /// Fetches an object by its global node ID. Null if `id` is malformed, the object does not exist, or the client is not
    /// allowed to read it. If the source cannot be read: null, with an entry in `errors`.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The global node ID of the object.")] id: ID,
    ) -> Option<Result<Node>> {
        let answers = lookup(ctx, &[visibility::RequestedRef::Id(id.0)], None).await;
        match answers {
            Ok(mut answers) => answers.pop().and_then(node),
            Err(error) => Some(Err(error)),
        }
    }

    /// Fetches a list of objects by their global node IDs. The result has the same length and order as `ids`. An entry is
    /// null if the ID is malformed, the object does not exist, or the client is not allowed to read it. If the source
    /// cannot be read: null, with an entry in `errors`.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The global node IDs of the objects, 1 to 200.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Result<Node>>>> {
        check_count("ids", ids.len())?;
        let refs: Vec<_> = ids.into_iter().map(|id| visibility::RequestedRef::Id(id.0)).collect();
        Ok(lookup(ctx, &refs, None).await?.into_iter().map(node).collect())
    }

    /// Returns a job, from the store if it is fresh enough, else from its source. A `JobProblem` if there is none to
    /// return.
    async fn job(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "ref", desc = "The job to fetch.")] reference: JobRefInput,
        #[graphql(
            desc = "The maximum age of the result for a job that is not terminal. If no result this fresh is\n\
                    available, an older one is returned and `freshness.staleReason` gives the reason. `0s` always\n\
                    fetches from the source. If null, the gateway's configured default applies."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<JobResult> {
        let reference = visibility::RequestedRef::from(reference);
        let answers = lookup(ctx, std::slice::from_ref(&reference), max_staleness).await?;
        let answer = answers.into_iter().next().ok_or("the job has no result")?;
        Ok(JobResult::new(reference, answer))
    }

    /// Returns a list of jobs, each from the store if it is fresh enough, else from its source. An entry is a `JobProblem`
    /// if there is no job to return. The result has the same length and order as `refs`. A job that is listed more than
    /// once is fetched once.
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The jobs to fetch, 1 to 200.")] refs: Vec<JobRefInput>,
        #[graphql(
            desc = "The maximum age of the result for a job that is not terminal. If no result this fresh is\n\
                    available, an older one is returned and `freshness.staleReason` gives the reason. `0s` always\n\
                    fetches from the source. If null, the gateway's configured default applies."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<Vec<JobResult>> {
        check_count("refs", refs.len())?;
        let refs: Vec<visibility::RequestedRef> = refs.into_iter().map(Into::into).collect();
        let answers = lookup(ctx, &refs, max_staleness).await?;
        Ok(refs
            .into_iter()
            .zip(answers)
            .map(|(reference, answer)| JobResult::new(reference, answer))
            .collect())
    }

    /// Waits until a job reaches a terminal state, and returns it. When `timeout` elapses, returns the job in its current
    /// state. A job that is not found yet is waited for as well; a `JobProblem` if it is still not found. `timeout: "0s"`
    /// does not wait. Intended for scripts, and for networks that do not support streams.
    async fn job_await(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "ref", desc = "The job to wait for.")] reference: JobRefInput,
        #[graphql(
            desc = "The maximum time to wait. Limited by the gateway's request timeout.",
            default_with = "await_for()"
        )]
        timeout: Duration,
    ) -> Result<JobResult> {
        let reference = visibility::RequestedRef::from(reference);
        let answer = ctx.data::<Jobs>()?.await_end(ctx.data()?, reference.clone(), timeout.0).await;
        Ok(JobResult::new(reference, answer))
    }

    /// A list of the jobs that the gateway has stored and the client is allowed to read, ordered by source and external
    /// ID. The list is read from the store without upstream calls; `freshness` gives the age of each job.
    async fn job_list(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filters for the jobs. If null, all jobs are returned.")] filter: Option<
            JobFilterInput,
        >,
        #[graphql(desc = "The number of jobs to return, 1 to 100.")] first: i32,
        #[graphql(
            desc = "Returns the items after this cursor, a `cursor` or the `endCursor` of the same connection. If\n\
                    null, the first page."
        )]
        after: Option<String>,
    ) -> Result<JobConnection> {
        let first = page_size(first)?;
        let filter = filter.unwrap_or_default().into();
        let jobs = ctx.data::<Jobs>()?;
        let page = jobs.list(ctx.data()?, &filter, first as usize, after.as_deref()).await;
        Ok(JobConnection::new(page.map_err(|problem| as_error(&problem))?, after, |key| jobs.labels(key)))
    }

    /// The sources that the client is allowed to read, ordered by name.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn sources(&self, ctx: &Context<'_>) -> Result<Vec<GqlSource>> {
        Ok(ctx.data::<Jobs>()?.sources(ctx.data()?).into_iter().map(GqlSource::from).collect())
    }
}

impl From<JobRefInput> for visibility::RequestedRef {
    fn from(reference: JobRefInput) -> Self {
        match reference {
            JobRefInput::Id(id) => Self::Id(id.0),
            JobRefInput::External(ExternalJobRef { source, external_id }) => {
                Self::External { source, external_id }
            }
        }
    }
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

/// The default timeout of `jobAwait`: below the idle timeout of common proxies.
const fn await_for() -> Duration {
    Duration(std::time::Duration::from_secs(25))
}

async fn lookup(
    ctx: &Context<'_>,
    refs: &[visibility::RequestedRef],
    max: Option<Duration>,
) -> Result<Vec<LookupResult>> {
    Ok(ctx.data::<Jobs>()?.lookup(ctx.data()?, refs, max.map(|max| max.0)).await)
}

/// A node, or null if there is none; any other problem is an error of this entry only.
fn node(answer: LookupResult) -> Option<Result<Node>> {
    match answer {
        Ok(seen) => Some(Ok(match GqlJob::new(seen) {
            GqlJob::MindBridgeJob(job) => Node::MindBridgeJob(job),
            GqlJob::SupermetricsJob(job) => Node::SupermetricsJob(job),
        })),
        Err(Problem { code: ProblemCode::NotFound | ProblemCode::InvalidRef, .. }) => None,
        Err(problem) => Some(Err(as_error(&problem))),
    }
}

pub(super) fn check_count(field: &str, count: usize) -> Result<()> {
    if (1..=REFS_MAX).contains(&count) {
        Ok(())
    } else if count == 0 {
        Err(bad_input(format!(
            "{field} must have 1 to {REFS_MAX} entries, not 0; add entries, or omit the field"
        )))
    } else {
        Err(bad_input(format!("{field} must have 1 to {REFS_MAX} entries, not {count}; split the list")))
    }
}
