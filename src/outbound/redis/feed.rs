//! The hints, on a connection of their own. Messages are lost while it is down, and nobody is told how many: so every new
//! connection is a gap, and so is some time gone by.

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

/// What is followed is read again this often, however well the hints come.
const SLOWLY: Duration = Duration::from_secs(10);
/// Without a message for this long the connection is not believed any more: every replica beats once a second.
const SILENCE: Duration = Duration::from_secs(4);
/// The most hints that wait; beyond that everything followed is read again, which is cheaper.
const WAITING_MAX: usize = 10_000;
/// What may lie between a change and its place among the recent ones.
const CLOCKS: Duration = Duration::from_secs(30);
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// Hints that were heard and not yet read.
#[derive(Debug, Default)]
pub(super) struct NotificationQueue {
    state: Mutex<FeedState>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct FeedState {
    hints: Vec<ChangeNotification>,
    gap: bool,
    last_gap: Option<Instant>,
    counts: ListenResult,
}

/// What came of listening since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ListenResult {
    pub(super) hints: u64,
    /// Times when hints may have been missed: a connection was new, or too many waited.
    pub(super) gaps: u64,
    /// Times when everything followed was read again, for a gap or because it was time.
    pub(super) reconciled: u64,
}

impl NotificationQueue {
    /// The next news: a gap first, because it covers the hints.
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
                if !state.hints.is_empty() {
                    return FeedEvent::Hints(std::mem::take(&mut state.hints));
                }
                due
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    pub(super) fn put(&self, hint: ChangeNotification) {
        let mut state = self.lock();
        state.counts.hints += 1;
        if state.hints.len() < WAITING_MAX {
            state.hints.push(hint);
        } else {
            state.hints.clear();
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

    /// What came of listening so far.
    pub(super) fn counts(&self) -> ListenResult {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisShared {
    /// Sends a hint to the other replicas.
    pub(super) async fn publish(&self, what: &str, key: &JobKey) -> Result<(), Unavailable> {
        let message = format!("{} {what} {}", self.owner, key.node_id());
        let command = redis::cmd("PUBLISH").arg(self.keys.feed()).arg(message).to_owned();
        self.connection.command::<i64>(&command).await.map(drop)
    }

    /// Reads a message. Our own, and those that say nothing of a job, are none.
    fn read_hint(&self, message: &str) -> Option<ChangeNotification> {
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
            // Whatever was sent before we listened is not coming.
            shared.notifications.gap();
            if let Some(since) = deaf_since.take() {
                catch_up(shared, store, since).await;
            }
            let mut messages = messages.on_message();
            while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
                failures = 0;
                let text = message.get_payload_bytes();
                if let Some(hint) = std::str::from_utf8(text).ok().and_then(|text| shared.read_hint(text)) {
                    shared.notifications.put(hint);
                }
            }
        }
        deaf_since.get_or_insert_with(Instant::now);
        let pause = RECONNECT.wait(failures, 0.5 + fastrand::f64() / 2.0);
        failures = failures.saturating_add(1);
        tokio::time::sleep(pause).await;
    }
}

/// Hints at what has changed while nobody listened. What was followed is read again anyway; this is for those who read the
/// changes of all jobs.
async fn catch_up(shared: &Arc<RedisShared>, store: &Arc<RedisStore>, since: Instant) {
    let within = since.elapsed() + SILENCE + CLOCKS;
    for key in store.changed_within(within).await.unwrap_or_default() {
        shared.notifications.put(ChangeNotification { key, what: RemoteChange::Changed });
    }
}
