//! The root query type.

use async_graphql::{Context, ID, Object, Result};

use crate::domain::error::{Problem, ProblemCode};
use crate::domain::principal::Principal;
use crate::jobs::Jobs;
use crate::jobs::answer::LookupResult;
use crate::jobs::list::JobListRequest;
use crate::jobs::visibility::RequestedRef;

use crate::inbound::graphql::document::limits::field_cost::FieldCost;

use super::filter::{JobFilterInput, JobOrderInput};
use super::job::{GqlJob, JobResult, Node};
use super::job_connection::JobConnection;
use super::page::page_size;
use super::problem::as_error;
use super::reference::{JobRefInput, check_count, is_count};
use super::scalars::Duration;
use super::source::GqlSource;
use super::viewer::GqlViewer;

/// What each root field costs.
pub(super) const COSTS: [(&str, FieldCost); 8] = [
    ("node", FieldCost::One),
    ("nodes", FieldCost::EachOf("ids")),
    ("job", FieldCost::One),
    ("jobs", FieldCost::EachOf("refs")),
    ("jobAwait", FieldCost::One),
    ("jobList", FieldCost::Page("first")),
    ("sources", FieldCost::List(50)),
    ("viewer", FieldCost::Free),
];

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
        match (ctx.data(), ctx.data()) {
            (Ok(jobs), Ok(principal)) => node(jobs, principal, &RequestedRef::id(id.0)).await,
            (Err(error), _) | (_, Err(error)) => Some(Err(error)),
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
        let refs: Vec<_> = ids.into_iter().map(|id| RequestedRef::id(id.0)).collect();
        nodes(ctx.data()?, ctx.data()?, &refs).await
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
        job(ctx.data()?, ctx.data()?, &reference.into(), max_staleness).await
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
        let refs: Vec<_> = refs.into_iter().map(Into::into).collect();
        jobs(ctx.data()?, ctx.data()?, &refs, max_staleness).await
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
            default_with = "AWAIT_FOR"
        )]
        timeout: Duration,
    ) -> Result<JobResult> {
        Ok(job_await(ctx.data()?, ctx.data()?, &reference.into(), timeout).await)
    }

    /// A list of the jobs that the gateway has stored and the client is allowed to read. The list is read from the store
    /// without upstream calls; `freshness` gives the age of each job. A page without `orderBy` and `totalCount` costs
    /// little; each of them reads all jobs that match.
    async fn job_list(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filters for the jobs. If null, all jobs are returned.")] filter: Option<
            JobFilterInput,
        >,
        #[graphql(desc = "The order of the jobs. If null, by source and external ID, ascending.")]
        order_by: Option<JobOrderInput>,
        #[graphql(desc = "The number of jobs to return, 1 to 100.")] first: i32,
        #[graphql(
            desc = "Returns the items after this cursor, a `cursor` or the `endCursor` of a page in the same order. If\n\
                    null, the first page."
        )]
        after: Option<String>,
    ) -> Result<JobConnection> {
        let counts = ctx.field().selection_set().any(|field| field.name() == "totalCount");
        let page = JobListCall { filter, order_by, first, after, counts };
        job_list(ctx.data()?, ctx.data()?, page).await
    }

    /// The sources that the client is allowed to read, ordered by name.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn sources(&self, ctx: &Context<'_>) -> Result<Vec<GqlSource>> {
        Ok(sources(ctx.data()?, ctx.data()?))
    }

    /// The client that sends the request.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn viewer(&self, ctx: &Context<'_>) -> Result<GqlViewer> {
        Ok(GqlViewer::of(ctx.data()?))
    }
}

/// The arguments of `jobList`, and whether `totalCount` is selected.
#[derive(Clone, Debug)]
pub(in crate::inbound::graphql) struct JobListCall {
    pub(in crate::inbound::graphql) filter: Option<JobFilterInput>,
    pub(in crate::inbound::graphql) order_by: Option<JobOrderInput>,
    pub(in crate::inbound::graphql) first: i32,
    pub(in crate::inbound::graphql) after: Option<String>,
    pub(in crate::inbound::graphql) counts: bool,
}

/// The default timeout of `jobAwait`: below the idle timeout of common proxies.
pub(in crate::inbound::graphql) const AWAIT_FOR: Duration = Duration(std::time::Duration::from_secs(25));

/// Resolves `node`.
pub(in crate::inbound::graphql) async fn node(
    jobs: &Jobs,
    principal: &Principal,
    id: &RequestedRef,
) -> Option<Result<Node>> {
    let mut answers = jobs.lookup(principal, std::slice::from_ref(id), None).await;
    answers.pop().and_then(as_node)
}

/// Resolves `nodes`.
///
/// # Errors
/// Returns an error if there are too many.
pub(in crate::inbound::graphql) async fn nodes(
    jobs: &Jobs,
    principal: &Principal,
    ids: &[RequestedRef],
) -> Result<Vec<Option<Result<Node>>>> {
    check_count("ids", ids.len())?;
    Ok(jobs.lookup(principal, ids, None).await.into_iter().map(as_node).collect())
}

/// Resolves `job`.
///
/// # Errors
/// None that a client can cause.
pub(in crate::inbound::graphql) async fn job(
    jobs: &Jobs,
    principal: &Principal,
    reference: &RequestedRef,
    max_staleness: Option<Duration>,
) -> Result<JobResult> {
    let max_staleness = max_staleness.map(|max| max.0);
    let answers = jobs.lookup(principal, std::slice::from_ref(reference), max_staleness).await;
    let answer = answers.into_iter().next().ok_or("the job has no result")?;
    Ok(JobResult::new(reference, answer))
}

/// Resolves `job`, if the job is in memory and as fresh as required.
pub(in crate::inbound::graphql) fn held_job(
    jobs: &Jobs,
    principal: &Principal,
    reference: &RequestedRef,
    max_staleness: Option<Duration>,
) -> Option<JobResult> {
    let max_staleness = max_staleness.map(|max| max.0);
    jobs.held(principal, std::slice::from_ref(reference), max_staleness, |seen| GqlJob::new(seen).into())?
        .pop()
}

/// The same for `jobs`.
pub(in crate::inbound::graphql) fn held_jobs(
    jobs: &Jobs,
    principal: &Principal,
    refs: &[RequestedRef],
    max_staleness: Option<Duration>,
) -> Option<Vec<JobResult>> {
    if !is_count(refs.len()) {
        return None;
    }
    jobs.held(principal, refs, max_staleness.map(|max| max.0), |seen| GqlJob::new(seen).into())
}

/// Resolves `jobs`.
///
/// # Errors
/// Returns an error if there are too many.
pub(in crate::inbound::graphql) async fn jobs(
    jobs: &Jobs,
    principal: &Principal,
    refs: &[RequestedRef],
    max_staleness: Option<Duration>,
) -> Result<Vec<JobResult>> {
    check_count("refs", refs.len())?;
    let answers = jobs.lookup(principal, refs, max_staleness.map(|max| max.0)).await;
    Ok(refs.iter().zip(answers).map(|(reference, answer)| JobResult::new(reference, answer)).collect())
}

/// Resolves `jobAwait`.
pub(in crate::inbound::graphql) async fn job_await(
    jobs: &Jobs,
    principal: &Principal,
    reference: &RequestedRef,
    timeout: Duration,
) -> JobResult {
    let answer = jobs.await_end(principal, reference.clone(), timeout.0).await;
    JobResult::new(reference, answer)
}

/// Resolves `jobList`.
///
/// # Errors
/// Returns an error if the filter, the size of the page or the cursor is not valid.
pub(in crate::inbound::graphql) async fn job_list(
    jobs: &Jobs,
    principal: &Principal,
    JobListCall { filter, order_by, first, after, counts }: JobListCall,
) -> Result<JobConnection> {
    let request = JobListRequest {
        filter: filter.unwrap_or_default().parse()?,
        order: order_by.map(Into::into).unwrap_or_default(),
        first: page_size(first)? as usize,
        after,
        counts,
    };
    let page = jobs.list(principal, &request).await.map_err(|problem| as_error(&problem))?;
    Ok(JobConnection::new(page, request.after))
}

/// Resolves `sources`.
pub(in crate::inbound::graphql) fn sources(jobs: &Jobs, principal: &Principal) -> Vec<GqlSource> {
    jobs.sources(principal).into_iter().map(GqlSource::from).collect()
}

/// A node, or null if there is none; any other problem is an error of this entry only.
fn as_node(answer: LookupResult) -> Option<Result<Node>> {
    match answer {
        Ok(seen) => Some(Ok(Node::new(seen))),
        Err(Problem { code: ProblemCode::NotFound | ProblemCode::InvalidRef, .. }) => None,
        Err(problem) => Some(Err(as_error(&problem))),
    }
}
