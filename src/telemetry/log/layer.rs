//! Converts an event to its line: adds the request and the trace it belongs to, and decides whether it is written.

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::counters;
use super::line::{FieldValue, LineContext, LogFields, LogFormatKind};
use super::request;
use super::throttle::{Suppressed, Throttle};
use super::writer::LogWriter;
use crate::telemetry::trace;

/// The target of the access log, one line per request: all of them are written.
pub const ACCESS: &str = "jobgate::access";

/// Writes the events that pass its filter.
pub(super) struct LogLayer {
    format: LogFormatKind,
    ansi: bool,
    writer: LogWriter,
    repeats: Throttle,
}

impl LogLayer {
    pub(super) fn new(format: LogFormatKind, ansi: bool, writer: LogWriter) -> Self {
        Self { format, ansi, writer, repeats: Throttle::default() }
    }

    /// The task that reports the numbers of suppressed lines.
    pub(super) fn repeats(&self) -> SuppressionReport {
        let Self { format, ansi, .. } = *self;
        SuppressionReport { format, ansi, writer: self.writer.clone(), repeats: self.repeats.clone() }
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        counters::count(*metadata.level());
        let mut fields = LogFields::default();
        event.record(&mut fields);
        let limited = *metadata.level() <= Level::INFO && metadata.target() != ACCESS;
        if limited && !self.repeats.admits(metadata, &fields.message, fields.text("source")) {
            counters::suppressed();
            return;
        }
        let mut frame = LineContext::of(metadata, &fields.message);
        frame.trace = trace::current().map(|(trace, span, _)| (trace.to_string(), span.to_string()));
        // An event with its own request id keeps it.
        if fields.text("request_id").is_none() {
            frame.request_id = request::current_id();
        }
        self.writer.put(&frame.render(self.format, self.ansi, &fields.others));
    }
}

/// Reports suppressed lines after their window has ended.
pub(super) struct SuppressionReport {
    format: LogFormatKind,
    ansi: bool,
    writer: LogWriter,
    repeats: Throttle,
}

impl SuppressionReport {
    pub(super) fn say(&self, now: Instant) {
        for Suppressed { metadata, message, source, count } in self.repeats.over(now) {
            let mut frame = LineContext::of(metadata, &message);
            frame.repeats = Some(count);
            let source = source.map(|source| ("source", FieldValue::Text(source)));
            self.writer.put(&frame.render(self.format, self.ansi, source.as_slice()));
        }
    }
}
