//! Traces: the one place where a span is made. Which spans there are, with which attributes, is the closed list of `names`.
//! Made by the OpenTelemetry API itself and not by the macros of `tracing`, so that no level of the log takes a span away.
//!
//! Off until [`provider::start`]; then every function here is one look at an empty cell.

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

/// What spans are made with, once they are.
struct Tracer {
    tracer: SdkTracer,
    key: TraceKey,
}

/// Of the process, as the span that a thread works under is.
static LIVE: OnceLock<Tracer> = OnceLock::new();

/// Says whether spans are made.
pub fn is_on() -> bool {
    LIVE.get().is_some()
}

/// The span that is being worked under: trace, span, and whether it is exported. For exemplars and lines of the log.
pub fn current() -> Option<(TraceId, SpanId, bool)> {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id(), span.span_id(), span.is_sampled()))
    })
}

/// Says whether the span that is being worked under is exported: what is made for it alone is made for nothing if not.
pub fn is_sampled() -> bool {
    current().is_some_and(|(_, _, sampled)| sampled)
}

/// The trace of a job, by its keyed hash; none while no spans are made.
pub fn of_job(job: &JobKey) -> Option<TraceId> {
    LIVE.get().map(|live| live.key.trace(job))
}

/// A span under way. Dropping it ends it. Holds nothing where none is made.
#[derive(Debug, Default)]
pub struct SpanGuard(Option<Context>);

/// What a span is linked to, and what work goes on below. A cheap clone; ends nothing.
#[derive(Clone, Debug, Default)]
pub struct TraceContext(Option<Context>);

impl SpanGuard {
    /// What works under this span; where none is made, under what was worked under before.
    pub fn context(&self) -> TraceContext {
        if !is_on() {
            return TraceContext(None);
        }
        TraceContext(Some(self.0.clone().unwrap_or_else(Context::current)))
    }

    /// The span for somebody who holds many places for one; nothing where none is made.
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

/// What headers name, without `tracestate`: every span would carry on what whoever asks has written there.
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
    /// What is worked under now.
    pub fn here() -> Self {
        Self(is_on().then(Context::current))
    }

    /// The place that another process names by the W3C header `traceparent`; nowhere where it names none.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        Self(is_on().then(|| named_by(headers)))
    }

    /// Says whether there is a trace at all to go on with.
    pub fn is_somewhere(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().span_context().is_valid())
    }

    /// Has a future work here, wherever it is polled.
    pub fn hold<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone().unwrap_or_default())
    }

    /// Has this thread work here until what is given back is dropped.
    pub fn enter(&self) -> Option<ContextGuard> {
        self.0.clone().map(Context::attach)
    }

    /// As something to link to, without the rest.
    pub fn to_link(&self) -> Option<Box<SpanContext>> {
        let context = self.0.as_ref()?;
        let span = context.span();
        span.span_context().is_valid().then(|| Box::new(span.span_context().clone()))
    }
}

/// Makes a span below `above`. Below one of ours that is not exported there is none.
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

/// Makes a span below what is worked under; none where that is nothing.
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
