//! The root subscription type.

use std::sync::Arc;

use async_graphql::{Context, Result, Subscription};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};

use crate::domain::principal::Principal;
use crate::inbound::graphql::plan::validation::ValidateOnly;
use crate::jobs::Jobs;
use crate::jobs::watch::{FeedUpdate, WatchUpdate};

use crate::inbound::graphql::document::limits::field_cost::FieldCost;

use super::filter::JobFilterInput;
use super::reference::{JobRefInput, check_count};
use super::scalars::Duration;
use super::update::JobUpdate;

/// What each root field costs.
pub(super) const COSTS: [(&str, FieldCost); 2] =
    [("jobFeed", FieldCost::Free), ("jobUpdates", FieldCost::EachOf("refs"))];

/// The id of the last event that a client of SSE received, by its header `Last-Event-ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct LastEventId(pub(in crate::inbound::graphql) Arc<str>);

/// The root subscription type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscriptions;

#[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
#[Subscription(name = "Subscription")]
/// The root subscription type. An upstream outage is reported in `freshness` and does not end a subscription. A slow
/// client receives fewer updates; the final update of a job is always delivered.
impl Subscriptions {
    /// Updates to a list of jobs: a snapshot of each job, then its changes. Completes after the final update of every job.
    async fn job_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The jobs to subscribe to, 1 to 200.")] refs: Vec<JobRefInput>,
        #[graphql(
            desc = "The maximum age of the state of a job that is not terminal. Applies to the snapshot, and determines\n\
                    the poll interval, within the gateway's configured limits. If null, the gateway's configured default\n\
                    applies to the snapshot, and the gateway chooses the interval."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<BoxStream<'static, JobUpdate>> {
        if ValidateOnly::applies_to(ctx) {
            return Ok(stream::empty().boxed());
        }
        let updates = job_updates(ctx.data()?, ctx.data()?, refs, max_staleness)?;
        Ok(updates.map(JobUpdate::from).boxed())
    }

    /// Updates to all jobs that the client is allowed to read, from the time of the subscription, or from a cursor. Includes
    /// an update when the state of a polled job becomes stale and when it is fresh again. Completes only if the client falls
    /// more than 10,000 jobs behind; then subscribe again and read `jobList`.
    async fn job_feed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Filters for the jobs. If null, updates to all jobs are delivered.")] filter: Option<
            JobFilterInput,
        >,
        #[graphql(
            desc = "The `cursor` of the last update that the client received. The first update is then `RESUMED`, and the\n\
                    changes after the cursor follow, of each job the last one; or it is `RESET`, if the gateway no longer\n\
                    has all of them or does not know the cursor. Over SSE, the header `Last-Event-ID` takes precedence."
        )]
        after: Option<String>,
    ) -> Result<BoxStream<'static, JobUpdate>> {
        if ValidateOnly::applies_to(ctx) {
            return Ok(stream::empty().boxed());
        }
        let after = ctx.data_opt::<LastEventId>().map(|last| last.0.to_string()).or(after);
        Ok(job_feed(ctx.data()?, ctx.data()?, filter, after.as_deref())?.map(JobUpdate::from).boxed())
    }
}

/// Starts `jobUpdates`.
///
/// # Errors
/// Returns an error if there are too many references.
pub(in crate::inbound::graphql) fn job_updates(
    jobs: &Jobs,
    principal: &Principal,
    refs: Vec<JobRefInput>,
    max_staleness: Option<Duration>,
) -> Result<impl Stream<Item = WatchUpdate> + use<>> {
    check_count("refs", refs.len())?;
    let refs = refs.into_iter().map(Into::into).collect();
    Ok(jobs.watch(principal.clone(), refs, max_staleness.map(|max| max.0)))
}

/// Starts `jobFeed`.
///
/// # Errors
/// Returns an error if the filter is not valid.
pub(in crate::inbound::graphql) fn job_feed(
    jobs: &Jobs,
    principal: &Principal,
    filter: Option<JobFilterInput>,
    after: Option<&str>,
) -> Result<impl Stream<Item = FeedUpdate> + use<>> {
    Ok(jobs.feed(principal.clone(), filter.unwrap_or_default().parse()?, after))
}
