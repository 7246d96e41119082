//! The span of the delivery of an update to one subscription.

use std::time::Duration;

use opentelemetry::trace::SpanContext;
use tracing::Span;

use crate::domain::observation::Observation;
use crate::jobs::watch::{self, WatchUpdate};
use crate::telemetry::trace;

/// The data of a delivery's span.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct DeliverySpan {
    observation: Observation,
    kind: watch::UpdateKind,
    sequence: u64,
    age: Duration,
}

impl DeliverySpan {
    /// The data for the span of an update's delivery; none if spans are disabled, or the update is not about a job.
    pub(in crate::inbound::graphql) fn of(update: &WatchUpdate) -> Option<Box<Self>> {
        let seen = update.answer.as_ref().ok().filter(|_| trace::is_on())?;
        let (kind, sequence) = (update.kind, update.sequence);
        Some(Box::new(Self { observation: seen.observation.clone(), kind, sequence, age: seen.age }))
    }

    /// The span of the delivery to a subscription.
    pub(in crate::inbound::graphql) fn span(&self, subscription: Option<&SpanContext>) -> Span {
        let kind = match self.kind {
            watch::UpdateKind::Snapshot => "snapshot",
            watch::UpdateKind::Changed => "changed",
            watch::UpdateKind::Ended => "ended",
        };
        let age = u64::try_from(self.age.as_millis()).unwrap_or(u64::MAX);
        trace::deliver(&self.observation, kind, self.sequence, age, subscription)
    }
}
