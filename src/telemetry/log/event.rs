//! Formats an event as its line: adds the request and the trace it belongs to, and decides whether it is written.

use std::fmt;
use std::io::Write as _;

use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::counters;
use super::line::{LineFormat, LogFields};
use super::repeats::RepeatedEvents;
use super::request;
use crate::telemetry::trace;

/// The target of the access log, one line per request: all of them are written.
pub const ACCESS: &str = "jobgate::access";

/// The format of the events of one log. A clone shares the rate limit of repeated events.
#[derive(Clone, Debug)]
pub(super) struct EventFormat {
    line: LineFormat,
    repeats: RepeatedEvents,
}

impl EventFormat {
    pub(super) fn new(line: LineFormat) -> Self {
        Self { line, repeats: RepeatedEvents::default() }
    }

    /// The layer that writes the events. It does not use the fields of spans.
    pub(super) fn layer<S>(&self, writer: NonBlocking) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        layer()
            .fmt_fields(debug_fn(|_, _, _| Ok(())))
            .event_format(self.clone())
            .log_internal_errors(false)
            .with_writer(writer)
    }

    /// Writes the numbers of suppressed lines whose window has ended.
    pub(super) fn report_suppressed(&self, writer: &mut NonBlocking, now: Instant) {
        for (metadata, fields) in self.repeats.ended(now) {
            writer.write_all(self.line.of(metadata, &fields).as_bytes()).ok();
        }
    }
}

impl<S, N> FormatEvent<S, N> for EventFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    /// An error means that the event is suppressed: the layer writes nothing then.
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        counters::count(*metadata.level());
        let mut fields = LogFields::default();
        event.record(&mut fields);
        if *metadata.level() <= Level::INFO && metadata.target() != ACCESS {
            let suppressed = self.repeats.admit(metadata, &fields).ok_or(fmt::Error)?;
            if suppressed > 0 {
                fields.put("repeats", suppressed);
            }
        }
        // An event with its own request id keeps it.
        if fields.text("request_id").is_none()
            && let Some(id) = request::current_id()
        {
            fields.put("request_id", id);
        }
        if let Some((trace, span, _)) = trace::current() {
            fields.put("trace_id", trace.to_string());
            fields.put("span_id", span.to_string());
        }
        line.write_str(&self.line.of(metadata, &fields))
    }
}
