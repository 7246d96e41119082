//! MindBridge async results: one id by GET, many by the query endpoint, page after page.
//!
//! The facts are in the vendor's reference; where it does not specify the behaviour, either one works: an id that is
//! absent from a query is confirmed by a GET before it is reported missing, and a tenant that refuses the query
//! endpoint is read one job at a time.

mod list;
mod normalize;
mod parts;
mod problem;
mod query;
mod single;
mod split;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use self::list::ChangeLists;
use self::single::SingleReads;
use self::split::BatchReads;
use super::client::Source;
use super::distinct_ids::DistinctIds;
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::source::SourceStatus;
use crate::domain::sweep::DiscoveryRules;
use crate::domain::upstream::Upstream;
use crate::ports::BoxFuture;
use crate::ports::credentials::Credential;
use crate::ports::listing::{JobListing, ListSupport};
use crate::ports::upstream::{
    Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

/// A MindBridge tenant.
#[derive(Debug)]
pub struct MindBridgeReader {
    single: Arc<SingleReads>,
    batches: BatchReads,
    lists: ChangeLists,
}

impl JobReader for MindBridgeReader {
    fn name(&self) -> &SourceName {
        self.single.name()
    }

    fn upstream(&self) -> Upstream {
        self.single.source.upstream()
    }

    fn fetch<'a>(&'a self, ids: &'a [ExternalId], trigger: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async move {
            let deadline = self.single.deadline();
            let distinct = DistinctIds::new(ids);
            let chunks = distinct.ids.chunks(Upstream::MindBridge.profile().ids_a_request);
            let fetches = join_all(chunks.map(|chunk| self.fetch_one(chunk, trigger, deadline))).await;
            distinct.spread(&fetches.concat())
        })
    }

    fn rows<'a>(
        &'a self,
        _id: &'a ExternalId,
        _range: RowRange,
        _trigger: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(std::future::ready(Err(FetchError::NotFound)))
    }

    fn list_support(&self) -> Option<ListSupport> {
        Some(ListSupport::Changes)
    }

    fn discovery(&self) -> Option<DiscoveryRules> {
        self.single.source.settings().discovery
    }

    fn list(&self, since: Timestamp) -> BoxFuture<'_, Option<JobListing>> {
        Box::pin(async move { Some(self.lists.changes(since).await) })
    }

    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, Result<(), FetchError>> {
        Box::pin(self.single.probe(other))
    }

    fn status(&self) -> SourceStatus {
        self.single.source.status()
    }

    fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.single.source.pace_polls(demand)
    }

    fn take_recheck(&self) -> bool {
        self.single.source.take_recheck()
    }
}

impl MindBridgeReader {
    pub(super) fn new(source: Source) -> Self {
        let single = Arc::new(SingleReads::new(source));
        Self {
            batches: BatchReads::new(Arc::clone(&single)),
            lists: ChangeLists::new(Arc::clone(&single)),
            single,
        }
    }

    /// Fetches up to a chunk of different ids: same order, same length.
    async fn fetch_one(&self, ids: &[&ExternalId], trigger: &FetchTrigger, deadline: Instant) -> Vec<Fetch> {
        let mut fetches = self.batches.fetch(ids, trigger, deadline).await;
        // ids without a result of the query are read one by one; the limiter bounds the rate
        join_all(ids.iter().map(|id| {
            let settled = fetches.remove(*id);
            async move {
                match settled {
                    Some(fetch) => fetch,
                    None => self.single.get(id, trigger, deadline).await,
                }
            }
        }))
        .await
    }
}
