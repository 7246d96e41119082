//! The root of all streams.

use async_graphql::{Context, Result, Subscription};
use futures_util::stream::{Stream, StreamExt as _};

use crate::domain::principal::Principal;
use crate::jobs::Jobs;

use super::handover::tell_news;
use super::query::{JobFilter, JobRef, check_count};
use super::scalars::Duration;
use super::update::JobUpdate;

/// Streams of news.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscriptions;

#[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
#[Subscription(name = "Subscription")]
/// Streams of news. Trouble upstream shows in `freshness` and ends no stream; a slow reader gets fewer updates, never
/// an old one, and always the last.
impl Subscriptions {
    /// Jobs to their ends: a snapshot of each first, then its changes. Completes when every job has ended.
    async fn job_updates(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, 1 to 200.")] refs: Vec<JobRef>,
        #[graphql(
            desc = "How old what you know of an unfinished job may be: sets the pace of looking, within the \
                          gateway's bounds."
        )]
        max_staleness: Option<Duration>,
    ) -> Result<impl Stream<Item = JobUpdate> + use<>> {
        check_count("refs", refs.len())?;
        let refs = refs.into_iter().map(Into::into).collect();
        let principal = ctx.data::<Principal>()?.clone();
        let updates = ctx.data::<Jobs>()?.watch(principal, refs, max_staleness.map(|max| max.0));
        Ok(tell_news(ctx, updates.map(JobUpdate::with_news)))
    }

    /// Every change of every job that you may see, from now on, whoever asked for it; also when what is known of a followed
    /// job turns stale, and when it is fresh again. Does not complete.
    async fn job_feed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which of them; all when left out.")] filter: Option<JobFilter>,
    ) -> Result<impl Stream<Item = JobUpdate> + use<>> {
        let principal = ctx.data::<Principal>()?.clone();
        let filter = filter.unwrap_or_default().into();
        let updates = ctx.data::<Jobs>()?.feed(principal, filter);
        Ok(tell_news(ctx, updates.map(JobUpdate::with_news)))
    }
}
