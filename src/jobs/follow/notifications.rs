//! Changes to the follow registry at run time: its settings, and the set of sources.

use std::sync::Arc;

use crate::domain::id::SourceName;

use super::{FollowRegistry, FollowSettings};

impl FollowRegistry {
    /// The current settings.
    pub(in crate::jobs) fn settings(&self) -> FollowSettings {
        **self.settings.load()
    }

    /// Replaces the settings. Scheduled polls keep their times; later ones use the new intervals.
    pub(in crate::jobs) fn set_settings(&self, settings: FollowSettings) {
        self.settings.store(Arc::new(settings));
        self.wake();
    }

    /// Makes the watchers of all jobs of a source check again what they may see: the source was removed or added again.
    pub(in crate::jobs) fn notify_source(&self, source: &SourceName) {
        for (_, followed) in self.lock().jobs.iter().filter(|(key, _)| key.source == *source) {
            followed.updates.send_modify(|_| ());
        }
    }
}
