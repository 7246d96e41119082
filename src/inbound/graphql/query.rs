//! The root of all questions.

use async_graphql::{Context, ID, InputObject, Object, OneofObject, Result};

use crate::domain::error::{Problem, ProblemCode};
use crate::jobs::Jobs;
use crate::jobs::access;
use crate::jobs::answer::Answer;
use crate::jobs::list;

use super::connection::{JobConnection, page_size};
use super::job::{Job, JobResult, JobState, Node};
use super::mutation::Label;
use super::problem::{as_error, bad_input};
use super::scalars::{DateTime, Duration};
use super::source::Source;

/// The most jobs of one `jobs` or `nodes` field.
pub const REFS_MAX: usize = 200;

/// Which job: exactly one of the two.
#[derive(Clone, Debug, OneofObject)]
pub enum JobRef {
    /// By the opaque id that the gateway gave out.
    Id(ID),
    /// By source and the upstream's own id.
    External(ExternalJobRef),
}

/// A job by source and the upstream's own id.
#[derive(Clone, Debug, InputObject)]
pub struct ExternalJobRef {
    /// The name of a source, as in `sources`.
    source: String,
    /// The upstream's own id: MindBridge `asyncResultId`, Supermetrics `schedule_id`. Case matters.
    external_id: String,
}

/// Which of the held jobs to list. All given conditions hold together.
#[derive(Clone, Debug, Default, InputObject)]
pub struct JobFilter {
    /// Only jobs of one of these sources.
    sources: Option<Vec<String>>,
    /// Only jobs in one of these states.
    states: Option<Vec<JobState>>,
    /// Only tracked jobs that carry all of these labels.
    labels: Option<Vec<Label>>,
    /// Only jobs observed at this time or later.
    observed_since: Option<DateTime>,
}

/// Questions. None of them changes anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query;

#[Object]
/// Questions. None of them changes anything.
impl Query {
    /// Anything by its opaque id; null when there is no such thing, or none that you may read.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "An id that the gateway gave out.")] id: ID,
    ) -> Option<Result<Node>> {
        let answers = look(ctx, &[access::JobRef::Id(id.0)], None).await;
        match answers {
            Ok(mut answers) => answers.pop().and_then(node),
            Err(error) => Some(Err(error)),
        }
    }

    /// Things by their opaque ids: same order, same length, at most 200; null where there is no such thing, or none
    /// that you may read.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Ids that the gateway gave out, 1 to 200.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Result<Node>>>> {
        check_count("ids", ids.len())?;
        let refs: Vec<_> = ids.into_iter().map(|id| access::JobRef::Id(id.0)).collect();
        Ok(look(ctx, &refs, None).await?.into_iter().map(node).collect())
    }

    /// One job.
    async fn job(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "ref", desc = "Which job.")] reference: JobRef,
        #[graphql(
            desc = "How old the answer about an unfinished job may be. An older one says why in `freshness`."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<JobResult> {
        let reference = access::JobRef::from(reference);
        let answers = look(ctx, std::slice::from_ref(&reference), max_staleness).await?;
        let answer = answers.into_iter().next().ok_or("no answer")?;
        Ok(JobResult::new(reference, answer))
    }

    /// Many jobs: same order, same length, at most 200. Each is asked for once however often it is named.
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, 1 to 200.")] refs: Vec<JobRef>,
        #[graphql(
            desc = "How old the answer about an unfinished job may be. An older one says why in `freshness`."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<Vec<JobResult>> {
        check_count("refs", refs.len())?;
        let refs: Vec<access::JobRef> = refs.into_iter().map(Into::into).collect();
        let answers = look(ctx, &refs, max_staleness).await?;
        Ok(refs
            .into_iter()
            .zip(answers)
            .map(|(reference, answer)| JobResult::new(reference, answer))
            .collect())
    }

    /// One job at its end, or as it stands when the time is up: for scripts, and for networks without streams. A job that is
    /// not found is waited for, since it may have been made a moment ago.
    async fn job_await(
        &self,
        ctx: &Context<'_>,
        #[graphql(name = "ref", desc = "Which job.")] reference: JobRef,
        #[graphql(
            desc = "How long to wait; at most what the gateway gives one request.",
            default_with = "await_for()"
        )]
        timeout: Duration,
    ) -> Result<JobResult> {
        let reference = access::JobRef::from(reference);
        let answer = ctx.data::<Jobs>()?.await_end(ctx.data()?, reference.clone(), timeout.0).await;
        Ok(JobResult::new(reference, answer))
    }

    /// The jobs that the gateway holds, as far as you may read them. No upstream is asked: `freshness` says how old
    /// each is.
    async fn tracked_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which of them; all when left out.")] filter: Option<JobFilter>,
        #[graphql(desc = "How many, 1 to 100.")] first: i32,
        #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
    ) -> Result<JobConnection> {
        let first = page_size(first)?;
        let filter = filter.unwrap_or_default().into();
        let jobs = ctx.data::<Jobs>()?;
        let page = jobs.list(ctx.data()?, &filter, first as usize, after.as_deref()).await;
        Ok(JobConnection::new(page.map_err(|problem| as_error(&problem))?, after, |key| jobs.labels(key)))
    }

    /// The sources you may read, by name.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn sources(&self, ctx: &Context<'_>) -> Result<Vec<Source>> {
        Ok(ctx.data::<Jobs>()?.sources(ctx.data()?).into_iter().map(Source::from).collect())
    }
}

impl From<JobRef> for access::JobRef {
    fn from(reference: JobRef) -> Self {
        match reference {
            JobRef::Id(id) => Self::Id(id.0),
            JobRef::External(ExternalJobRef { source, external_id }) => {
                Self::External { source, external_id }
            }
        }
    }
}

impl From<JobFilter> for list::JobFilter {
    fn from(filter: JobFilter) -> Self {
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

/// How long `jobAwait` waits unless told: below the idle time of common proxies.
const fn await_for() -> Duration {
    Duration(std::time::Duration::from_secs(25))
}

async fn look(ctx: &Context<'_>, refs: &[access::JobRef], max: Option<Duration>) -> Result<Vec<Answer>> {
    Ok(ctx.data::<Jobs>()?.lookup(ctx.data()?, refs, max.map(|max| max.0)).await)
}

/// A thing, or null where there is none; what else went wrong is an error of this entry alone.
fn node(answer: Answer) -> Option<Result<Node>> {
    match answer {
        Ok(seen) => Some(Ok(match Job::new(seen) {
            Job::MindBridgeJob(job) => Node::MindBridgeJob(job),
            Job::SupermetricsJob(job) => Node::SupermetricsJob(job),
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
            "{field} is empty; give 1 to {REFS_MAX} entries, or leave out the field that takes them"
        )))
    } else {
        Err(bad_input(format!("{field} must hold 1 to {REFS_MAX} entries, not {count}; split the list")))
    }
}
