//! Tests of the spans that do not depend on a collector.

use std::collections::BTreeSet;

use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::SpanData;
use tracing::Instrument as _;

use super::context::remote_parent;
use super::testing::RecordedSpans;
use super::*;
use crate::domain::id::{ExternalId, JobKey, SourceName};

fn job() -> JobKey {
    let external_id = ExternalId::parse("a").unwrap();
    JobKey { source: SourceName::parse("mind").unwrap(), external_id }
}

fn call() -> UpstreamSpan<'static> {
    let (method, template, host, source) = (&Method::GET, "/jobs/{id}", "up.example", "mind");
    UpstreamSpan { method, template, host, port: 443, source, upstream: "mindbridge", tries: 1 }
}

/// The span with this name.
fn one<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let found: Vec<&SpanData> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:?}");
    found[0]
}

/// One span of each kind, as a request would create them.
fn one_of_each() -> Vec<SpanData> {
    let spans = RecordedSpans::start();
    let request = request(&HeaderMap::new(), &Method::POST, Some("/graphql"), "/graphql");
    request.in_scope(|| {
        sent_securely(true);
        let operation = operation("query", Some("Q"), || "hash".to_owned());
        fail(&operation, "BAD_USER_INPUT");
        let _operation = operation.enter();
        let lookup = lookup(1);
        found(&lookup, LookupSummary { misses: 1, led: 1, stale: 0 });
        stored(store(StoreOperation::Get, 1), Err::<(), ()>(())).unwrap_err();
        drop(poll("mind", 1));
        replied(&upstream(call()), StatusCode::NOT_FOUND, Some("r"));
        let at = Timestamp::from_second;
        let times = (at(1).unwrap(), at(2).unwrap());
        let _observed =
            observe(&job(), times, &LastCall::default(), ObserveTrigger::Poll, Ok("RUNNING")).enter();
        kept(&ingest(), "new");
    });
    request.answered(StatusCode::INTERNAL_SERVER_ERROR);
    drop(request);
    spans.ended()
}

#[test]
fn spans_have_exactly_the_attributes_of_the_list() {
    let spans = one_of_each();
    let names = [
        ("POST /graphql", "{method} {route}"),
        ("query", "query, mutation, subscription"),
        ("job.lookup", "job.lookup"),
        ("store", "store"),
        ("job.poll", "job.poll"),
        ("GET /jobs/{id}", "{method} {url.template}"),
        ("job.observe", "job.observe"),
        ("job.ingest", "job.ingest"),
    ];
    assert_eq!(spans.len(), names.len(), "{spans:#?}");
    for (name, listed) in names {
        let listed = SPANS.iter().find(|span| span.name == listed).unwrap();
        let span = one(&spans, name);
        let kind = format!("{:?}", span.span_kind).to_lowercase();
        let keys: BTreeSet<&str> = span.attributes.iter().map(|pair| pair.key.as_str()).collect();
        let mut expected: BTreeSet<&str> = listed.keys.iter().map(|key| key.name()).collect();
        if name == "job.observe" {
            // It has either a state or an error.
            expected.remove(SpanAttribute::Error.name());
        }
        assert_eq!((kind.as_str(), keys, span.attributes.len()), (listed.kind, expected, listed_len(span)));
    }
}

#[test]
fn nested_spans_have_their_parents() {
    let spans = one_of_each();
    assert_eq!(one(&spans, "job.ingest").parent_span_id, one(&spans, "job.observe").span_context.span_id());
    assert_eq!(one(&spans, "query").parent_span_id, one(&spans, "POST /graphql").span_context.span_id());
}

/// The number of its attributes, each counted once.
fn listed_len(span: &SpanData) -> usize {
    span.attributes.iter().map(|pair| pair.key.as_str()).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn an_observation_links_the_last_upstream_call() {
    let spans = RecordedSpans::start();
    let calls = async {
        drop(upstream(call()));
        drop(upstream(call()));
    };
    let ((), last) = with_last_call(calls).instrument(poll("mind", 1)).await;
    let times = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    observe(&job(), times, &last, ObserveTrigger::Poll, Err("timed_out"));
    let spans = spans.ended();
    let calls: Vec<&SpanData> = spans.iter().filter(|span| span.name.starts_with("GET")).collect();
    let (poll, observation) = (one(&spans, "job.poll"), one(&spans, "job.observe"));
    assert!(calls.iter().all(|call| call.parent_span_id == poll.span_context.span_id()));
    assert_eq!(observation.links.links[0].span_context, calls[1].span_context);
    assert_ne!(observation.span_context.trace_id(), poll.span_context.trace_id());
}

/// A request of a client that does not sample its trace.
fn unsampled_request() -> RequestTrace {
    let mut headers = HeaderMap::new();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    headers.insert("traceparent", parent.parse().unwrap());
    request(&headers, &Method::GET, None, "/REDACTED")
}

#[test]
fn sampling_is_decided_before_the_span_of_a_request_as_by_the_span() {
    let spans = RecordedSpans::sampled(0.5);
    let headers = HeaderMap::new();
    let of_request = |_| request(&headers, &Method::GET, None, "/REDACTED");
    let traces: Vec<RequestTrace> = (0..1000).map(of_request).collect();
    let sampled = traces.iter().filter(|trace| matches!(trace, RequestTrace::Sampled(_))).count();
    assert!((400..600).contains(&sampled), "{sampled} of 1000");
    drop(traces);
    assert_eq!(spans.ended().len(), sampled);
}

#[test]
fn nothing_is_created_below_a_span_that_is_not_sampled() {
    let spans = RecordedSpans::start();
    unsampled_request().in_scope(|| {
        assert!(operation("query", None, || unreachable!("it is not recorded")).is_disabled());
        assert!(lookup(1).is_disabled() && upstream(call()).is_disabled());
    });
    assert!(spans.ended().is_empty());
}

#[test]
fn decision_not_to_sample_is_propagated() {
    let _spans = RecordedSpans::start();
    let sent = unsampled_request().in_scope(|| traceparent(&upstream(call())).unwrap());
    assert!(sent.to_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent:?}");
    assert!(sent.to_str().unwrap().ends_with("-00"), "{sent:?}");
}

/// The id of the trace of a call that is made here.
fn trace_of_a_call() -> Option<String> {
    let sent = traceparent(&upstream(call()))?;
    sent.to_str().unwrap().split('-').nth(1).map(ToOwned::to_owned)
}

#[tokio::test]
async fn a_boxed_future_runs_in_its_context_wherever_it_is_polled() {
    let spans = RecordedSpans::start();
    let call = async |context: &TraceContext| context.boxed(async { trace_of_a_call() }).await.unwrap();
    let unsampled = unsampled_request().in_scope(TraceContext::here);
    assert_eq!(call(&unsampled).await, "4bf92f3577b34da6a3ce929d0e0e4736");
    let sampled = request(&HeaderMap::new(), &Method::GET, None, "/REDACTED").in_scope(TraceContext::here);
    let trace = sampled.to_link().unwrap().trace_id().to_string();
    assert_eq!(call(&sampled).await, trace);
    assert_ne!(call(&TraceContext::default()).await, trace, "a call without a context starts a trace");
    assert_eq!(spans.ended().len(), 3);
}

#[test]
fn task_of_a_request_that_is_not_sampled_is_not_sampled() {
    let spans = RecordedSpans::start();
    let context = unsampled_request().in_scope(TraceContext::here);
    let _in_the_task = context.enter();
    assert!(operation("query", None, || unreachable!("it is not recorded")).is_disabled());
    let sent = traceparent(&upstream(call())).unwrap();
    assert!(sent.to_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent:?}");
    assert!(sent.to_str().unwrap().ends_with("-00"), "{sent:?}");
    assert!(spans.ended().is_empty());
}

#[test]
fn traceparent_sets_the_remote_parent_without_tracestate() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{trace}-{span}-01").parse().unwrap());
    headers.insert("tracestate", "a=cAnaRy".parse().unwrap());
    let context = remote_parent(&headers);
    let there = context.span();
    let there = there.span_context();
    assert_eq!((there.trace_id().to_string().as_str(), there.span_id().to_string().as_str()), (trace, span));
    assert!(there.is_sampled() && there.is_remote());
    assert_eq!(there.trace_state().header(), "");
    headers.insert("traceparent", "00-0-0-01".parse().unwrap());
    assert!(!remote_parent(&headers).span().span_context().is_valid());
}
