//! Traces as a collector receives them: from real processes, over gRPC and over HTTP, asserted as data. The names and
//! attributes of spans are the closed list of the code.

mod outage;
mod propagation;
mod sink;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use jiff::Timestamp;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate::telemetry::trace::{SPANS, SpanAttribute};
use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, Simulator};
use opentelemetry::metrics::MeterProvider as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN, external};
use crate::support::streams::{LIMIT, settles};
use crate::support::wire;
use sink::{Got, Sink};

/// The job, whose id is in URLs and variables and in no span.
const JOB: &str = "65f0canary00000000000042";
/// A header for the collector.
const HEADERS: &str = "x-api-key=cAnArY-collector";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const OTHER_TRACE: &str = "aaaabbbbccccddddeeeeffff00001111";

fn traceparent(trace: &str) -> String {
    format!("00-{trace}-{PARENT}-01")
}

fn secrets() -> Vec<(&'static str, &'static str)> {
    vec![
        ("MIND_TOKEN", TOKEN),
        ("METRICS_KEY", KEY),
        ("OTLP_HEADERS", HEADERS),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]
}

/// The only span with this name for which `is` is true.
fn one<'a>(spans: &'a [Got], name: &str, is: impl Fn(&Got) -> bool) -> &'a Got {
    let found: Vec<&Got> = spans.iter().filter(|span| span.name == name && is(span)).collect();
    assert_eq!(found.len(), 1, "{name}: {found:#?} of {spans:#?}");
    found[0]
}

/// No secret, no variable, no URL, no job id; and only values of the list.
fn assert_harmless((bytes, headers): &(Vec<u8>, Vec<String>), spans: &[Got]) {
    let known = |key: &str| SPANS.iter().flat_map(|sort| sort.keys).any(|known| known.name() == key);
    for span in spans {
        assert!(span.attributes.keys().all(|key| known(key)), "{span:?}");
    }
    assert!(bytes.len() > 500, "there is something to search");
    for canary in [TOKEN, KEY, JOB, "65f0canary", "://", "?json", "refs", "cAnArY", "Bearer", "query One"] {
        let found = bytes.windows(canary.len()).any(|window| window.eq_ignore_ascii_case(canary.as_bytes()));
        assert!(!found, "{canary} was exported: {spans:#?}");
    }
    assert!(headers.iter().any(|header| header == "x-api-key: cAnArY-collector"), "{headers:?}");
}

async fn execute(gateway: SocketAddr, trace: &str) -> Value {
    let query = "query One($ref: JobRef!) { job(ref: $ref) { ... on Job { state } } }";
    let body = json!({ "query": query, "variables": { "ref": external("mind", JOB) } }).to_string();
    let parent = traceparent(trace);
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("traceparent", parent.as_str()),
    ];
    wire::exchange(gateway, &wire::request("POST", "/graphql", &headers, &body)).await.data()
}

/// The spans of a query, exported one way. Returns the log.
async fn a_query_is_a_tree(sink: Sink, rest: &str, more: &[(&str, &str)]) -> String {
    let setup = Setup {
        rest: format!("telemetry: {{ otlp_headers: {{ env: OTLP_HEADERS }}, {rest} }}"),
        ..Setup::with(vec![MindBridgeJob::new(JOB, &[(0, "COMPLETE")])], vec![])
    };
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let mut env = secrets();
    env.extend(more);
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let gateway = process.address("public").await;
    assert_eq!(execute(gateway, TRACE).await["job"]["state"], "SUCCEEDED");
    assert_eq!(execute(gateway, OTHER_TRACE).await["job"]["state"], "SUCCEEDED");

    let requests = |spans: &[Got]| spans.iter().filter(|span| span.name == "POST /graphql").count() == 2;
    let spans = sink
        .spans("two requests and a poll", |all| requests(all) && all.iter().any(|it| it.name == "job.ingest"))
        .await;
    let of = |trace: &'static str| move |span: &Got| span.trace == trace;
    let request = one(&spans, "POST /graphql", of(TRACE));
    assert_eq!(request.parent, PARENT, "the client's own span");
    assert_eq!(
        (request.attribute("http.route"), request.attribute("http.response.status_code")),
        ("/graphql", "200")
    );
    assert_eq!((request.attribute("url.scheme"), request.attribute("url.path")), ("http", "/graphql"));
    let operation = one(&spans, "query", of(TRACE));
    assert_eq!((&operation.parent, operation.attribute("graphql.operation.name")), (&request.id, "One"));
    assert_eq!(operation.attribute("graphql.document.hash").len(), 64);
    let lookup = one(&spans, "job.lookup", of(TRACE));
    assert_eq!((&lookup.parent, lookup.attribute("cache.outcome")), (&operation.id, "miss"));
    assert_eq!((lookup.attribute("singleflight.role"), lookup.attribute("job.count")), ("leader", "1"));
    let call = one(&spans, "GET /v1/async-results/{id}", of(TRACE));
    assert_eq!((&call.parent, call.attribute("http.response.status_code")), (&lookup.id, "200"));
    assert_eq!((call.attribute("server.address"), call.attribute("jobgate.source")), ("127.0.0.1", "mind"));
    let hit = one(&spans, "job.lookup", of(OTHER_TRACE));
    assert_eq!((hit.attribute("cache.outcome"), hit.attribute("singleflight.role")), ("hit", ""));
    assert_eq!(
        spans.iter().filter(|span| span.name.starts_with("GET")).count(),
        1,
        "the second made no call"
    );

    let observation = one(&spans, "job.observe", |_| true);
    assert_eq!(
        (observation.attribute("job.state"), observation.attribute("job.observe.trigger")),
        ("SUCCEEDED", "client")
    );
    assert!(
        observation.trace != TRACE && observation.parent.is_empty(),
        "it starts the trace of the job: {observation:?}"
    );
    assert_eq!(observation.links, [(TRACE.to_owned(), call.id.clone())], "the call that fetched it");
    let ingest = one(&spans, "job.ingest", |_| true);
    assert_eq!((&ingest.parent, ingest.attribute("ingest.outcome")), (&observation.id, "new"));
    one(&spans, "store", |span| span.parent == ingest.id && span.attribute("store.operation") == "put");
    one(&spans, "store", |span| span.parent == lookup.id && span.attribute("store.operation") == "get");
    assert_harmless(&sink.bytes(), &spans);

    process.signal("TERM").await;
    let (status, output) = process.ended().await;
    assert!(status.success() && !output.contains("spans dropped"), "{output}");
    output
}

#[tokio::test]
async fn a_query_is_a_tree_of_spans_over_grpc() {
    let sink = Sink::grpc().await;
    // a quiet log removes no span
    let rest = format!("otlp_endpoint: '{}', log_level: 'warn,jobgate::server=info'", sink.url());
    a_query_is_a_tree(sink, &rest, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).await;
}

#[tokio::test]
async fn a_query_is_a_tree_of_spans_over_http_with_otel_variables() {
    let sink = Sink::http().await;
    let url = sink.url();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SERVICE_NAME", "gate")];
    let output = a_query_is_a_tree(sink, "access_log: all, log_format: json", &env).await;
    let served = |trace: &str| {
        let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "request served" && line["trace_id"] == trace).count()
    };
    assert_eq!((served(TRACE), served(OTHER_TRACE)), (1, 1), "{output}");
}

/// Starts a gateway with these variables, executes a query, and stops it: its spans, and its output.
async fn exported(sink: &Sink, protocol: &str, more: &[(&str, &str)]) -> (Vec<Got>, String) {
    let setup = Setup::with(vec![MindBridgeJob::new(JOB, &[(0, "COMPLETE")])], vec![]);
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let (mut env, url) = (secrets(), sink.url());
    env.extend([("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
    env.extend(more);
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let gateway = process.address("public").await;
    assert_eq!(execute(gateway, TRACE).await["job"]["state"], "SUCCEEDED");
    let spans = sink.spans("the query", |all| all.iter().any(|span| span.name == "query")).await;
    process.signal("TERM").await;
    let (status, output) = process.ended().await;
    assert!(status.success(), "{output}");
    (spans, output)
}

#[tokio::test]
async fn unsupported_otel_variables_are_ignored_with_a_warning() {
    for (sink, protocol) in [(Sink::http().await, "http/protobuf"), (Sink::grpc().await, "grpc")] {
        let unsupported = [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/cAnArY.pem"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ];
        let (_, output) = exported(&sink, protocol, &unsupported).await;
        assert!(!output.contains("cAnArY"), "{output}");
        for (name, _) in unsupported {
            let warned = |line: &str| line.contains("environment variable ignored") && line.contains(name);
            assert_eq!(output.lines().filter(|line| warned(line)).count(), 1, "{name}: {output}");
        }
    }
}

#[tokio::test]
async fn exports_are_compressed_if_configured() {
    for (sink, protocol, coding) in [
        (Sink::http().await, "http/protobuf", "content-encoding: gzip"),
        (Sink::grpc().await, "grpc", "grpc-encoding: gzip"),
    ] {
        let options =
            [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_RESOURCE_ATTRIBUTES", "team=a%2Cb")];
        let (spans, _) = exported(&sink, protocol, &options).await;
        assert_eq!(spans[0].team, "a,b", "what is received can be decompressed");
        let (_, headers) = sink.bytes();
        assert!(headers.iter().any(|header| header == coding), "{headers:?}");
    }
}

/// A subscription on a WebSocket whose `connection_init` contains a `traceparent`: the kinds of its updates until it
/// completes. `begun` counts those that have received their first.
async fn watch(gateway: SocketAddr, trace: &str, begun: &AtomicUsize) -> Vec<String> {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let mut request = "ws://localhost/graphql".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let (mut socket, _) = client_async(request, socket).await.unwrap();
    let query =
        "subscription Watch($refs: [JobRef!]!) { jobUpdates(refs: $refs, maxStaleness: \"100ms\") { kind } }";
    let payload = json!({ "query": query, "variables": { "refs": [external("mind", JOB)] } });
    for message in [
        json!({ "type": "connection_init", "payload": { "traceparent": traceparent(trace) } }),
        json!({ "type": "subscribe", "id": "1", "payload": payload }),
    ] {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let mut kinds = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Ok(text) = message.to_text() else { continue };
        let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
        match message["type"].as_str() {
            Some("next") => {
                begun.fetch_add(usize::from(kinds.is_empty()), Ordering::SeqCst);
                kinds.push(message["payload"]["data"]["jobUpdates"]["kind"].as_str().unwrap().to_owned());
            }
            Some("complete") => break,
            _ => {}
        }
    }
    kinds
}

/// The spans of a job that two clients watched on two replicas.
#[derive(Debug)]
struct WatchedJob {
    spans: Vec<Got>,
    /// The trace of the job.
    job: String,
    /// A time in which both clients watched.
    watched: (Timestamp, Timestamp),
    exported: (Vec<u8>, Vec<String>),
}

impl WatchedJob {
    fn observations(&self) -> Vec<&Got> {
        self.spans.iter().filter(|span| span.name == "job.observe").collect()
    }

    /// The subscription of each client, with the deliveries of its replica.
    fn subscriptions(&self) -> [(&Got, &str, Vec<&Got>); 2] {
        [("a", TRACE), ("b", OTHER_TRACE)].map(|(instance, trace)| {
            let subscription = one(&self.spans, "subscription", |span| span.trace == trace);
            let of_replica = |span: &&Got| span.name == "job.deliver" && span.instance == instance;
            (subscription, instance, self.spans.iter().filter(of_replica).collect())
        })
    }
}

/// The outcome of one run, which takes long, for several tests.
async fn watched_job() -> &'static WatchedJob {
    static RUN: OnceCell<WatchedJob> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(watch_on_two_replicas())).await
}

async fn watch_on_two_replicas() -> WatchedJob {
    let (redis, sink) = (Redis::start().await, Sink::http().await);
    let rest = format!(
        "store: {{ kind: redis, redis: {{ url: {{ env: REDIS_URL }}, lease: 30s, timeout: 5s }} }}\n\
         poll: {{ min_interval: 1s, max_interval: 1s }}\n\
         telemetry: {{ otlp_endpoint: '{}', otlp_headers: {{ env: OTLP_HEADERS }} }}",
        sink.url()
    );
    let setup = Setup { rest, ..Setup::with(vec![MindBridgeJob::new(JOB, &[(0, "IN_PROGRESS")])], vec![]) };
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let (url, mut replicas) = (redis.url(), Vec::new());
    for instance in ["service.instance.id=a", "service.instance.id=b"] {
        let mut env = secrets();
        env.extend([("REDIS_URL", url.as_str()), ("OTEL_RESOURCE_ATTRIBUTES", instance)]);
        let mut process = Process::start(&["serve", "--config", config.path()], &env);
        let gateway = process.address("public").await;
        replicas.push((process, gateway));
    }
    let (begun, upstreams) = (AtomicUsize::new(0), simulator.handle());
    // the job completes when both have received that it runs, and it was polled several times since: between these
    // moments both watch
    let end = async {
        settles("both have received it", LIMIT, || begun.load(Ordering::SeqCst) == 2).await;
        let from = SystemClock.now();
        let observations = upstreams.wait_for_requests(upstreams.record().len() + 3);
        tokio::time::timeout(LIMIT, observations).await.unwrap();
        let to = SystemClock.now();
        upstreams.set_state(JOB, MindBridgeStep::new("COMPLETE")).unwrap();
        (from, to)
    };
    let (a, b, watched) =
        tokio::join!(watch(replicas[0].1, TRACE, &begun), watch(replicas[1].1, OTHER_TRACE, &begun), end);
    let sampled = a.len() + b.len();
    assert!(a.len() > 1 && b.len() > 1, "{a:?} {b:?}");

    let count = |spans: &[Got], name: &str| spans.iter().filter(|span| span.name == name).count();
    let spans = sink
        .spans("every delivery, and the poll that observed the terminal state", |all| {
            let end = |span: &Got| span.name == "job.observe" && span.attribute("job.state") == "SUCCEEDED";
            count(all, "job.deliver") == sampled && all.iter().any(end)
        })
        .await;
    let job = spans.iter().find(|span| span.name == "job.observe").unwrap().trace.clone();
    WatchedJob { spans, job, watched, exported: sink.bytes() }
}

#[tokio::test]
async fn a_job_is_one_trace_across_replicas() {
    let watched = watched_job().await;
    let observations = watched.observations();
    assert!(
        observations.len() > 2 && observations.iter().all(|observation| observation.trace == watched.job),
        "{observations:#?}"
    );
    for (_, _, deliveries) in watched.subscriptions() {
        assert!(deliveries.iter().all(|delivery| delivery.trace == watched.job), "{deliveries:#?}");
    }
}

#[tokio::test]
async fn an_observation_is_linked_to_its_upstream_call() {
    let watched = watched_job().await;
    let calls = |span: &Got| span.name.starts_with("GET /v1/async-results") || span.name.contains("/query");
    for observation in watched.observations() {
        let (trace, id) = &observation.links[0];
        let call = watched.spans.iter().find(|span| span.id == *id).unwrap();
        assert!(calls(call) && call.trace == *trace && call.trace != watched.job, "{observation:?} {call:?}");
        if observation.attribute("job.observe.trigger") == "poll" {
            one(&watched.spans, "job.poll", |poll| {
                poll.id == call.parent && poll.trace == *trace && poll.parent.is_empty()
            });
        }
    }
}

#[tokio::test]
async fn a_delivery_is_linked_to_its_subscription_and_observation() {
    let watched = watched_job().await;
    let observations = watched.observations();
    for (subscription, _, deliveries) in watched.subscriptions() {
        assert!(
            deliveries.iter().any(|span| span.attribute("job.update.kind") == "ended"),
            "{deliveries:#?}"
        );
        for delivery in deliveries {
            let linked = |to: &Got| delivery.links.contains(&(to.trace.clone(), to.id.clone()));
            assert!(linked(subscription), "{delivery:?}");
            assert!(
                observations.iter().any(|observation| linked(observation)),
                "the poll that observed it: {delivery:?} {observations:#?}"
            );
        }
    }
}

#[tokio::test]
async fn a_subscription_continues_the_trace_of_its_client() {
    for (subscription, instance, _) in watched_job().await.subscriptions() {
        assert_eq!((subscription.parent.as_str(), subscription.instance.as_str()), (PARENT, instance));
    }
}

#[tokio::test]
async fn no_span_lasts_as_long_as_a_subscription() {
    let WatchedJob { spans, watched: (from, to), .. } = watched_job().await;
    let lasts = spans.iter().find(|span| span.began <= *from && span.ended >= *to);
    assert!(lasts.is_none(), "{lasts:?}");
}

#[tokio::test]
async fn spans_of_a_watched_job_contain_no_input() {
    let watched = watched_job().await;
    assert_harmless(&watched.exported, &watched.spans);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_exported_over_grpc_and_http() {
    use jobgate::outbound::otlp::{self, OtlpTarget};
    for (sink, grpc) in [(Sink::http().await, false), (Sink::grpc().await, true)] {
        let path = if grpc { "" } else { "/v1/metrics" };
        let target = OtlpTarget { endpoint: format!("{}{path}", sink.url()), grpc, headers: None };
        let provider =
            otlp::provider(otlp::metrics(&target).unwrap(), opentelemetry_sdk::Resource::builder().build());
        provider.meter("test").u64_counter("test.counted").build().add(1, &[]);
        // as the library's own thread does, outside the runtime
        let ended = tokio::task::spawn_blocking(move || provider.shutdown());
        tokio::time::timeout(LIMIT, ended).await.unwrap().unwrap().unwrap();
        assert!(sink.metrics().contains(&"test.counted".to_owned()), "{:?}", sink.metrics());
    }
}

#[test]
fn span_attribute_names_are_unique() {
    let mut names: Vec<&str> =
        SPANS.iter().flat_map(|sort| sort.keys).map(|key: &SpanAttribute| key.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 27);
}
