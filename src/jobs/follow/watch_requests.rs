//! The interests in one followed job: whose they are, how fresh they require it, and whether they receive updates. Each
//! read costs the same for any number of interests.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The interests in one job.
#[derive(Debug, Default)]
pub(super) struct WatchRequests {
    /// By number: the first is the oldest.
    by_number: BTreeMap<u64, WatchRequest>,
    /// How many receive updates.
    watching: usize,
    limits: StalenessLimits,
}

/// How many interests, or jobs, allow each staleness at most.
#[derive(Debug, Default)]
pub(super) struct StalenessLimits(BTreeMap<Duration, usize>);

/// One interest: its client, and the required freshness.
#[derive(Debug)]
pub(super) struct WatchRequest {
    pub(super) client: Arc<str>,
    pub(super) max_staleness: Option<Duration>,
    pub(super) since: Instant,
    /// Whether the client receives updates; otherwise the job is only followed to its terminal state.
    pub(super) watches: bool,
}

impl WatchRequests {
    /// Adds an interest. Numbers are given in the order of registration.
    pub(super) fn insert(&mut self, number: u64, request: WatchRequest) {
        self.watching += usize::from(request.watches);
        self.limits.add(request.max_staleness);
        self.by_number.insert(number, request);
    }

    /// Removes an interest. Returns whether it received updates.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some(request) = self.by_number.remove(&number) else { return false };
        self.watching -= usize::from(request.watches);
        self.limits.remove(request.max_staleness);
        request.watches
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Whether any interest receives updates.
    pub(super) const fn is_watched(&self) -> bool {
        self.watching > 0
    }

    /// The lowest staleness that a watcher allows.
    pub(super) fn tightest(&self) -> Option<Duration> {
        self.limits.lowest()
    }

    /// The client on whose behalf the job is polled: the one with the oldest interest.
    pub(super) fn client(&self) -> Option<&Arc<str>> {
        self.by_number.first_key_value().map(|(_, request)| &request.client)
    }

    /// When the newest interest was registered.
    pub(super) fn newest(&self) -> Option<Instant> {
        self.by_number.last_key_value().map(|(_, request)| request.since)
    }
}

impl StalenessLimits {
    /// Adds one that allows this staleness, if there is a limit.
    pub(super) fn add(&mut self, limit: Option<Duration>) {
        if let Some(limit) = limit {
            *self.0.entry(limit).or_default() += 1;
        }
    }

    /// Removes one that was added.
    pub(super) fn remove(&mut self, limit: Option<Duration>) {
        if let Some(Entry::Occupied(mut count)) = limit.map(|limit| self.0.entry(limit)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// The lowest staleness that one of them allows.
    pub(super) fn lowest(&self) -> Option<Duration> {
        self.0.first_key_value().map(|(limit, _)| *limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_read_is_that_of_the_interests_that_are_left() {
        let seconds = |limit: u64| Some(Duration::from_secs(limit));
        let began = Instant::now();
        let mut requests = WatchRequests::default();
        for (number, client, limit, watches) in [
            (1, "a", None, false),
            (2, "b", seconds(2), true),
            (3, "c", seconds(5), true),
            (4, "d", seconds(2), true),
        ] {
            let since = began + Duration::from_secs(number);
            let request = WatchRequest { client: client.into(), max_staleness: limit, since, watches };
            requests.insert(number, request);
        }
        let read = |requests: &WatchRequests| {
            let newest = requests.newest().map(|since| (since - began).as_secs());
            (requests.client().map(ToString::to_string), requests.tightest(), requests.is_watched(), newest)
        };
        assert_eq!(read(&requests), (Some("a".to_owned()), seconds(2), true, Some(4)));
        assert!(!requests.remove(1), "it received no updates");
        assert!(requests.remove(2));
        assert!(!requests.remove(2), "it was removed before");
        assert_eq!(read(&requests), (Some("c".to_owned()), seconds(2), true, Some(4)));
        assert!(requests.remove(4));
        assert_eq!(read(&requests), (Some("c".to_owned()), seconds(5), true, Some(3)));
        assert!(requests.remove(3));
        assert_eq!(read(&requests), (None, None, false, None));
        assert!(requests.is_empty());
    }
}
