//! The guard of one watcher: it reads the published state, and dropping it unsubscribes.

use tokio::time::Instant;

use crate::domain::id::JobKey;

use super::{Interest, PublishedState};

impl Interest {
    /// The job of this interest.
    pub(in crate::jobs) const fn key(&self) -> &JobKey {
        &self.key
    }

    /// The published state, marked as read.
    pub(in crate::jobs) fn read(&mut self) -> PublishedState {
        self.updates.borrow_and_update().clone().for_one_who_came_after(self.endings)
    }

    /// Waits for a state that was not read yet. Cancel safe.
    pub(in crate::jobs) async fn changed(&mut self) {
        if self.updates.changed().await.is_err() {
            // The sender exists as long as any interest: this cannot happen, and must not spin if it does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let unsubscribe_grace = self.following.settings().unsubscribe_grace;
        let mut state = self.following.lock();
        let Some(followed) = state.jobs.get_mut(&self.key) else { return };
        let watched =
            followed.interests.remove(&self.number).is_some_and(|watch_request| watch_request.watches);
        state.discount_watcher(&self.key, watched);
        let Some(followed) = state.jobs.get_mut(&self.key) else { return };
        if followed.interests.is_empty() {
            let now = Instant::now();
            followed.idle_since = Some(now);
            let forget_at = now + unsubscribe_grace;
            let planned = followed.scheduled_at.is_some_and(|at| at <= forget_at);
            if !followed.in_flight && !planned {
                state.set_schedule(&self.key, Some(forget_at));
                self.following.wake.notify_one();
            }
        }
    }
}
