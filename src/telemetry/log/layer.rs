//! From an event to its line: its fields, the request and the trace it belongs to, and whether it is said at all.

use tokio::time::Instant;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Format;
use super::line::{Fields, Frame, Value};
use super::repeats::{HeldBack, Repeats};
use super::tally;
use super::writer::Writer;
use crate::telemetry::trace;

/// The target of the lines that say one request each: all of them are written.
pub const ACCESS: &str = "jobgate::access";
/// The target of the span that names a request by its field `request_id`: each line below it carries the id.
pub const REQUEST: &str = "jobgate::request";

/// Writes the events that its filter lets through.
pub(super) struct LogLayer {
    format: Format,
    ansi: bool,
    writer: Writer,
    repeats: Repeats,
}

/// The id of the request that a span is about.
struct RequestId(String);

impl LogLayer {
    pub(super) fn new(format: Format, ansi: bool, writer: Writer) -> Self {
        Self { format, ansi, writer, repeats: Repeats::default() }
    }

    /// What says the numbers of what was held back.
    pub(super) fn repeats(&self) -> Overdue {
        let Self { format, ansi, .. } = *self;
        Overdue { format, ansi, writer: self.writer.clone(), repeats: self.repeats.clone() }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if attributes.metadata().target() != REQUEST {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(id)) = (ctx.span(id), fields.text("request_id")) {
            span.extensions_mut().replace(RequestId(id.to_owned()));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        tally::count(*metadata.level());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let limited = *metadata.level() <= Level::INFO && metadata.target() != ACCESS;
        if limited && !self.repeats.admits(metadata, &fields.message, fields.text("source")) {
            tally::held_back();
            return;
        }
        let mut frame = Frame::of(metadata, &fields.message);
        frame.trace = trace::current().map(|(trace, span, _)| (trace.to_string(), span.to_string()));
        // where the event brings the id itself, once is enough
        if fields.text("request_id").is_none() {
            frame.request_id = ctx.event_scope(event).and_then(|mut scope| {
                scope.find_map(|span| span.extensions().get::<RequestId>().map(|id| id.0.clone()))
            });
        }
        self.writer.put(&frame.render(self.format, self.ansi, &fields.others));
    }
}

/// Says what was held back, once it has been for long enough.
pub(super) struct Overdue {
    format: Format,
    ansi: bool,
    writer: Writer,
    repeats: Repeats,
}

impl Overdue {
    pub(super) fn say(&self, now: Instant) {
        for HeldBack { metadata, message, source, count } in self.repeats.over(now) {
            let mut frame = Frame::of(metadata, &message);
            frame.repeats = Some(count);
            let source = source.map(|source| ("source", Value::Text(source)));
            self.writer.put(&frame.render(self.format, self.ansi, source.as_slice()));
        }
    }
}
