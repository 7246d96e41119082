//! Suppresses repeated events and reports their number a minute later: a flood of one event produces only a few lines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Metadata;
use tracing::callsite::Identifier;

use super::line::LogFields;
use crate::telemetry::throttle::Throttle;

/// The number of lines of one event and one source that are written within [`WINDOW`].
pub(super) const AT_ONCE: u32 = 30;
/// After this time the number of suppressed lines is reported.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// One event of the code, with its source if it has one. Neither depends on data, so their number is bounded.
type EventKey = (Identifier, Option<String>);

/// The events of the last window. A clone shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct RepeatedEvents(Arc<Mutex<HashMap<EventKey, RepeatedEvent>>>);

#[derive(Debug)]
struct RepeatedEvent {
    metadata: &'static Metadata<'static>,
    message: String,
    throttle: Throttle,
}

impl RepeatedEvents {
    /// Returns whether an event is written now: the number of equal ones that were suppressed before.
    pub(super) fn admit(&self, metadata: &'static Metadata<'static>, fields: &LogFields) -> Option<u64> {
        let key = (metadata.callsite(), fields.text("source").map(ToOwned::to_owned));
        let mut events = self.lock();
        let event = events.entry(key).or_insert_with(|| RepeatedEvent {
            metadata,
            message: fields.message.clone(),
            throttle: Throttle::new(AT_ONCE, WINDOW),
        });
        event.throttle.admit()
    }

    /// Removes the events whose window has ended, and returns the fields of a line about each one that was suppressed.
    pub(super) fn ended(&self, now: Instant) -> Vec<(&'static Metadata<'static>, LogFields)> {
        let mut lines = Vec::new();
        self.lock().retain(|(_, source), event| {
            let Some(suppressed) = event.throttle.ended(now) else { return true };
            if suppressed > 0 {
                let mut fields =
                    LogFields { message: std::mem::take(&mut event.message), others: Vec::new() };
                if let Some(source) = source {
                    fields.put("source", source.as_str());
                }
                fields.put("repeats", suppressed);
                lines.push((event.metadata, fields));
            }
            false
        });
        lines
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EventKey, RepeatedEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
