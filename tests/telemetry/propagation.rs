//! The trace context of a client: which upstreams receive it, and what is exported of its trace and of other traces
//! while the sample ratio is 0.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;

use super::sink::{Got, Sink};
use super::{JOB, TRACE, one, secrets, traceparent};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::wire;

/// What two upstreams and the collector received of a request to each source in a sampled trace of the client, and of
/// a request without a trace before them.
struct Outcome {
    /// The heads of the requests to the source with `propagate_trace`, in lower case.
    configured: String,
    /// The same of the other source.
    other: String,
    spans: Vec<Got>,
}

fn is_call(span: &Got) -> bool {
    span.name == "GET /v1/async-results/{id}"
}

fn is_request(span: &Got) -> bool {
    span.name == "GET /v1/jobs/{source}/{externalId}"
}

impl Outcome {
    /// The span of the call to the source with `propagate_trace`.
    fn call(&self) -> &Got {
        one(&self.spans, "GET /v1/async-results/{id}", |span| {
            span.trace == TRACE && span.attribute("jobgate.source") == "configured"
        })
    }
}

/// An upstream without jobs, which records the heads of its requests.
async fn upstream_without_jobs(tasks: &mut JoinSet<()>) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(String::new()));
    let head_log = Arc::clone(&heads);
    tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = socket.read(&mut head).await.unwrap();
            head_log.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..read]).to_lowercase());
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\nx-request-id: up-7\r\n\r\n";
            socket.write_all(answer).await.unwrap();
        }
    });
    (url, heads)
}

/// The outcome of one run, for all tests of this file.
async fn outcome() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(run())).await
}

async fn run() -> Outcome {
    let (mut tasks, sink) = (JoinSet::new(), Sink::http().await);
    let (configured, configured_heads) = upstream_without_jobs(&mut tasks).await;
    let (other, other_heads) = upstream_without_jobs(&mut tasks).await;
    let source = |url: &str, more: &str| {
        format!(
            "{{ upstream: mindbridge, base_url: '{url}', credential: {{ bearer: {{ env: MIND_TOKEN }} }}{more} }}"
        )
    };
    let config = Scratch::new(&format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\nstore: {{ kind: memory }}\n\
         sources: {{ configured: {}, other: {} }}\ntelemetry: {{ otlp_endpoint: '{}', sample_ratio: 0 }}",
        source(&configured, ", propagate_trace: true"),
        source(&other, ""),
        sink.url()
    ));
    let mut process = Process::start(&["serve", "--config", config.path()], &secrets());
    let gateway = process.address("public").await;
    let parent = traceparent(TRACE);
    let of_client = [("traceparent", parent.as_str())];
    for (path, headers) in [
        ("/v1/jobs/configured/of-no-trace".to_owned(), [].as_slice()),
        (format!("/v1/jobs/configured/{JOB}"), of_client.as_slice()),
        (format!("/v1/jobs/other/{JOB}"), of_client.as_slice()),
    ] {
        let answer = wire::exchange(gateway, &wire::request("GET", &path, headers, "")).await;
        assert_eq!(answer.status, 502, "not MindBridge's own error: {}", answer.body);
    }
    let count = |spans: &[Got], is: fn(&Got) -> bool| spans.iter().filter(|span| is(span)).count();
    let both = |spans: &[Got]| count(spans, is_call) >= 2 && count(spans, is_request) >= 2;
    let spans = sink.spans("two calls and two requests", both).await;
    let [configured, other] = [configured_heads, other_heads].map(|heads| heads.lock().unwrap().clone());
    Outcome { configured, other, spans }
}

#[tokio::test]
async fn trace_context_is_propagated_only_to_configured_sources() {
    let outcome = outcome().await;
    let expected = format!("traceparent: 00-{TRACE}-{}-01", outcome.call().id);
    assert!(outcome.configured.contains(&expected), "{}", outcome.configured);
    assert!(outcome.other.starts_with("get /v1/async-results/"), "{}", outcome.other);
    assert!(!outcome.other.contains("traceparent"), "{}", outcome.other);
}

#[tokio::test]
async fn a_call_span_describes_the_failed_upstream_request() {
    let call = outcome().await.call();
    assert_eq!((call.attribute("upstream.request.id"), call.attribute("error.type")), ("up-7", "404"));
}

#[tokio::test]
async fn a_client_sampling_decision_precedes_the_sample_ratio() {
    let spans = &outcome().await.spans;
    for is in [is_call, is_request] {
        let of_client = spans.iter().filter(|span| span.trace == TRACE && is(span));
        assert_eq!(of_client.count(), 2, "{spans:#?}");
    }
}

#[tokio::test]
async fn a_sample_ratio_of_0_exports_no_trace_that_starts_here() {
    let spans = &outcome().await.spans;
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
}
