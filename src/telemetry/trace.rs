//! Traces: the only module that creates spans. `names` is the closed list of spans and their attributes. Spans are
//! created with the OpenTelemetry API and not with the macros of `tracing`, so that no log level disables a span.
//!
//! Off until [`provider::start`]; until then every function here only checks an empty cell.

mod job;
mod names;
pub mod provider;
mod spans;

use std::sync::OnceLock;

use http::HeaderMap;
use opentelemetry::context::{ContextGuard, FutureExt as _, WithContext};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, StringValue, Value};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

use crate::domain::id::JobKey;
pub use job::TraceKey;
pub use names::{SPANS, SpanAttribute, SpanDescriptor};
pub use spans::{
    LastCall, LookupSummary, StoreOperation, UpstreamSpan, deliver, ingest, lookup, observe, operation, poll,
    request, store, upstream,
};

/// The tracer, once tracing is started.
struct Tracer {
    tracer: SdkTracer,
    key: TraceKey,
}

/// One per process, as the current span is one per thread.
static LIVE: OnceLock<Tracer> = OnceLock::new();

/// Returns whether spans are created.
pub fn is_on() -> bool {
    LIVE.get().is_some()
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

/// The trace of a job, by its keyed hash; `None` while no spans are created.
pub fn of_job(job: &JobKey) -> Option<TraceId> {
    LIVE.get().map(|live| live.key.trace(job))
}

/// A span in progress. Dropping it ends it. Empty if no span is created.
#[derive(Debug, Default)]
pub struct SpanGuard(Option<Context>);

/// A context to link to, and to run work in. Cheap to clone; dropping it ends no span.
#[derive(Clone, Debug, Default)]
pub struct TraceContext(Option<Context>);

impl SpanGuard {
    /// The context of this span; without a span, the current context.
    pub fn context(&self) -> TraceContext {
        if !is_on() {
            return TraceContext(None);
        }
        TraceContext(Some(self.0.clone().unwrap_or_else(Context::current)))
    }

    /// The boxed span, for owners with many empty guards; `None` if there is no span.
    pub fn boxed(self) -> Option<Box<Self>> {
        self.0.is_some().then(|| Box::new(self))
    }

    fn set(&self, key: SpanAttribute, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key.name(), value));
        }
    }

    fn fail(&self, what: impl Into<StringValue>) {
        if let Some(context) = &self.0 {
            context
                .span()
                .set_attribute(KeyValue::new(SpanAttribute::Error.name(), Value::String(what.into())));
            context.span().set_status(Status::error(""));
        }
    }

    fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().is_recording())
    }
}

impl Drop for SpanGuard {
    fn drop(&mut self) {
        if let Some(context) = self.0.take() {
            context.span().end();
        }
    }
}

/// The parent in the headers, without `tracestate`: otherwise every span would propagate the content that a client
/// wrote there.
fn named_by(headers: &HeaderMap) -> Context {
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
    /// The current context.
    pub fn here() -> Self {
        Self(is_on().then(Context::current))
    }

    /// The context in the W3C header `traceparent` of another process; empty if there is none.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self(is_on().then(|| named_by(headers)))
    }

    /// Returns whether there is a trace to continue.
    pub fn is_somewhere(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().span_context().is_valid())
    }

    /// Runs a future in this context, wherever it is polled.
    pub fn hold<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone().unwrap_or_default())
    }

    /// Sets this context for the current thread until the returned guard is dropped.
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    /// The span context to link to.
    pub fn to_link(&self) -> Option<Box<SpanContext>> {
        let context = self.0.as_ref()?;
        let span = context.span();
        span.span_context().is_valid().then(|| Box::new(span.span_context().clone()))
    }
}

/// Creates a span below `above`. Below a local span that is not sampled, none is created.
fn begin(above: &Context, build: impl FnOnce() -> SpanBuilder) -> SpanGuard {
    let Some(live) = LIVE.get() else { return SpanGuard(None) };
    {
        let span = above.span();
        let span = span.span_context();
        if span.is_valid() && !span.is_remote() && !span.is_sampled() {
            return SpanGuard(None);
        }
    }
    let span = live.tracer.build_with_context(build(), above);
    SpanGuard(Some(above.with_span(span)))
}

/// Creates a span below the current one; none if there is no sampled one.
fn below(build: impl FnOnce() -> SpanBuilder) -> SpanGuard {
    if !is_sampled() {
        return SpanGuard(None);
    }
    Context::map_current(|above| begin(above, build))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_sets_the_remote_parent_without_tracestate() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", format!("00-{trace}-{span}-01").parse().unwrap());
        headers.insert("tracestate", "a=cAnaRy".parse().unwrap());
        let context = named_by(&headers);
        let there = context.span();
        let there = there.span_context();
        assert_eq!(
            (there.trace_id().to_string().as_str(), there.span_id().to_string().as_str()),
            (trace, span)
        );
        assert!(there.is_sampled() && there.is_remote());
        assert_eq!(there.trace_state().header(), "");
        headers.insert("traceparent", "00-0-0-01".parse().unwrap());
        assert!(!named_by(&headers).span().span_context().is_valid());
    }
}
