//! The feed: every change of any job that a client may see, whichever client or replica caused the fetch. It also
//! reports that a followed job became stale, and that it is fresh again.

use std::sync::Arc;

use futures_util::stream::{self, Stream};

use super::update::{UpdateKind, WatchUpdate};
use crate::domain::principal::Principal;
use crate::jobs::answer::{JobSnapshot, KnownJob, age};
use crate::jobs::feed_readers::FeedReaders;
use crate::jobs::list_filter::JobListFilter;
use crate::jobs::reference::RequestedRef;
use crate::jobs::visibility::Visibility;
use crate::ports::clock::Clock;
use crate::telemetry::meters;

/// Reads the feed.
#[derive(Debug)]
pub(in crate::jobs) struct Feed {
    readers: Arc<FeedReaders>,
    visibility: Arc<Visibility>,
    clock: Arc<dyn Clock>,
}

impl Feed {
    pub(in crate::jobs) const fn new(
        readers: Arc<FeedReaders>,
        visibility: Arc<Visibility>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { readers, visibility, clock }
    }

    /// Every change from now on that the client may see and that matches the filter. The stream ends only for a reader
    /// that has fallen too far behind.
    pub(in crate::jobs) fn changes(
        self: &Arc<Self>,
        principal: Principal,
        filter: JobListFilter,
    ) -> impl Stream<Item = WatchUpdate> + Send + use<> {
        let reader = self.readers.join(principal, filter.undated(self.clock.reading()));
        stream::unfold((Arc::clone(self), reader), async |(feed, reader)| {
            let (KnownJob { observation, stale }, sequence) = reader.take(&feed.visibility).await?;
            let is_final = observation.job.is_terminal();
            let kind = if is_final { UpdateKind::Ended } else { UpdateKind::Changed };
            let reference = Arc::new(RequestedRef::Id(observation.job.key.node_id()));
            let now = feed.clock.reading();
            meters::update_delivered(meters::SubscriptionKind::Feed);
            if stale.is_none() {
                meters::detection_to_delivery(&observation.job.key.source, age(&observation, now));
            }
            let answer = Ok(Arc::new(JobSnapshot::stale(observation, now, stale)));
            Some((WatchUpdate { reference, kind, answer, sequence, is_final }, (feed, reader)))
        })
    }
}
