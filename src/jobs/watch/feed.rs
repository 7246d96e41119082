//! The feed: every change of any job that a client may see, whichever client or replica caused the fetch. It also
//! reports that a followed job became stale, and that it is fresh again.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt as _};

use super::update::{UpdateKind, WatchUpdate};
use crate::domain::principal::Principal;
use crate::jobs::answer::{JobSnapshot, KnownJob, age};
use crate::jobs::change_log::FeedCursor;
use crate::jobs::feed_readers::{FeedChange, FeedReaders, FeedStart, JoinedReader};
use crate::jobs::list::filter::JobListFilter;
use crate::jobs::reference::RequestedRef;
use crate::jobs::visibility::Visibility;
use crate::ports::clock::Clock;
use crate::telemetry::meters;

/// An update of the feed.
#[derive(Clone, Debug)]
pub struct FeedUpdate {
    /// The content.
    pub content: FeedContent,
    /// A feed that resumes behind it receives all later changes, and no earlier one.
    pub cursor: FeedCursor,
}

/// The content of an update of the feed.
#[derive(Clone, Debug)]
pub enum FeedContent {
    /// The first update of a feed that was to resume.
    Start(FeedStart),
    /// A change of a job.
    Change(WatchUpdate),
}

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

    /// Every change from now on that the client may see and that matches the filter. With a cursor, the first update
    /// reports whether the changes behind it follow. The stream ends only for a reader that has fallen too far behind.
    pub(in crate::jobs) fn changes(
        self: &Arc<Self>,
        principal: Principal,
        filter: JobListFilter,
        after: Option<&str>,
    ) -> impl Stream<Item = FeedUpdate> + Send + use<> {
        let JoinedReader { reader, start } = self.readers.join(principal, filter, after);
        let start = start.map(|(start, cursor)| FeedUpdate { content: FeedContent::Start(start), cursor });
        let changes = stream::unfold((Arc::clone(self), reader), async |(feed, reader)| {
            let FeedChange { known, sequence, cursor } = reader.take(&feed.visibility).await?;
            let content = FeedContent::Change(feed.update(known, sequence));
            Some((FeedUpdate { content, cursor }, (feed, reader)))
        });
        stream::iter(start).chain(changes)
    }

    fn update(&self, KnownJob { observation, stale }: KnownJob, sequence: u64) -> WatchUpdate {
        let is_final = observation.job.is_terminal();
        let kind = if is_final { UpdateKind::Ended } else { UpdateKind::Changed };
        let reference = Arc::new(RequestedRef::id(observation.job.key.node_id()));
        let now = self.clock.reading();
        meters::update_delivered(meters::SubscriptionKind::Feed);
        if stale.is_none() {
            meters::detection_to_delivery(&observation.job.key.source, age(&observation, now));
        }
        let answer = Ok(Arc::new(JobSnapshot::stale(observation, now, stale)));
        WatchUpdate { reference, kind, answer, sequence, is_final }
    }
}
