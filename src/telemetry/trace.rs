//! Traces: the one place where a span is made. Which spans there are, with which attributes, is a closed list.

use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};

/// The span that is being worked under: trace, span, and whether it is exported. For exemplars and lines of the log.
pub fn current() -> Option<(TraceId, SpanId, bool)> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id(), span.span_id(), span.is_sampled()))
    })
}
