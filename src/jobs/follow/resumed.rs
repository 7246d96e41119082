//! Following on after a restart: an interest in a job that nobody asked about since, and looks that are spread out.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

use super::{Following, Interest};

/// Beyond this many of the slowest interval, the age of a job changes its pace no more.
const AGE_MAX: u32 = 10;

impl Following {
    /// Follows a job as before a restart. `held` is what is still known of it, unfinished, and how long it has been so.
    ///
    /// Its first look falls anywhere within the slowest interval, by the job's own phase, so that all that is resumed at once
    /// does not come at once; whoever asks meanwhile brings it forward. Its pace is that of its age, not of a new job.
    pub(in crate::jobs) fn resume(
        self: &Arc<Self>,
        key: &JobKey,
        client: Arc<str>,
        held: Option<(&Observation, Duration)>,
    ) -> Interest {
        let interest = self.interest(key, client, None);
        let state = &mut *self.lock();
        let slowest = self.settings().pace.slowest;
        if let Some(followed) = state.jobs.get_mut(key) {
            let untouched = followed.news.borrow().is_empty() && followed.on_agenda.is_none();
            if let Some((observation, age)) = held {
                followed.tell(&mut state.habits, |told| told.learn(observation));
                let age = age.min(slowest * AGE_MAX);
                followed.since = Instant::now().checked_sub(age).unwrap_or(followed.since);
            }
            if untouched && !followed.looking {
                let at = Instant::now() + slowest.mul_f64(followed.phase);
                state.set_agenda(key, Some(at));
                self.wake();
            }
        }
        interest
    }
}
