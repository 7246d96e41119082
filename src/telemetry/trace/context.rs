//! Whether spans are created, and the context that a span, a log line or a task belongs to.

use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::context::{ContextGuard, FutureExt as _, WithContext};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;

/// The target of every span: the filters of the log and of the traces distinguish spans by it.
pub const TARGET: &str = "jobgate::trace";

/// Set when the layer of a pipeline is made.
static ON: AtomicBool = AtomicBool::new(false);

/// Returns whether spans are created: whether this process has the layer of the traces.
///
/// `tracing::span_enabled!` is no replacement: it runs the filters without a span that consumes their results, and the
/// result of the filter of the log then suppresses the next line of the thread.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Called for the layer that creates the spans.
pub(super) fn turn_on() {
    ON.store(true, Ordering::Relaxed);
}

/// The current span: trace, span, and whether it is sampled. For exemplars and log lines.
pub fn current() -> Option<(TraceId, SpanId, bool)> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id(), span.span_id(), span.is_sampled()))
    })
}

/// Returns whether the current span is sampled: otherwise data that is computed only for it is not needed.
pub fn is_sampled() -> bool {
    current().is_some_and(|(_, _, sampled)| sampled)
}

/// Returns whether the current span is a local one that is not sampled: no span is created below it.
pub(super) fn is_dropped() -> bool {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid() && !span.is_remote() && !span.is_sampled()
    })
}

/// The span, for owners of many that are mostly disabled; `None` if it is disabled.
pub fn boxed(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}

/// A context to link to, and to run work in. Cheap to clone. It keeps no span open, so that a task that outlives its
/// request takes this and never a span.
#[derive(Clone, Debug, Default)]
pub struct TraceContext(pub(super) Context);

/// The parent in the headers, without `tracestate`: otherwise every span would propagate the content that a client
/// wrote there.
pub(super) fn remote_parent(headers: &HeaderMap) -> Context {
    if !headers.contains_key("traceparent") {
        return Context::new();
    }
    let named =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let span = named.span();
    let span = span.span_context();
    if !span.is_valid() {
        return Context::new();
    }
    let plain = SpanContext::new(span.trace_id(), span.span_id(), span.trace_flags(), true, TraceState::NONE);
    Context::new().with_remote_span_context(plain)
}

/// The context of a span that is not sampled, so that none is created in it.
pub(super) fn dropped(trace: TraceId) -> Context {
    let span = SpanId::from(fastrand::u64(1..));
    let span = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
    Context::new().with_remote_span_context(span)
}

impl TraceContext {
    /// The current context.
    pub fn here() -> Self {
        Self(Context::current())
    }

    /// The context in the W3C header `traceparent` of another process; empty if there is none, or no spans are created.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self(if is_on() { remote_parent(headers) } else { Context::new() })
    }

    /// Returns whether there is a trace to continue.
    pub fn is_somewhere(&self) -> bool {
        self.0.span().span_context().is_valid()
    }

    /// Runs a future in this context, wherever it is polled.
    pub fn hold<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone())
    }

    /// Sets this context for the current thread until the returned guard is dropped.
    pub fn enter(&self) -> ContextGuard {
        self.0.clone().attach()
    }

    /// The span context to link to.
    pub fn to_link(&self) -> Option<Box<SpanContext>> {
        let span = self.0.span();
        span.span_context().is_valid().then(|| Box::new(span.span_context().clone()))
    }
}
