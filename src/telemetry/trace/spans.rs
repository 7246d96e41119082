//! The spans themselves: a function for each, with what it says. Not here: what they are called, which is `names`' list.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, TraceContextExt as _, TraceFlags, TraceState,
};
use opentelemetry::{Context, KeyValue, Value};

use super::{Active, Key, LIVE, Place, begin, below, is_on, job};
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;

/// The longest name of an operation that is told, in characters.
const NAME_MAX: usize = 64;

fn builder(name: impl Into<Cow<'static, str>>, kind: SpanKind, attributes: Vec<KeyValue>) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes)
}

fn say(key: Key, value: impl Into<Value>) -> KeyValue {
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

/// A request of the public listener, with the parent named by its headers. `route` is one of ours, never the path.
pub fn request(headers: &HeaderMap, method: &Method, route: Option<&'static str>) -> Active {
    let Place(Some(above)) = Place::of_headers(headers) else { return Active(None) };
    begin(&above, || {
        let method = method_name(method);
        // an unknown method is named as the conventions have it
        let verb = if method == "_OTHER" { "HTTP" } else { method };
        let name = route.map_or(Cow::Borrowed(verb), |route| format!("{verb} {route}").into());
        let route = route.map(|route| say(Key::Route, route));
        builder(name, SpanKind::Server, [say(Key::Method, method)].into_iter().chain(route).collect())
    })
}

impl Active {
    /// The answer to a request starts.
    pub fn answered(&self, status: StatusCode) {
        self.set(Key::Status, i64::from(status.as_u16()));
        if status.is_server_error() {
            self.fail(status.as_str().to_owned());
        }
    }
}

/// A GraphQL operation. `hash` is that of its document, made only where it is told.
pub fn operation(kind: &'static str, name: Option<&str>, hash: impl FnOnce() -> String) -> Active {
    if !is_on() {
        return Active(None);
    }
    let above = Context::current();
    begin(&above, || {
        let name = name.map(|name| say(Key::OperationName, name.chars().take(NAME_MAX).collect::<String>()));
        let sure = [say(Key::OperationType, kind), say(Key::DocumentHash, hash())];
        builder(kind, SpanKind::Internal, sure.into_iter().chain(name).collect())
    })
}

/// A lookup of so many jobs.
pub fn lookup(jobs: usize) -> Active {
    below(|| builder("job.lookup", SpanKind::Internal, vec![say(Key::Jobs, number(jobs))]))
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Jobs that were not held fresh enough.
    pub misses: usize,
    /// Of these, how many flights are led.
    pub led: usize,
    /// Answers that are older than was asked for.
    pub stale: usize,
}

impl Active {
    /// What a lookup found.
    pub fn found(&self, found: Found) {
        if !self.is_recording() {
            return;
        }
        let outcome = match found {
            Found { stale: 1.., .. } => "stale",
            Found { misses: 1.., .. } => "miss",
            Found { .. } => "hit",
        };
        self.set(Key::CacheOutcome, outcome);
        self.set(Key::Misses, number(found.misses));
        if found.misses > 0 {
            self.set(Key::FlightRole, if found.led > 0 { "leader" } else { "joiner" });
        }
    }
}

/// What is asked of the store.
#[derive(Clone, Copy, Debug)]
pub enum StoreOperation {
    /// What is held of jobs.
    Get,
    /// To keep one.
    Keep,
    /// To remember that there is none.
    Missing,
}

/// A question to the store about so many jobs.
pub fn store(operation: StoreOperation, jobs: usize) -> Active {
    let operation = match operation {
        StoreOperation::Get => "get",
        StoreOperation::Keep => "put",
        StoreOperation::Missing => "put_missing",
    };
    below(|| {
        let attributes = vec![say(Key::StoreOperation, operation), say(Key::Jobs, number(jobs))];
        builder("store", SpanKind::Internal, attributes)
    })
}

impl Active {
    /// What the store answered: the span ends with it.
    pub fn of_store<T, E>(self, answer: Result<T, E>) -> Result<T, E> {
        if answer.is_err() {
            self.fail("store");
        }
        answer
    }
}

/// The loop's look at some jobs of a source together: the beginning of a trace.
pub fn poll(source: &str, jobs: usize) -> Active {
    begin(&Context::new(), || {
        let attributes = vec![say(Key::Source, source.to_owned()), say(Key::Jobs, number(jobs))];
        builder("job.poll", SpanKind::Internal, attributes)
    })
}

/// The upstream call that was made last below a place, for the looks that it brings.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<Mutex<Option<SpanContext>>>>);

/// How it is found in a context.
struct Calls(Arc<Mutex<Option<SpanContext>>>);

impl Place {
    /// This place, and what learns of the calls made in it.
    pub fn with_caller(&self) -> (Self, Caller) {
        let Some(context) = &self.0 else { return (Self(None), Caller(None)) };
        let span = context.span();
        let span = Some(span.span_context().clone()).filter(SpanContext::is_sampled);
        let last = Arc::new(Mutex::new(span));
        (Self(Some(context.with_value(Calls(Arc::clone(&last))))), Caller(Some(last)))
    }
}

/// What is known of an upstream call before it is made.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
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
    /// How many tries went before.
    pub tries: u32,
}

/// A call of an upstream. Where nothing is worked under, it begins a trace.
pub fn upstream(call: Upstream<'_>) -> Active {
    let Some(above) = is_on().then(Context::current) else { return Active(None) };
    let made = begin(&above, || {
        let method = method_name(call.method);
        let mut attributes = vec![
            say(Key::Method, method),
            say(Key::Template, call.template.to_owned()),
            say(Key::Address, call.host.to_owned()),
            say(Key::Port, i64::from(call.port)),
            say(Key::Source, call.source.to_owned()),
            say(Key::Upstream, call.upstream),
        ];
        if call.tries > 0 {
            attributes.push(say(Key::Resends, i64::from(call.tries)));
        }
        builder(format!("{method} {}", call.template), SpanKind::Client, attributes)
    });
    if let (Some(context), Some(calls)) = (&made.0, above.get::<Calls>()) {
        let span = context.span().span_context().clone();
        *calls.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(span);
    }
    made
}

impl Active {
    /// The answer of an upstream came.
    pub fn replied(&self, status: StatusCode, request_id: Option<&str>) {
        self.set(Key::Status, i64::from(status.as_u16()));
        if let Some(id) = request_id {
            self.set(Key::UpstreamRequest, id.to_owned());
        }
        if status.is_client_error() || status.is_server_error() {
            self.fail(status.as_str().to_owned());
        }
    }

    /// No answer came, for a reason of a closed list.
    pub fn unanswered(&self, why: &'static str) {
        self.fail(why);
    }

    /// The header `traceparent` that names this span; where it is none, what is worked under.
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

/// One look at one job, as it was: in the trace of the job, linked to the call that asked.
///
/// `outcome` is the job's state, or what went wrong.
pub fn look(
    job: &JobKey,
    times: (Timestamp, Timestamp),
    caller: &Caller,
    polled: bool,
    outcome: Result<&'static str, &'static str>,
) -> Active {
    let Some(live) = LIVE.get() else { return Active(None) };
    let (asked_at, observed_at) = (times.0, times.1.max(times.0));
    let (trace, span) = (live.key.trace(job), live.key.look(job, asked_at, observed_at));
    let caller =
        caller.0.as_ref().and_then(|last| last.lock().unwrap_or_else(PoisonError::into_inner).clone());
    let made = job::named(trace, Some(span), || {
        begin(&Context::new(), || {
            let asker = if polled { "poll" } else { "client" };
            let mut attributes =
                vec![say(Key::Source, job.source.as_str().to_owned()), say(Key::Asker, asker)];
            if let Ok(state) = outcome {
                attributes.push(say(Key::State, state));
            }
            builder("job.observe", SpanKind::Internal, attributes)
                .with_start_time(SystemTime::from(asked_at))
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

/// What becomes of a look.
pub fn ingest() -> Active {
    below(|| builder("job.ingest", SpanKind::Internal, Vec::new()))
}

impl Active {
    /// What became of an observation: `new`, `older`, `missing`, `failed` or `lease_lost`.
    pub fn kept(&self, what: &'static str) {
        self.set(Key::Kept, what);
    }
}

/// The delivery of an update: in the trace of the job, linked to the look that brought it and to the subscription.
pub fn deliver(
    news: &Observation,
    kind: &'static str,
    sequence: u64,
    age_ms: u64,
    subscription: Option<&SpanContext>,
) -> Active {
    let Some(live) = LIVE.get() else { return Active(None) };
    let key = &news.job.key;
    let trace = live.key.trace(key);
    job::named(trace, None, || {
        begin(&Context::new(), || {
            let attributes = vec![
                say(Key::Source, key.source.as_str().to_owned()),
                say(Key::State, news.job.state().name()),
                say(Key::UpdateKind, kind),
                say(Key::Sequence, i64::try_from(sequence).unwrap_or(i64::MAX)),
                say(Key::Age, i64::try_from(age_ms).unwrap_or(i64::MAX)),
            ];
            let look = live.key.look(key, news.asked_at, news.observed_at);
            let look = SpanContext::new(trace, look, TraceFlags::SAMPLED, true, TraceState::NONE);
            let links = [Some(look), subscription.cloned()].into_iter().flatten().map(link);
            builder("job.deliver", SpanKind::Producer, attributes).with_links(links.collect())
        })
    })
}

fn link(to: SpanContext) -> Link {
    Link::new(to, Vec::new(), 0)
}
