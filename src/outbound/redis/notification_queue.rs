//! The notifications that were received and not processed yet, and the gaps after which all followed jobs are read again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ports::feed::{ChangeNotification, FeedEvent};

/// Followed jobs are read again at this interval, even without a gap.
const SLOWLY: Duration = Duration::from_secs(10);
/// The most queued notifications; beyond that all followed jobs are read again, which is cheaper.
const WAITING_MAX: usize = 10_000;

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
    counts: NotificationCounts,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NotificationCounts {
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

    /// Adds a notification; a full queue becomes a gap.
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

    /// Records a gap: notifications may have been lost.
    pub(super) fn gap(&self) {
        let mut state = self.lock();
        state.gap = true;
        state.counts.gaps += 1;
        drop(state);
        self.wake.notify_one();
    }

    /// The counters so far.
    pub(super) fn counts(&self) -> NotificationCounts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
