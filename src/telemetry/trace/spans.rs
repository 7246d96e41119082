//! The spans: one function for each, which sets its attributes, and one for what is known only later. `names` lists their
//! names.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{
    Link, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::context::{
    TARGET, TraceContext, UnsampledSpan, current, is_dropped, is_on, is_sampled, remote_parent,
};
use super::job::{self, JobTraces};
use super::names::SpanAttribute;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// The maximum length of a recorded operation name, in characters.
const NAME_MAX: usize = 64;

/// Other integers would be exported as texts.
fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// Marks a span as failed, with a reason from a closed list.
pub fn fail(span: &Span, why: &str) {
    span.record("error.type", why);
    span.record("otel.status_code", "ERROR");
}

fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "_OTHER",
    }
}

/// The trace of a request.
#[derive(Debug)]
pub enum RequestTrace {
    /// No spans are created.
    Off,
    /// It is not sampled, which is decided before its span is created: most requests need none.
    Dropped(UnsampledSpan),
    /// It is sampled: its span.
    Sampled(Span),
}

impl RequestTrace {
    /// Does something in the trace.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        match self {
            Self::Off => work(),
            Self::Dropped(span) => span.within(work),
            Self::Sampled(span) => span.in_scope(work),
        }
    }

    /// Called when the response to the request starts.
    pub fn answered(&self, status: StatusCode) {
        let Self::Sampled(span) = self else { return };
        span.record("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            fail(span, status.as_str());
        }
    }
}

/// A request of the public listener, with the parent from its headers. `route` is one of our routes, and `path` contains
/// nothing that the client wrote.
pub fn request(
    headers: &HeaderMap,
    method: &Method,
    route: Option<&'static str>,
    path: &'static str,
) -> RequestTrace {
    if !is_on() {
        return RequestTrace::Off;
    }
    let parent = remote_parent(headers);
    let Some((trace, is_sampled)) = JobTraces::sample_current(&parent) else { return RequestTrace::Off };
    if !is_sampled {
        return RequestTrace::Dropped(UnsampledSpan::of(trace));
    }
    let method = method_name(method);
    // The span of an unknown method is named as in the semantic conventions.
    let verb = if method == "_OTHER" { "HTTP" } else { method };
    let name = route.map_or(Cow::Borrowed(verb), |route| format!("{verb} {route}").into());
    let span = info_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = &*name,
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        url.scheme = Empty,
        url.path = path,
        http.route = route,
        http.response.status_code = Empty,
        "error.type" = Empty,
    );
    // It fails only for a span that has started.
    span.set_parent(parent).ok();
    // The span starts when its context is read.
    job::with_ids(trace, None, || drop(span.context()));
    RequestTrace::Sampled(span)
}

/// Called when it is known how the current request was sent.
pub fn sent_securely(secure: bool) {
    if is_sampled() {
        Span::current().record("url.scheme", if secure { "https" } else { "http" });
    }
}

/// A GraphQL operation. `hash` returns that of its document, and is called only if the span is created.
pub fn operation(kind: &'static str, name: Option<&str>, hash: impl FnOnce() -> String) -> Span {
    if !is_on() || is_dropped() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "operation",
        otel.name = kind,
        otel.status_code = Empty,
        graphql.operation.type = kind,
        graphql.operation.name = name.map(|name| name.chars().take(NAME_MAX).collect::<String>()),
        graphql.document.hash = hash(),
        "error.type" = Empty,
    )
}

/// A lookup of this number of jobs.
pub fn lookup(jobs: usize) -> Span {
    if !is_sampled() {
        return Span::none();
    }
    info_span!(
        target: TARGET,
        "job.lookup",
        job.count = number(jobs),
        cache.outcome = Empty,
        cache.misses = Empty,
        singleflight.role = Empty,
    )
}

/// The outcome of a lookup.
#[derive(Clone, Copy, Debug, Default)]
pub struct LookupSummary {
    /// Jobs that were not fresh enough in the cache.
    pub misses: usize,
    /// Of these, the number of fetches that this lookup leads.
    pub led: usize,
    /// Answers that are older than requested.
    pub stale: usize,
}

/// Records the outcome of a lookup.
pub fn found(span: &Span, found: LookupSummary) {
    let outcome = match found {
        LookupSummary { stale: 1.., .. } => "stale",
        LookupSummary { misses: 1.., .. } => "miss",
        LookupSummary { .. } => "hit",
    };
    span.record("cache.outcome", outcome);
    span.record("cache.misses", number(found.misses));
    if found.misses > 0 {
        span.record("singleflight.role", if found.led > 0 { "leader" } else { "joiner" });
    }
}

/// The kind of a store operation.
#[derive(Clone, Copy, Debug)]
pub enum StoreOperation {
    /// Reads jobs.
    Get,
    /// Stores a job.
    Keep,
    /// Records that a job does not exist.
    Missing,
}

/// An operation on the job store. Its span is not the current one, and ends when it is dropped.
pub fn store(operation: StoreOperation, jobs: usize) -> Span {
    if !is_sampled() {
        return Span::none();
    }
    let operation = match operation {
        StoreOperation::Get => "get",
        StoreOperation::Keep => "put",
        StoreOperation::Missing => "put_missing",
    };
    info_span!(
        target: TARGET,
        "store",
        otel.status_code = Empty,
        store.operation = operation,
        job.count = number(jobs),
        "error.type" = Empty,
    )
}

/// Records the result of the store, and ends the span.
pub fn stored<T, E>(span: Span, answer: Result<T, E>) -> Result<T, E> {
    if answer.is_err() {
        fail(&span, "store");
    }
    drop(span);
    answer
}

/// One poll of some jobs of a source: the root of a trace.
pub fn poll(source: &str, jobs: usize) -> Span {
    info_span!(target: TARGET, parent: None, "job.poll", jobgate.source = source, job.count = number(jobs))
}

/// One sweep of a source: the root of a trace.
pub fn sweep(source: &str) -> Span {
    info_span!(target: TARGET, parent: None, "job.sweep", jobgate.source = source)
}

/// What an observation was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObserveTrigger {
    /// A scheduled poll.
    Poll,
    /// A sweep of the source.
    Sweep,
    /// A request of a client.
    Client,
}

impl ObserveTrigger {
    const fn word(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Sweep => "sweep",
            Self::Client => "client",
        }
    }
}

/// The last upstream call in a context, for the observations that it returns.
#[derive(Clone, Debug, Default)]
pub struct LastCall(Option<Arc<Mutex<Option<SpanContext>>>>);

/// The entry of a context that stores it.
struct CallContext(Arc<Mutex<Option<SpanContext>>>);

/// Completes with the result of `work`, and the last upstream call in it.
pub async fn with_last_call<T>(work: impl Future<Output = T>) -> (T, LastCall) {
    if !is_on() {
        return (work.await, LastCall(None));
    }
    let context = Context::current();
    let span = Some(context.span().span_context().clone()).filter(SpanContext::is_sampled);
    let last = Arc::new(Mutex::new(span));
    let context = context.with_value(CallContext(Arc::clone(&last)));
    (work.with_context(context).await, LastCall(Some(last)))
}

/// The data of an upstream call before it is made.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamSpan<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path without ids.
    pub template: &'a str,
    /// The host.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The name of the source.
    pub source: &'a str,
    /// The kind of the upstream.
    pub upstream: &'static str,
    /// The number of earlier attempts.
    pub tries: u32,
}

/// A call of an upstream. Without a current span it starts a trace.
pub fn upstream(call: UpstreamSpan<'_>) -> Span {
    if !is_on() || is_dropped() {
        return Span::none();
    }
    let method = method_name(call.method);
    let span = info_span!(
        target: TARGET,
        "upstream.call",
        otel.name = format!("{method} {}", call.template),
        otel.kind = "client",
        otel.status_code = Empty,
        http.request.method = method,
        url.template = call.template,
        server.address = call.host,
        server.port = i64::from(call.port),
        jobgate.source = call.source,
        jobgate.upstream = call.upstream,
        http.response.status_code = Empty,
        http.request.resend_count = (call.tries > 0).then(|| i64::from(call.tries)),
        upstream.request.id = Empty,
        "error.type" = Empty,
    );
    Context::map_current(|above| {
        if let Some(CallContext(last)) = above.get() {
            let context = span.context().span().span_context().clone();
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(context);
        }
    });
    span
}

/// Called when the response of an upstream arrives.
pub fn replied(span: &Span, status: StatusCode, request_id: Option<&str>) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    span.record("upstream.request.id", request_id);
    if status.is_client_error() || status.is_server_error() {
        fail(span, status.as_str());
    }
}

/// Called when there is no response, with a reason from a closed list.
pub fn unanswered(span: &Span, why: &'static str) {
    fail(span, why);
}

/// The header `traceparent` of a span; of the current one, if it is disabled.
pub fn traceparent(span: &Span) -> Option<HeaderValue> {
    let (trace, span, sampled) = if span.is_disabled() {
        current()?
    } else {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return None;
        }
        (span.trace_id(), span.span_id(), span.is_sampled())
    };
    let flags = u8::from(sampled);
    HeaderValue::try_from(format!("00-{trace}-{span}-{flags:02x}")).ok()
}

/// One observation of one job: in the trace of the job, linked to the upstream call. Returns the context of its ingestion.
/// Not a span of `tracing`, because it starts and ends in the past.
///
/// `outcome` is the job's state, or the error.
pub fn observe(
    job: &JobKey,
    times: (Timestamp, Timestamp),
    caller: &LastCall,
    trigger: ObserveTrigger,
    outcome: Result<&'static str, &'static str>,
) -> TraceContext {
    let Some(traces) = JobTraces::current() else { return TraceContext::default() };
    let (requested_at, observed_at) = (times.0, times.1.max(times.0));
    let ids = (traces.key().trace(job), traces.key().observation(job, requested_at, observed_at));
    let caller =
        caller.0.as_ref().and_then(|last| last.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let kv = |key: SpanAttribute, value: Value| KeyValue::new(key.name(), value);
    let mut attributes = vec![
        kv(SpanAttribute::Source, job.source.as_str().to_owned().into()),
        kv(SpanAttribute::Trigger, trigger.word().into()),
    ];
    attributes.push(match outcome {
        Ok(state) => kv(SpanAttribute::State, state.into()),
        Err(why) => kv(SpanAttribute::Error, why.into()),
    });
    let builder = traces
        .tracer()
        .span_builder("job.observe")
        .with_kind(SpanKind::Internal)
        .with_start_time(SystemTime::from(requested_at))
        .with_attributes(attributes)
        .with_links(caller.map(|call| Link::new(call, Vec::new(), 0)).into_iter().collect());
    let root = Context::new();
    let span = job::with_ids(ids.0, Some(ids.1), || traces.tracer().build_with_context(builder, &root));
    let context = root.with_span(span);
    if outcome.is_err() {
        context.span().set_status(Status::error(""));
    }
    context.span().end_with_timestamp(observed_at.into());
    context.into()
}

/// The ingestion of an observation.
pub fn ingest() -> Span {
    if !is_sampled() {
        return Span::none();
    }
    info_span!(target: TARGET, "job.ingest", ingest.outcome = Empty)
}

/// Records the outcome of the ingestion: `new`, `older`, `missing`, `not_found`, `conflicting_version`, `failed` or
/// `lease_lost`.
pub fn kept(span: &Span, what: &'static str) {
    span.record("ingest.outcome", what);
}

/// The delivery of an update: in the trace of the job, linked to the observation of the change and to the subscription.
pub fn deliver(
    observation: &Observation,
    kind: &'static str,
    sequence: u64,
    age_ms: u64,
    subscription: Option<&SpanContext>,
) -> Span {
    let Some(traces) = JobTraces::current() else { return Span::none() };
    let key = &observation.job.key;
    let trace = traces.key().trace(key);
    let span = info_span!(
        target: TARGET,
        parent: None,
        "job.deliver",
        otel.kind = "producer",
        jobgate.source = key.source.as_str(),
        job.state = observation.job.state().name(),
        job.update.kind = kind,
        job.update.sequence = number(sequence),
        job.update.age_ms = number(age_ms),
    );
    let observed = traces.key().observation(key, observation.requested_at, observation.observed_at);
    span.add_link(SpanContext::new(trace, observed, TraceFlags::SAMPLED, true, TraceState::NONE));
    if let Some(subscription) = subscription {
        span.add_link(subscription.clone());
    }
    // The span starts when its context is read.
    job::with_ids(trace, None, || drop(span.context()));
    span
}
