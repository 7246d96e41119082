//! What of following can change while it goes on: how often and how long, and which sources there are.

use std::sync::Arc;

use crate::domain::id::SourceName;

use super::{FollowRegistry, FollowSettings};

impl FollowRegistry {
    /// How jobs are followed now.
    pub(in crate::jobs) fn settings(&self) -> FollowSettings {
        **self.settings.load()
    }

    /// Follows otherwise from now on: looks that are planned stay planned, those after them keep the new pace.
    pub(in crate::jobs) fn set_settings(&self, settings: FollowSettings) {
        self.settings.store(Arc::new(settings));
        self.wake();
    }

    /// Has the watchers of all jobs of a source look again at what they may see: the source has gone, or has come back.
    pub(in crate::jobs) fn notify_source(&self, source: &SourceName) {
        for (_, followed) in self.lock().jobs.iter().filter(|(key, _)| key.source == *source) {
            followed.updates.send_modify(|_| ());
        }
    }
}
