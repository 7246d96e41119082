//! Suppresses repeated lines and reports their number a minute later: a flood of one event produces only a few lines.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Metadata;
use tracing::callsite::Identifier;

/// The number of lines of one event and one source that are written within [`WINDOW`].
pub(super) const AT_ONCE: u32 = 30;
/// After this time the number of suppressed lines is reported.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// One event of the code, with its source if it has one. Neither depends on data, so their number is bounded.
type EventKey = (Identifier, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Throttle(Arc<Mutex<HashMap<EventKey, ThrottleWindow>>>);

#[derive(Debug)]
struct ThrottleWindow {
    metadata: &'static Metadata<'static>,
    message: String,
    source: Option<String>,
    begun: Instant,
    written: u32,
    suppressed: u64,
}

/// The suppressed lines of one event.
#[derive(Clone, Debug)]
pub(super) struct Suppressed {
    pub(super) metadata: &'static Metadata<'static>,
    pub(super) message: String,
    pub(super) source: Option<String>,
    pub(super) count: u64,
}

impl Throttle {
    /// Returns whether a line may be written now.
    pub(super) fn admits(
        &self,
        metadata: &'static Metadata<'static>,
        message: &str,
        source: Option<&str>,
    ) -> bool {
        let mut hasher = DefaultHasher::new();
        source.hash(&mut hasher);
        let mut windows = self.lock();
        let window =
            windows.entry((metadata.callsite(), hasher.finish())).or_insert_with(|| ThrottleWindow {
                metadata,
                message: message.to_owned(),
                source: source.map(ToOwned::to_owned),
                begun: Instant::now(),
                written: 0,
                suppressed: 0,
            });
        if window.written < AT_ONCE {
            window.written += 1;
            return true;
        }
        window.suppressed += 1;
        false
    }

    /// Returns the suppressed lines whose window has ended.
    pub(super) fn over(&self, now: Instant) -> Vec<Suppressed> {
        let mut windows = self.lock();
        let over = windows.extract_if(|_, window| now.saturating_duration_since(window.begun) >= WINDOW);
        over.map(|(_, window)| window)
            .filter(|window| window.suppressed > 0)
            .map(|ThrottleWindow { metadata, message, source, suppressed, .. }| Suppressed {
                metadata,
                message,
                source,
                count: suppressed,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EventKey, ThrottleWindow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
