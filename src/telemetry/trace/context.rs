//! Whether spans are created, and the context that a span, a log line or a task belongs to.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName};
use opentelemetry::Context;
use opentelemetry::context::{ContextGuard, FutureExt as _, WithContext};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::task::futures::TaskLocalFuture;
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

/// The header with the parent of another process (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

tokio::task_local! {
    /// The span of the current request, if it is not sampled.
    static UNSAMPLED: UnsampledSpan;
}

/// A span that is not sampled and never created. Its ids are for the log and for the parents of upstream calls.
#[derive(Clone, Copy, Debug)]
pub struct UnsampledSpan {
    trace: TraceId,
    span: SpanId,
}

impl UnsampledSpan {
    /// One in a trace.
    pub(super) fn of(trace: TraceId) -> Self {
        Self { trace, span: SpanId::from(fastrand::u64(1..)) }
    }

    /// Runs a future in this span. Most requests are not sampled, and a context would be cloned for each poll.
    pub fn hold<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        UNSAMPLED.scope(self, future)
    }

    /// Does something in this span.
    pub(super) fn within<T>(self, work: impl FnOnce() -> T) -> T {
        UNSAMPLED.sync_scope(self, work)
    }

    fn current() -> Option<Self> {
        UNSAMPLED.try_with(|span| *span).ok()
    }

    /// Its context, in which no span is created.
    fn context(self) -> Context {
        let span = SpanContext::new(self.trace, self.span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE);
        Context::new().with_remote_span_context(span)
    }
}

/// Reads the span of the current context, if it has one.
fn of_context<T>(read: impl FnOnce(&SpanContext) -> T) -> Option<T> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| read(span))
    })
}

/// The current span: trace, span, and whether it is sampled. For log lines and upstream calls.
pub fn current() -> Option<(TraceId, SpanId, bool)> {
    of_context(|span| (span.trace_id(), span.span_id(), span.is_sampled()))
        .or_else(|| UnsampledSpan::current().map(|span| (span.trace, span.span, false)))
}

/// The current span if it is sampled: trace and span. For exemplars.
pub fn sampled() -> Option<(TraceId, SpanId)> {
    of_context(|span| span.is_sampled().then(|| (span.trace_id(), span.span_id()))).flatten()
}

/// Returns whether the current span is sampled: otherwise data that is computed only for it is not needed.
pub fn is_sampled() -> bool {
    sampled().is_some()
}

/// Returns whether the current span is a local one that is not sampled: no span is created below it.
pub(super) fn is_dropped() -> bool {
    of_context(|span| !span.is_remote() && !span.is_sampled())
        .unwrap_or_else(|| UnsampledSpan::current().is_some())
}

/// The span, for owners of many that are mostly disabled; `None` if it is disabled.
pub fn boxed(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}

/// A context to link to, and to run work in. Cheap to clone. It keeps no span open, so that a task that outlives its
/// request takes this and never a span.
#[derive(Clone, Debug)]
pub struct TraceContext(ContextKind);

#[derive(Clone, Debug)]
enum ContextKind {
    Context(Context),
    Unsampled(UnsampledSpan),
}

/// The parent in the headers, without `tracestate`: otherwise every span would propagate the content that a client
/// wrote there.
pub(super) fn remote_parent(headers: &HeaderMap) -> Context {
    if !headers.contains_key(TRACEPARENT) {
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

impl TraceContext {
    /// The current context. In a request that is not sampled these are the ids of its span: values of a context without a
    /// span are not kept.
    pub fn here() -> Self {
        let context = Context::current();
        let unsampled = if context.has_active_span() { None } else { UnsampledSpan::current() };
        Self(unsampled.map_or(ContextKind::Context(context), ContextKind::Unsampled))
    }

    /// The context in the W3C header `traceparent` of another process; empty if there is none, or no spans are created.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self::from(if is_on() { remote_parent(headers) } else { Context::new() })
    }

    /// Returns whether there is a trace to continue.
    pub fn is_somewhere(&self) -> bool {
        self.context().span().span_context().is_valid()
    }

    /// Boxes a future that runs in this context. One whose context has no span, as most have, needs no more than its own
    /// memory.
    pub fn boxed<T>(&self, future: impl Future<Output = T> + Send + 'static) -> BoxFuture<'static, T> {
        match &self.0 {
            ContextKind::Context(context) if context.has_active_span() => Box::pin(self.hold(future)),
            ContextKind::Context(_) => Box::pin(future),
            ContextKind::Unsampled(span) => Box::pin(span.hold(future)),
        }
    }

    /// Runs a future in this context, wherever it is polled. An empty context does not hide the span of a request that is not
    /// sampled if the future is polled in its task.
    pub fn hold<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.context())
    }

    /// Sets this context for the current thread until the returned guard is dropped.
    pub fn enter(&self) -> ContextGuard {
        self.context().attach()
    }

    /// The span context to link to.
    pub fn to_link(&self) -> Option<Box<SpanContext>> {
        let context = self.context();
        let span = context.span();
        span.span_context().is_valid().then(|| Box::new(span.span_context().clone()))
    }

    fn context(&self) -> Context {
        match &self.0 {
            ContextKind::Context(context) => context.clone(),
            ContextKind::Unsampled(span) => span.context(),
        }
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::from(Context::new())
    }
}

impl From<Context> for TraceContext {
    fn from(context: Context) -> Self {
        Self(ContextKind::Context(context))
    }
}
