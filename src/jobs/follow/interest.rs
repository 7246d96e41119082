//! What a watcher holds while it is interested: it reads the news, and dropping it is the unsubscribe.

use tokio::time::Instant;

use crate::domain::id::JobKey;

use super::{Interest, Told};

impl Interest {
    /// Which job.
    pub(in crate::jobs) const fn key(&self) -> &JobKey {
        &self.key
    }

    /// What was last told, marked as read.
    pub(in crate::jobs) fn read(&mut self) -> Told {
        self.news.borrow_and_update().clone().for_one_who_came_after(self.endings)
    }

    /// Waits for something that was not read yet. Cancel safe.
    pub(in crate::jobs) async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            // The sender lives as long as any interest: this cannot happen, and must not spin if it does.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let linger = self.following.settings().linger;
        let mut state = self.following.lock();
        let Some(followed) = state.jobs.get_mut(&self.key) else { return };
        let watched = followed.interests.remove(&self.number).is_some_and(|wish| wish.watches);
        state.discount_watcher(&self.key, watched);
        let Some(followed) = state.jobs.get_mut(&self.key) else { return };
        if followed.interests.is_empty() {
            let now = Instant::now();
            followed.idle_since = Some(now);
            let forget_at = now + linger;
            let planned = followed.on_agenda.is_some_and(|at| at <= forget_at);
            if !followed.looking && !planned {
                state.set_agenda(&self.key, Some(forget_at));
                self.following.wake.notify_one();
            }
        }
    }
}
