//! The notifications, on a separate connection. Messages are lost while it is down, without a count of them: so every
//! new connection is treated as a gap, and there is a periodic gap.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::RedisShared;
use super::connection::Unavailable;
use super::store::RedisStore;
use crate::domain::id::JobKey;
use crate::domain::schedule::Backoff;
use crate::ports::feed::{ChangeNotification, FeedEvent, RemoteChange};

/// Followed jobs are read again at this interval, even without a gap.
const SLOWLY: Duration = Duration::from_secs(10);
/// Without a message for this long the connection is considered dead: every replica sends a heartbeat once a second.
const SILENCE: Duration = Duration::from_secs(4);
/// The most queued notifications; beyond that all followed jobs are read again, which is cheaper.
const WAITING_MAX: usize = 10_000;
/// The largest delay between a change and its entry in the list of recent changes.
const CLOCKS: Duration = Duration::from_secs(30);
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// Notifications that were received and not processed yet.
#[derive(Debug, Default)]
pub(super) struct NotificationQueue {
    state: Mutex<FeedState>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct FeedState {
    pending: Vec<ChangeNotification>,
    gap: bool,
    last_gap: Option<Instant>,
    counts: ListenResult,
}

/// Counters of the listener since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListenResult {
    /// Notifications received.
    pub(super) notifications: u64,
    /// Gaps: a new connection, or a full queue.
    pub(super) gaps: u64,
    /// How often all followed jobs were read again, for a gap or periodically.
    pub(super) reconciled: u64,
}

impl NotificationQueue {
    /// The next event: a gap first, because it includes the notifications.
    pub(super) async fn next(&self) -> FeedEvent {
        loop {
            let due = {
                let mut state = self.lock();
                let now = Instant::now();
                let due = *state.last_gap.get_or_insert(now) + SLOWLY;
                if state.gap || now >= due {
                    state.gap = false;
                    state.last_gap = Some(now);
                    state.counts.reconciled += 1;
                    return FeedEvent::Gap;
                }
                if !state.pending.is_empty() {
                    return FeedEvent::Notifications(std::mem::take(&mut state.pending));
                }
                due
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    pub(super) fn put(&self, notification: ChangeNotification) {
        let mut state = self.lock();
        state.counts.notifications += 1;
        if state.pending.len() < WAITING_MAX {
            state.pending.push(notification);
        } else {
            state.pending.clear();
            state.gap = true;
            state.counts.gaps += 1;
        }
        drop(state);
        self.wake.notify_one();
    }

    fn gap(&self) {
        let mut state = self.lock();
        state.gap = true;
        state.counts.gaps += 1;
        drop(state);
        self.wake.notify_one();
    }

    /// The counters so far.
    pub(super) fn counts(&self) -> ListenResult {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisShared {
    /// Sends a notification to the other replicas.
    pub(super) async fn publish(&self, what: &str, key: &JobKey) -> Result<(), Unavailable> {
        let message = format!("{} {what} {}", self.owner, key.node_id());
        let command = redis::cmd("PUBLISH").arg(self.keys.feed()).arg(message).to_owned();
        self.connection.command::<i64>(&command).await.map(drop)
    }

    /// Parses a message. `None` for our own messages, and for those that are not about a job.
    fn parse_notification(&self, message: &str) -> Option<ChangeNotification> {
        let mut words = message.splitn(3, ' ');
        let owner = words.next()?;
        let what = match words.next()? {
            "c" => RemoteChange::Changed,
            "r" => RemoteChange::Renewed,
            "x" => RemoteChange::Released,
            "t" => RemoteChange::Tracked,
            _ => return None,
        };
        let key = JobKey::from_node_id(words.next()?).ok()?;
        (owner != self.owner).then_some(ChangeNotification { key, what })
    }
}

/// Listens for ever.
pub(super) async fn listen(shared: &Arc<RedisShared>, store: &Arc<RedisStore>) {
    let mut failures = 0_u32;
    let mut deaf_since = None;
    let channel = shared.keys.feed();
    for attempt in 0_usize.. {
        let subscribing = shared.connection.topology.subscribe(&channel, attempt);
        let connected = tokio::time::timeout(shared.connection.timeout() * 2, subscribing).await;
        if let Ok(Ok(mut messages)) = connected {
            // Messages from before the subscription are lost.
            shared.notifications.gap();
            if let Some(since) = deaf_since.take() {
                catch_up(shared, store, since).await;
            }
            let mut messages = messages.on_message();
            while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
                failures = 0;
                let text = message.get_payload_bytes();
                if let Some(notification) =
                    std::str::from_utf8(text).ok().and_then(|text| shared.parse_notification(text))
                {
                    shared.notifications.put(notification);
                }
            }
        }
        deaf_since.get_or_insert_with(Instant::now);
        let pause = RECONNECT.wait(failures, 0.5 + fastrand::f64() / 2.0);
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

/// Notifies about the changes during the gap. Followed jobs are read again anyway; this is for subscribers to the
/// changes of all jobs.
async fn catch_up(shared: &Arc<RedisShared>, store: &Arc<RedisStore>, since: Instant) {
    let within = since.elapsed() + SILENCE + CLOCKS;
    for key in store.changed_within(within).await.unwrap_or_default() {
        shared.notifications.put(ChangeNotification { key, what: RemoteChange::Changed });
    }
}
