//! `/metrics` of a real gateway: after known traffic it contains exactly that traffic, promtool reports no problem, and
//! no value from a client becomes a label.
//!
//! Metrics are counted per process, so a test of exact values has a process of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{
    Addresses, FaultKind, MindBridgeJob, MindBridgeStep, SimFault, SimUpstream, Simulator,
};
use serde_json::json;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, Rig, Setup, external};
use crate::support::streams::{LIMIT, Sse, Watcher, WebSocket};
use crate::support::wire;

/// A bearer token in the form of a JWT that expires on 1 January 2100 and has no signature: `{"exp":4102444800}`.
const ENDS: &str = "e30.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln";

/// A gateway whose token has an expiry, with one watched job.
async fn with_watched_job() -> (Rig, Watcher) {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    ENDS.clone_into(&mut setup.secrets[0]);
    setup.scenario.mindbridge.token = ENDS.into();
    let rig = setup.start().await;
    let mut watcher = Watcher::open(rig.public, WebSocket, &["a"]).await;
    assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
    (rig, watcher)
}

async fn openmetrics(rig: &Rig) -> wire::Reply {
    let modern = [("accept", "application/openmetrics-text; version=1.0.0")];
    wire::exchange(rig.admin, &wire::request("GET", "/metrics", &modern, "")).await
}

#[tokio::test]
async fn gauges_report_source_stream_and_store_state() {
    let (rig, _watcher) = with_watched_job().await;
    let (reply, modern) = (wire::get(rig.admin, "/metrics").await, openmetrics(&rig).await);
    for line in [
        "jobgate_source_credential_expiry_timestamp_seconds{source=\"mind\"} 4102444800.0",
        "jobgate_source_credential_state{source=\"mind\",state=\"active\"} 1.0",
        "jobgate_source_health{source=\"mind\",health=\"healthy\"} 1.0",
        "jobgate_source_health{source=\"metrics\",health=\"unknown\"} 1.0",
        "jobgate_source_breaker_open{source=\"mind\"} 0.0",
        "jobgate_streams_open{transport=\"websocket\"} 1.0",
        "jobgate_jobs_followed{state=\"running\"} 1.0",
        "jobgate_jobs_followed{state=\"unobserved\"} 0.0",
        "jobgate_store_degraded 0.0",
    ] {
        for body in [&reply.body, &modern.body] {
            assert!(body.lines().any(|found| found == line), "{line} is missing:\n{body}");
        }
    }
    assert!(
        !reply.body.contains("credential_expiry_timestamp_seconds{source=\"metrics\"}"),
        "its expiry is not known"
    );
}

#[tokio::test]
async fn the_accept_header_selects_the_format_of_metrics() {
    let rig = Setup::default().start().await;
    let modern = openmetrics(&rig).await;
    assert!(modern.head.contains("application/openmetrics-text; version=1.0.0"), "{}", modern.head);
    assert!(modern.body.ends_with("# EOF\n"), "{}", modern.body);
    let reply = wire::get(rig.admin, "/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("text/plain; version=0.0.4"), "{}", reply.head);
}

#[tokio::test]
async fn metrics_are_not_on_the_public_listener() {
    let rig = Setup::default().start().await;
    assert_eq!(wire::get(rig.public, "/metrics").await.status, 404);
}

/// A gateway process whose only client is `canary-client`.
struct Own {
    simulator: Simulator,
    _process: Process,
    _config: Scratch,
    public: SocketAddr,
    admin: SocketAddr,
    key: String,
}

impl Own {
    async fn start(jobs: Vec<MindBridgeJob>, more: &str) -> Self {
        let key = "jg_canary".to_owned();
        let hash = ClientConfig::hex(&keys::hash(&key));
        let mut setup = Setup::with(jobs, vec![]);
        setup.rest = format!(
            "clients: [{{ name: canary-client, key_sha256: \"{hash}\", sources: [mind, metrics] }}]\n{more}"
        );
        let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
        let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
        let [token, upstream_key] = &setup.secrets;
        let env = [("MIND_TOKEN", token.as_str()), ("METRICS_KEY", upstream_key)];
        let mut process = Process::start(&["serve", "--config", config.path()], &env);
        let (public, admin) = (process.address("public").await, process.address("admin").await);
        Self { simulator, _process: process, _config: config, public, admin, key }
    }

    async fn scrape(&self) -> String {
        let reply = wire::get(self.admin, "/metrics").await;
        assert_eq!(reply.status, 200);
        reply.body
    }

    /// The values by name and labels, as soon as they are as expected.
    async fn settled(
        &self,
        holds: impl Fn(&BTreeMap<String, f64>) -> bool + Sync,
    ) -> (String, BTreeMap<String, f64>) {
        let settled = async {
            loop {
                let text = self.scrape().await;
                let values = values(&text);
                if holds(&values) {
                    return (text, values);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(LIMIT, settled).await;
        assert!(settled.is_ok(), "the metrics never had the expected values:\n{}", self.scrape().await);
        settled.unwrap()
    }

    async fn execute(&self, body: &serde_json::Value) -> wire::Reply {
        wire::post(self.public, Some(&self.key), body).await
    }

    async fn lookup(&self, id: &str) -> wire::Reply {
        let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
        self.execute(&json!({ "query": query, "variables": { "ref": external("mind", id) } })).await
    }

    async fn get(&self, path: &str) -> wire::Reply {
        let bearer = format!("Bearer {}", self.key);
        wire::exchange(self.public, &wire::request("GET", path, &[("authorization", &bearer)], "")).await
    }
}

fn values(text: &str) -> BTreeMap<String, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Checks the text with promtool.
fn promtool_likes(text: &str) {
    let mut command = Command::new("promtool");
    let command = command.args(["check", "metrics"]).stdin(Stdio::piped());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    assert!(child.is_ok(), "promtool cannot be started: install the package prometheus ({child:?})");
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let found = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && found.is_empty(), "{}", String::from_utf8_lossy(&found));
}

/// A gateway after known traffic with a canary in its input.
async fn after_traffic() -> Own {
    let jobs = vec![
        MindBridgeJob::new("canary-done", &[(0, "COMPLETE")]),
        MindBridgeJob::new("canary-runs", &[(0, "IN_PROGRESS")]),
    ];
    let own = Own::start(jobs, "").await;
    for _ in 0..2 {
        assert_eq!(own.lookup("canary-done").await.data()["job"]["state"], "SUCCEEDED");
    }
    assert_eq!(own.lookup("canary-none").await.data()["job"]["code"], "NOT_FOUND");
    assert_eq!(own.execute(&json!({ "query": "{" })).await.status, 400);
    assert_eq!(own.get("/v1/jobs/mind/canary-done").await.status, 200);
    assert_eq!(own.get("/").await.status, 200);
    assert_eq!(own.get("/canary-path").await.status, 404);
    let watcher = Watcher::open_as(own.public, Sse, &["canary-done"], Some(&own.key)).await;
    assert_eq!(watcher.rest().await, ["SNAPSHOT SUCCEEDED", "complete"]);
    let mut watcher = Watcher::open_as(own.public, WebSocket, &["canary-runs"], Some(&own.key)).await;
    assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
    own.simulator.handle().set_state("canary-runs", MindBridgeStep::new("COMPLETE")).unwrap();
    assert_eq!(watcher.short().await, "ENDED SUCCEEDED");
    own
}

#[tokio::test]
async fn counters_match_known_traffic_exactly() {
    let own = after_traffic().await;
    let left = "jobgate_streams_ended_total{transport=\"websocket\",reason=\"client_left\"}";
    let calls = own.simulator.handle().record_of(SimUpstream::MindBridge).len();
    let expected = [
        ("jobgate_http_requests_total{handler=\"graphql\",method=\"POST\",status=\"2xx\"}", 4),
        ("jobgate_http_requests_total{handler=\"graphql\",method=\"POST\",status=\"4xx\"}", 1),
        ("jobgate_http_requests_total{handler=\"graphql\",method=\"GET\",status=\"1xx\"}", 1),
        ("jobgate_http_requests_total{handler=\"rest\",method=\"GET\",status=\"2xx\"}", 1),
        ("jobgate_http_requests_total{handler=\"page\",method=\"GET\",status=\"2xx\"}", 1),
        ("jobgate_http_requests_total{handler=\"none\",method=\"GET\",status=\"4xx\"}", 1),
        ("jobgate_http_request_duration_seconds_count{handler=\"graphql\"}", 6),
        ("jobgate_graphql_operations_total{type=\"query\",transport=\"http\"}", 3),
        ("jobgate_graphql_operations_total{type=\"subscription\",transport=\"sse\"}", 1),
        ("jobgate_graphql_operations_total{type=\"subscription\",transport=\"websocket\"}", 1),
        ("jobgate_graphql_operation_duration_seconds_count{type=\"query\"}", 3),
        ("jobgate_errors_total{code=\"GRAPHQL_PARSE_FAILED\"}", 1),
        ("jobgate_errors_total{code=\"NO_SUCH_PATH\"}", 1),
        ("jobgate_job_problems_total{code=\"NOT_FOUND\"}", 1),
        ("jobgate_upstream_calls_total{source=\"mind\",outcome=\"answered\"}", calls),
        ("jobgate_upstream_call_duration_seconds_count{source=\"mind\"}", calls),
        ("jobgate_upstream_budget_wait_seconds_count{source=\"mind\"}", calls),
        ("jobgate_lookups_total{outcome=\"miss\"}", 3),
        ("jobgate_lookups_total{outcome=\"hit\"}", 3),
        ("jobgate_lookups_total{outcome=\"negative_hit\"}", 0),
        ("jobgate_singleflight_total{role=\"joiner\"}", 0),
        ("jobgate_updates_delivered_total{subscription=\"job_updates\"}", 3),
        ("jobgate_updates_coalesced_total{subscription=\"job_updates\"}", 0),
        ("jobgate_change_to_delivery_seconds_count{source=\"mind\",basis=\"upstream\"}", 1),
        ("jobgate_change_detection_window_seconds_count{source=\"mind\"}", 1),
        ("jobgate_detection_to_delivery_seconds_count{source=\"mind\"}", 1),
        ("jobgate_streams_opened_total{transport=\"sse\"}", 1),
        ("jobgate_streams_opened_total{transport=\"websocket\"}", 1),
        ("jobgate_streams_ended_total{transport=\"sse\",reason=\"completed\"}", 1),
        (left, 1),
        ("jobgate_streams_open{transport=\"websocket\"}", 0),
        ("jobgate_store_failures_total", 0),
        ("jobgate_config_reloads_total{outcome=\"rejected\"}", 0),
        ("jobgate_config_stale", 0),
    ];
    // compared as text: an integer has one form, and floats are never compared
    let has_value = |values: &BTreeMap<String, f64>, name: &str, value: usize| {
        values.get(name).is_some_and(|found| found.to_string() == value.to_string())
    };
    // the effects of an answer may be counted a moment after it was read
    let (text, values) =
        own.settled(|values| expected.iter().all(|&(name, value)| has_value(values, name, value))).await;
    assert!(values["jobgate_singleflight_total{role=\"leader\"}"] >= 3.0, "{text}");
    assert!(values["jobgate_poll_lag_seconds_count{source=\"mind\"}"] >= 1.0, "{text}");
    assert!(
        values["jobgate_change_to_delivery_seconds_sum{source=\"mind\",basis=\"upstream\"}"] > 0.0,
        "{text}"
    );
    assert!(!values.keys().any(|name| name.starts_with("jobgate_upstream_retries_total")), "{text}");
}

#[tokio::test]
async fn metrics_report_the_resources_of_the_process() {
    let own = Own::start(vec![], "").await;
    let text = own.scrape().await;
    let values = values(&text);
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(values[name] > 0.0, "{name}:\n{text}");
    }
}

#[tokio::test]
async fn promtool_accepts_the_metrics() {
    promtool_likes(&after_traffic().await.scrape().await);
}

#[tokio::test]
async fn metrics_contain_no_input_and_no_secret() {
    let own = after_traffic().await;
    let text = own.scrape().await;
    assert!(text.contains("jobgate_streams_opened_total"), "{text}");
    for secret in ["canary", &own.key, crate::support::server::TOKEN] {
        assert!(!text.contains(secret), "{secret} is exported:\n{text}");
    }
}

/// A page, a redirect or a rejection with any status is no usable answer, so alerts can distinguish them.
#[tokio::test]
async fn an_unusable_upstream_answer_has_its_own_outcome() {
    let own = Own::start(vec![], "").await;
    let faults = [
        (FaultKind::html(200), "bad_answer"),
        (FaultKind::html(403), "bad_answer"),
        (FaultKind::html(410), "bad_answer"),
        (FaultKind::Redirect { to: "/login".to_owned() }, "bad_answer"),
        (FaultKind::problem(400, "BAD_REQUEST"), "bad_answer"),
        (FaultKind::problem(403, "FORBIDDEN"), "forbidden"),
        (FaultKind::OversizedBody { bytes: 2 << 20 }, "too_large"),
    ];
    let mut expected = BTreeMap::new();
    for (number, (fault, outcome)) in faults.into_iter().enumerate() {
        let id = format!("job{number}");
        own.simulator.handle().push_fault(SimFault::always(SimUpstream::MindBridge, fault).for_ids(&[&id]));
        own.lookup(&id).await;
        let name = format!("jobgate_upstream_calls_total{{source=\"mind\",outcome=\"{outcome}\"}}");
        *expected.entry(name).or_insert(0.0) += 1.0;
    }
    let mut counted = values(&own.scrape().await);
    counted.retain(|name, count| {
        name.starts_with("jobgate_upstream_calls_total{source=\"mind\"") && *count > 0.0
    });
    assert_eq!(counted, expected);
}

#[tokio::test]
async fn client_input_never_becomes_a_metric_label() {
    /// Enough of each kind for every series to exist.
    const FIRST: usize = 50;
    const THEN: usize = 250;
    let jobs = vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])];
    let more = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, trusted_proxies: [127.0.0.1] }\n\
                limits: { requests_per_second: 10000, burst: 10000 }";
    let own = Own::start(jobs, more).await;
    send_hostile(&own, FIRST).await;
    let before = names(&own.scrape().await);
    send_hostile(&own, THEN).await;
    let text = own.scrape().await;
    // a value of a closed list may occur for the first time, such as a call that timed out on a slow machine
    let now = names(&text);
    let new: Vec<&String> = now.iter().filter(|name| !before.contains(name)).collect();
    assert!(new.len() < THEN / 25, "a client's value became a label: {new:#?}");
    assert!(before.len() < 700, "{}:\n{text}", before.len());
    for line in text.lines() {
        assert!(!line.to_lowercase().contains("canary"), "{line}");
    }
    promtool_likes(&text);
}

fn names(text: &str) -> Vec<String> {
    values(text).into_keys().filter(|name| !name.contains("_bucket{")).collect()
}

/// `count` requests of each kind: paths, methods, ids, operation names, and error codes that a client tries to inject.
async fn send_hostile(own: &Own, count: usize) {
    let word = || format!("canary{:x}", fastrand::u64(..));
    let all: Vec<usize> = (0..count).collect();
    for some in all.chunks(25) {
        let bearer = format!("Bearer {}", own.key);
        let sent = some.iter().map(|number| {
            let (one, other) = (word(), word());
            let bearer = bearer.clone();
            async move {
                let path =
                    if number % 2 == 0 { format!("/{one}") } else { format!("/v1/jobs/{one}/{other}") };
                let method = if number % 3 == 0 { "GET".to_owned() } else { one.to_uppercase() };
                let headers = [("authorization", bearer.as_str()), ("origin", &format!("https://{other}"))];
                wire::exchange(own.public, &wire::request(&method, &path, &headers, "")).await;
                let bad = format!("Bearer {other}");
                let from = wire::fresh_address();
                let headers = [("authorization", bad.as_str()), ("x-forwarded-for", &from)];
                wire::exchange(own.public, &wire::request("GET", "/v1/jobs/mind/a", &headers, "")).await;
                own.lookup(&one).await;
                let query = format!("query {one} {{ __typename @{other} }}");
                own.execute(&json!({ "query": query, "operationName": other })).await;
                let query = format!("query {one} {{ __typename }}");
                own.execute(&json!({ "query": query, "operationName": one })).await;
            }
        });
        join_all(sent).await;
    }
}
