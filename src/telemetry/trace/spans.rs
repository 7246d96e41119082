//! The spans: one function for each, which sets its attributes. `names` lists their names.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt as _, TraceFlags, TraceState,
};
use opentelemetry::{Context, KeyValue, Value};

use super::{LIVE, SpanAttribute, SpanGuard, TraceContext, begin, below, is_on, job};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// The maximum length of a recorded operation name, in characters.
const NAME_MAX: usize = 64;

fn builder(name: impl Into<Cow<'static, str>>, kind: SpanKind, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes)
}

fn kv(key: SpanAttribute, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(key.name(), value)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

/// A request of the public listener, with the parent from its headers. `route` is one of our routes, never the path.
pub fn request(headers: &HeaderMap, method: &Method, route: Option<&'static str>) -> SpanGuard {
    let TraceContext(Some(above)) = TraceContext::of_headers(headers) else { return SpanGuard(None) };
    begin(&above, || {
        let method = method_name(method);
        // The span of an unknown method is named as in the semantic conventions.
        let verb = if method == "_OTHER" { "HTTP" } else { method };
        let name = route.map_or(Cow::Borrowed(verb), |route| format!("{verb} {route}").into());
        let route = route.map(|route| kv(SpanAttribute::Route, route));
        builder(
            name,
            SpanKind::Server,
            [kv(SpanAttribute::Method, method)].into_iter().chain(route).collect(),
        )
    })
}

impl SpanGuard {
    /// Called when the response to a request starts.
    pub fn answered(&self, status: StatusCode) {
        self.set(SpanAttribute::Status, i64::from(status.as_u16()));
        if status.is_server_error() {
            self.fail(status.as_str().to_owned());
        }
    }
}

/// A GraphQL operation. `hash` returns that of its document, and is called only if the span is recorded.
pub fn operation(kind: &'static str, name: Option<&str>, hash: impl FnOnce() -> String) -> SpanGuard {
    if !is_on() {
        return SpanGuard(None);
    }
    let above = Context::current();
    begin(&above, || {
        let name = name
            .map(|name| kv(SpanAttribute::OperationName, name.chars().take(NAME_MAX).collect::<String>()));
        let sure = [kv(SpanAttribute::OperationType, kind), kv(SpanAttribute::DocumentHash, hash())];
        builder(kind, SpanKind::Internal, sure.into_iter().chain(name).collect())
    })
}

/// A lookup of this number of jobs.
pub fn lookup(jobs: usize) -> SpanGuard {
    below(|| builder("job.lookup", SpanKind::Internal, vec![kv(SpanAttribute::Jobs, number(jobs))]))
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

impl SpanGuard {
    /// Records the outcome of a lookup.
    pub fn found(&self, found: LookupSummary) {
        if !self.is_recording() {
            return;
        }
        let outcome = match found {
            LookupSummary { stale: 1.., .. } => "stale",
            LookupSummary { misses: 1.., .. } => "miss",
            LookupSummary { .. } => "hit",
        };
        self.set(SpanAttribute::CacheOutcome, outcome);
        self.set(SpanAttribute::Misses, number(found.misses));
        if found.misses > 0 {
            self.set(SpanAttribute::SingleFlightRole, if found.led > 0 { "leader" } else { "joiner" });
        }
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

/// A store operation for this number of jobs.
pub fn store(operation: StoreOperation, jobs: usize) -> SpanGuard {
    let operation = match operation {
        StoreOperation::Get => "get",
        StoreOperation::Keep => "put",
        StoreOperation::Missing => "put_missing",
    };
    below(|| {
        let attributes =
            vec![kv(SpanAttribute::StoreOperation, operation), kv(SpanAttribute::Jobs, number(jobs))];
        builder("store", SpanKind::Internal, attributes)
    })
}

impl SpanGuard {
    /// Records the result of the store, and ends the span.
    pub fn of_store<T, E>(self, answer: Result<T, E>) -> Result<T, E> {
        if answer.is_err() {
            self.fail("store");
        }
        answer
    }
}

/// One poll of some jobs of a source: the root of a trace.
pub fn poll(source: &str, jobs: usize) -> SpanGuard {
    begin(&Context::new(), || {
        let attributes =
            vec![kv(SpanAttribute::Source, source.to_owned()), kv(SpanAttribute::Jobs, number(jobs))];
        builder("job.poll", SpanKind::Internal, attributes)
    })
}

/// The last upstream call in a context, for the observations that it returns.
#[derive(Clone, Debug, Default)]
pub struct LastCall(Option<Arc<Mutex<Option<SpanContext>>>>);

/// The entry of a context that stores it.
struct CallContext(Arc<Mutex<Option<SpanContext>>>);

impl TraceContext {
    /// This context, and the recorder of the calls made in it.
    pub fn with_caller(&self) -> (Self, LastCall) {
        let Some(context) = &self.0 else { return (Self(None), LastCall(None)) };
        let span = context.span();
        let span = Some(span.span_context().clone()).filter(SpanContext::is_sampled);
        let last = Arc::new(Mutex::new(span));
        (Self(Some(context.with_value(CallContext(Arc::clone(&last))))), LastCall(Some(last)))
    }
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
pub fn upstream(call: UpstreamSpan<'_>) -> SpanGuard {
    let Some(above) = is_on().then(Context::current) else { return SpanGuard(None) };
    let made = begin(&above, || {
        let method = method_name(call.method);
        let mut attributes = vec![
            kv(SpanAttribute::Method, method),
            kv(SpanAttribute::Template, call.template.to_owned()),
            kv(SpanAttribute::Address, call.host.to_owned()),
            kv(SpanAttribute::Port, i64::from(call.port)),
            kv(SpanAttribute::Source, call.source.to_owned()),
            kv(SpanAttribute::Upstream, call.upstream),
        ];
        if call.tries > 0 {
            attributes.push(kv(SpanAttribute::Resends, i64::from(call.tries)));
        }
        builder(format!("{method} {}", call.template), SpanKind::Client, attributes)
    });
    if let (Some(context), Some(calls)) = (&made.0, above.get::<CallContext>()) {
        let span = context.span().span_context().clone();
        *calls.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(span);
    }
    made
}

impl SpanGuard {
    /// Called when the response of an upstream arrives.
    pub fn replied(&self, status: StatusCode, request_id: Option<&str>) {
        self.set(SpanAttribute::Status, i64::from(status.as_u16()));
        if let Some(id) = request_id {
            self.set(SpanAttribute::UpstreamRequest, id.to_owned());
        }
        if status.is_client_error() || status.is_server_error() {
            self.fail(status.as_str().to_owned());
        }
    }

    /// Called when there is no response, with a reason from a closed list.
    pub fn unanswered(&self, why: &'static str) {
        self.fail(why);
    }

    /// The header `traceparent` of this span; without a span, of the current one.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        let write = |context: &Context| {
            let span = context.span();
            let span = span.span_context();
            let flags = u8::from(span.is_sampled());
            let text = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
            span.is_valid().then(|| HeaderValue::try_from(text).ok())?
        };
        match &self.0 {
            Some(context) => write(context),
            None if is_on() => Context::map_current(write),
            None => None,
        }
    }
}

/// One observation of one job: in the trace of the job, linked to the upstream call.
///
/// `outcome` is the job's state, or the error.
pub fn observe(
    job: &JobKey,
    times: (Timestamp, Timestamp),
    caller: &LastCall,
    polled: bool,
    outcome: Result<&'static str, &'static str>,
) -> SpanGuard {
    let Some(live) = LIVE.get() else { return SpanGuard(None) };
    let (requested_at, observed_at) = (times.0, times.1.max(times.0));
    let (trace, span) = (live.key.trace(job), live.key.observation(job, requested_at, observed_at));
    let caller =
        caller.0.as_ref().and_then(|last| last.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let made = job::with_ids(trace, Some(span), || {
        begin(&Context::new(), || {
            let trigger = if polled { "poll" } else { "client" };
            let mut attributes = vec![
                kv(SpanAttribute::Source, job.source.as_str().to_owned()),
                kv(SpanAttribute::Trigger, trigger),
            ];
            if let Ok(state) = outcome {
                attributes.push(kv(SpanAttribute::State, state));
            }
            builder("job.observe", SpanKind::Internal, attributes)
                .with_start_time(SystemTime::from(requested_at))
                .with_links(caller.map(link).into_iter().collect())
        })
    });
    if let Err(why) = outcome {
        made.fail(why);
    }
    if let Some(context) = &made.0 {
        context.span().end_with_timestamp(observed_at.into());
    }
    made
}

/// The ingestion of an observation.
pub fn ingest() -> SpanGuard {
    below(|| builder("job.ingest", SpanKind::Internal, Vec::new()))
}

impl SpanGuard {
    /// Records the outcome of the ingestion: `new`, `older`, `missing`, `not_found`, `conflicting_version`, `failed` or
    /// `lease_lost`.
    pub fn kept(&self, what: &'static str) {
        self.set(SpanAttribute::Kept, what);
    }
}

/// The delivery of an update: in the trace of the job, linked to the observation of the change and to the subscription.
pub fn deliver(
    observation: &Observation,
    kind: &'static str,
    sequence: u64,
    age_ms: u64,
    subscription: Option<&SpanContext>,
) -> SpanGuard {
    let Some(live) = LIVE.get() else { return SpanGuard(None) };
    let key = &observation.job.key;
    let trace = live.key.trace(key);
    job::with_ids(trace, None, || {
        begin(&Context::new(), || {
            let attributes = vec![
                kv(SpanAttribute::Source, key.source.as_str().to_owned()),
                kv(SpanAttribute::State, observation.job.state().name()),
                kv(SpanAttribute::UpdateKind, kind),
                kv(SpanAttribute::Sequence, i64::try_from(sequence).unwrap_or(i64::MAX)),
                kv(SpanAttribute::Age, i64::try_from(age_ms).unwrap_or(i64::MAX)),
            ];
            let observation_span =
                live.key.observation(key, observation.requested_at, observation.observed_at);
            let observation_span =
                SpanContext::new(trace, observation_span, TraceFlags::SAMPLED, true, TraceState::NONE);
            let links = [Some(observation_span), subscription.cloned()].into_iter().flatten().map(link);
            builder("job.deliver", SpanKind::Producer, attributes).with_links(links.collect())
        })
    })
}

fn link(to: SpanContext) -> Link {
    Link::new(to, Vec::new(), 0)
}
