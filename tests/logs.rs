//! The log of the real process: what a line about a request contains and what never, a level that changes at run time,
//! and a reader that stalls; and the status page.

use std::process::Stdio;
use std::time::Duration;

use jobgate_simulator::{Addresses, FaultKind, MadeUpBody, MindBridgeJob, SimFault, SimUpstream, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Rig, Setup, TOKEN, external};
use crate::support::streams::{LIMIT, Sse, Watcher};
use crate::support::wire::{self, Reply};

/// A value that no line may contain.
const CANARY: &str = "cAnaRy";

async fn written(rest: &str) -> (Simulator, Scratch) {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    setup.rest = rest.to_owned();
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    (simulator, config)
}

fn lines(output: &str, message: &str) -> Vec<Value> {
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Requests of each kind with a canary in all of their input, in the JSON access log of a process.
struct AccessLog {
    gateway: Process,
    /// The answer to the query.
    answer: Reply,
    watcher: Watcher,
    _config: Scratch,
    _simulator: Simulator,
}

impl AccessLog {
    async fn start() -> Self {
        let (simulator, config) = written("telemetry: { log_format: json, access_log: all }").await;
        let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
        let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
        let public = gateway.address("public").await;

        let watcher = Watcher::open(public, Sse, &["a"]).await;
        let hostile = format!("/v1/jobs/mind/{CANARY}%0A%1b%5B2J?{CANARY}=1");
        let named = [("x-request-id", "by-the-client"), ("user-agent", CANARY)];
        wire::exchange(public, &wire::request("GET", &hostile, &named, "")).await;
        wire::exchange(public, &wire::request(CANARY, &format!("/{CANARY}"), &[], "")).await;
        let query = format!("query {CANARY}($ref: JobRef!) {{ job(ref: $ref) {{ __typename }} }}");
        let query = json!({ "query": query, "variables": { "ref": external("mind", CANARY) } });
        let answer = wire::post(public, None, &query).await;
        Self { gateway, answer, watcher, _config: config, _simulator: simulator }
    }

    /// The line about an operation of this type.
    async fn line(&mut self, operation: &str) -> Value {
        let field = format!("\"operation\":\"{operation}\"");
        let line = self.gateway.find(&field, |line| line.contains(&field).then(|| line.to_owned())).await;
        serde_json::from_str(&line).unwrap()
    }

    /// Closes the stream and stops the process: its output.
    async fn end(mut self) -> String {
        self.line("query").await;
        drop(self.watcher);
        let field = "\"operation\":\"subscription\"";
        self.gateway.find("the end of the stream", |line| line.contains(field).then_some(())).await;
        self.gateway.signal("TERM").await;
        self.gateway.ended().await.1
    }
}

#[tokio::test]
async fn the_access_log_has_one_line_per_request() {
    let output = AccessLog::start().await.end().await;
    let mut routes: Vec<String> = lines(&output, "request served")
        .iter()
        .map(|line| format!("{} {} {}", line["method"], line["route"], line["status"]).replace('"', ""))
        .collect();
    routes.sort();
    let expected = [
        "GET /v1/jobs/{source}/{externalId} 404",
        "POST /graphql 200",
        "POST /graphql 200",
        "other none 404",
    ];
    assert_eq!(routes.len(), expected.len(), "{routes:?}");
    assert!(routes[0].starts_with("GET /v1/jobs/{source}/{externalId} 4"), "{routes:?}");
    assert_eq!(routes[1..], expected[1..]);
}

#[tokio::test]
async fn an_access_log_line_describes_its_request() {
    let mut log = AccessLog::start().await;
    let ended = log.line("query").await;
    assert_eq!(
        (&ended["method"], &ended["route"], &ended["status"]),
        (&"POST".into(), &"/graphql".into(), &200.into())
    );
    assert_eq!((&ended["bytes"], &ended["whole"]), (&log.answer.body.len().into(), &true.into()));
    assert!(ended["duration_ms"].is_u64() && ended["client"].is_string(), "{ended}");
    assert!(log.answer.head.contains(ended["request_id"].as_str().unwrap()), "{}", log.answer.head);
    let output = log.end().await;
    assert!(output.contains("\"request_id\":\"by-the-client\""), "{output}");
}

#[tokio::test]
async fn the_access_log_line_of_a_stream_is_written_at_its_end() {
    let mut log = AccessLog::start().await;
    log.line("query").await;
    let served = lines(&log.gateway.output(), "request served");
    let about = served.iter().filter(|line| line["operation"] == "subscription");
    assert_eq!(about.count(), 0, "it has not ended yet");
    let output = log.end().await;
    let served = lines(&output, "request served");
    let stream = served.iter().find(|line| line["operation"] == "subscription").unwrap();
    assert_eq!(stream["whole"], false, "{stream}");
}

#[tokio::test]
async fn the_access_log_contains_no_input() {
    let output = AccessLog::start().await.end().await;
    assert!(!output.contains(CANARY), "{output}");
}

/// Each rejected answer has its own line, for both upstreams.
#[tokio::test]
async fn a_refused_upstream_answer_is_logged_with_its_reason() {
    let (simulator, config) = written("telemetry: { log_format: json }").await;
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let public = gateway.address("public").await;
    let sources = [(SimUpstream::MindBridge, "mind", TOKEN), (SimUpstream::Supermetrics, "metrics", KEY)];
    let mut expected = Vec::new();
    for (upstream, source, secret) in sources {
        let detail = Some(format!("no id is {secret}"));
        let to = format!("https://{CANARY}:{CANARY}@sso.example/login?state={CANARY}#{CANARY}");
        let faults = [
            (FaultKind::Redirect { to }, "redirect", "location \"https://sso.example/login\""),
            (FaultKind::OversizedBody { bytes: 2 << 20 }, "too_large", "larger than"),
            (
                FaultKind::answer(400, MadeUpBody::Problem { code: None, detail }),
                "bad_answer",
                "no id is [redacted]\"",
            ),
        ];
        for (fault, kind, reason) in faults {
            simulator.handle().push_fault(SimFault::always(upstream, fault).for_ids(&[kind]));
            let query = "query($ref: JobRef!) { job(ref: $ref) { ... on JobProblem { code } } }";
            let query = json!({ "query": query, "variables": { "ref": external(source, kind) } });
            assert_eq!(wire::post(public, None, &query).await.data()["job"]["code"], "BAD_ANSWER", "{kind}");
            expected.push((source, kind, reason));
        }
    }
    gateway.signal("TERM").await;
    let (_, output) = gateway.ended().await;
    let logged = lines(&output, "upstream call failed");
    assert_eq!(logged.len(), expected.len(), "{output}");
    for (line, (source, kind, reason)) in logged.iter().zip(expected) {
        let updates = (&line["level"], &line["source"], &line["kind"]);
        assert_eq!(updates, (&"WARN".into(), &source.into(), &kind.into()), "{line}");
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
    }
    for secret in [TOKEN, KEY, CANARY] {
        assert!(!output.contains(secret), "{output}");
    }
}

async fn set_level(admin: std::net::SocketAddr, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    wire::exchange(admin, &wire::request("PUT", target, headers, body)).await
}

/// A gateway with the configured log level, and its addresses.
async fn with_log_level() -> (Process, [std::net::SocketAddr; 2], (Simulator, Scratch)) {
    let (simulator, config) = written("").await;
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let addresses = [gateway.address("public").await, gateway.address("admin").await];
    (gateway, addresses, (simulator, config))
}

const PLAIN: (&str, &str) = ("content-type", "text/plain");

#[tokio::test]
async fn only_a_valid_admin_request_changes_the_log_level() {
    let (_gateway, [public, admin], _files) = with_log_level().await;
    let shown = async || wire::get(admin, "/log-level").await.json();
    let configured = json!({ "active": "info", "configured": "info", "restoredInSeconds": null });
    assert_eq!(shown().await, configured);
    let too_long = "info,".repeat(2_000);
    let refused = [
        ("/log-level", vec![PLAIN, ("origin", "http://localhost:9090")], "debug", 403),
        ("/log-level", vec![PLAIN, ("sec-fetch-site", "same-origin")], "debug", 403),
        ("/log-level", vec![("content-type", "application/x-www-form-urlencoded")], "debug", 415),
        ("/log-level", vec![], "debug", 415),
        ("/log-level", vec![PLAIN], "loud", 400),
        ("/log-level", vec![PLAIN], "info,=", 400),
        ("/log-level", vec![PLAIN], "", 400),
        ("/log-level", vec![PLAIN], &too_long, 400),
        ("/log-level?for=10", vec![PLAIN], "debug", 400),
        ("/log-level?for=0s", vec![PLAIN], "debug", 400),
        ("/log-level?for=25h", vec![PLAIN], "debug", 400),
        ("/log-level?until=10m", vec![PLAIN], "debug", 400),
    ];
    for (target, headers, body, status) in refused {
        let reply = set_level(admin, target, &headers, body).await;
        assert_eq!((reply.status, target, body), (status, target, body), "{}", reply.body);
        assert!(reply.json()["error"].is_string(), "{}", reply.body);
    }
    let reply = set_level(public, "/log-level", &[PLAIN], "debug").await;
    assert_eq!(reply.status, 404, "not on the public listener");
    assert_eq!(shown().await, configured, "nothing was changed");
}

/// To compile a field pattern would take years; it is treated as plain text.
#[tokio::test]
async fn a_log_level_with_a_field_pattern_is_answered_at_once() {
    let (_gateway, [_, admin], _files) = with_log_level().await;
    let pattern = format!("info,[{{job=[ab]*a{}}}]=debug", "[ab]".repeat(40));
    let requests = async { set_level(admin, "/log-level?for=1h", &[PLAIN], &pattern).await.status };
    assert_eq!(tokio::time::timeout(LIMIT, requests).await.ok(), Some(200));
}

#[tokio::test]
async fn a_temporary_log_level_is_restored_after_its_time() {
    let (mut gateway, [_, admin], _files) = with_log_level().await;
    let reply = set_level(admin, "/log-level?for=1s", &[PLAIN], "debug").await;
    assert_eq!((reply.status, &reply.json()["active"]), (200, &"debug".into()));
    gateway.find("the setting", |line| line.contains("log level set temporarily").then_some(())).await;
    gateway.find("the old level", |line| line.contains("log level restored").then_some(())).await;
    assert_eq!(wire::get(admin, "/log-level").await.json()["active"], "info");
}

/// An unknown path is logged at `debug`.
#[tokio::test]
async fn a_log_level_applies_to_later_lines() {
    let (mut gateway, [public, admin], _files) = with_log_level().await;
    wire::get(public, "/nowhere").await;
    let reply = set_level(admin, "/log-level?for=1h", &[PLAIN], "info").await;
    assert_eq!(reply.status, 200);
    gateway.find("the setting", |line| line.contains("log level set temporarily").then_some(())).await;
    assert!(!gateway.output().contains("NO_SUCH_PATH"), "{}", gateway.output());
    assert_eq!(set_level(admin, "/log-level", &[PLAIN], "debug").await.json()["configured"], "debug");
    wire::get(public, "/nowhere").await;
    gateway.find("a line at debug", |line| line.contains("NO_SUCH_PATH").then_some(())).await;
}

/// What a process showed whose log was not read from its start to its exit.
struct BlockedLogOutcome {
    /// The heads of the complete answers.
    answers: Vec<String>,
    /// `None` if it did not exit in time.
    exit_code: Option<i32>,
    /// The lines that were read after the exit.
    lines: Vec<String>,
}

/// So many requests, each with its line of more than 200 bytes, fill a pipe several times.
const UNREAD_REQUESTS: usize = 1_500;

/// The outcome of one run, for the tests of a blocked log reader.
async fn blocked_log() -> &'static BlockedLogOutcome {
    static RUN: OnceCell<BlockedLogOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(run_with_blocked_log())).await
}

async fn run_with_blocked_log() -> BlockedLogOutcome {
    let (_simulator, config) = written("telemetry: { access_log: all }").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobgate"));
    command.args(["serve", "--config", config.path()]).env_clear().kill_on_drop(true);
    command.envs([("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)]);
    let mut process =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::with_capacity(1024, process.stderr.take().unwrap()).lines();
    let public: std::net::SocketAddr = loop {
        let line = log.next_line().await.unwrap().unwrap();
        if let Some((_, rest)) = line.split_once("public=") {
            break rest.split(' ').next().unwrap().parse().unwrap();
        }
    };
    // from here on the log is not read
    let mut answers = Vec::new();
    tokio::time::timeout(LIMIT * 3, send_unread_requests(public, &mut answers)).await.ok();
    let id = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.unwrap().success());
    let ended = tokio::time::timeout(LIMIT, process.wait()).await;
    let exit_code = ended.ok().and_then(|status| status.unwrap().code());
    drop(process);
    let mut lines = Vec::new();
    while let Some(line) = log.next_line().await.unwrap() {
        lines.push(line);
    }
    BlockedLogOutcome { answers, exit_code, lines }
}

/// Ends early if the connection is closed.
async fn send_unread_requests(public: std::net::SocketAddr, answers: &mut Vec<String>) {
    let mut socket = BufReader::new(TcpStream::connect(public).await.unwrap());
    for _ in 0..UNREAD_REQUESTS {
        socket.write_all(b"HEAD /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await.ok();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if socket.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        answers.push(head);
    }
}

#[tokio::test]
async fn a_blocked_log_reader_delays_no_answer() {
    let answers = &blocked_log().await.answers;
    assert_eq!(answers.len(), UNREAD_REQUESTS, "every request is answered");
    for head in answers {
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    }
}

#[tokio::test]
async fn a_blocked_log_reader_delays_no_shutdown() {
    assert_eq!(blocked_log().await.exit_code, Some(0));
}

/// The pipe keeps its content; other lines may be among those of the requests.
#[tokio::test]
async fn a_blocked_log_reader_can_read_lines_after_the_exit() {
    let lines = &blocked_log().await.lines;
    assert!(lines.iter().any(|line| line.contains("request served")), "{lines:?}");
}

/// A gateway with a watched job whose id is a canary.
async fn with_canary_job() -> (Rig, Watcher) {
    let rig = Setup::with(vec![MindBridgeJob::new(CANARY, &[(0, "IN_PROGRESS")])], vec![]).start().await;
    let mut watcher = Watcher::open(rig.public, Sse, &[CANARY]).await;
    assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
    (rig, watcher)
}

async fn status_page(rig: &Rig) -> Reply {
    let accept = [("accept", "text/html,application/xhtml+xml")];
    wire::exchange(rig.admin, &wire::request("GET", "/status", &accept, "")).await
}

#[tokio::test]
async fn status_reports_health_as_json() {
    let (rig, _watcher) = with_canary_job().await;
    let status = wire::get(rig.admin, "/status").await.json();
    for (pointer, expected) in [
        ("/jobgate/version", json!(env!("CARGO_PKG_VERSION"))),
        ("/jobgate/traffic", json!("ready")),
        ("/sources/1/name", json!("mind")),
        ("/sources/1/health", json!("healthy")),
        ("/sources/1/credential", json!("active")),
        ("/sources/0/health", json!("unknown")),
        ("/streams/sse", json!(1)),
        ("/jobs/followed", json!(1)),
        ("/store/degraded", json!(false)),
        ("/lastReload", Value::Null),
    ] {
        assert_eq!(status.pointer(pointer), Some(&expected), "{pointer} of {status:#}");
    }
    assert!(status["load"]["connections"]["underWay"].as_u64().unwrap() >= 1, "{status:#}");
}

#[tokio::test]
async fn status_reports_health_as_html_for_a_browser() {
    let (rig, _watcher) = with_canary_job().await;
    let page = status_page(&rig).await;
    assert!(page.head.contains("text/html") && page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(page.body.contains("<h3>mind</h3>"), "{}", page.body);
}

#[tokio::test]
async fn status_contains_no_secret_and_no_job_id() {
    let (rig, _watcher) = with_canary_job().await;
    let (page, reply) = (status_page(&rig).await, wire::get(rig.admin, "/status").await);
    for secret in [TOKEN, KEY, CANARY] {
        assert!(!page.body.contains(secret) && !reply.body.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn status_is_not_on_the_public_listener() {
    let rig = Setup::default().start().await;
    assert_eq!(wire::get(rig.public, "/status").await.status, 404);
}

#[tokio::test]
async fn readiness_fails_while_all_connections_are_in_use() {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    setup.rest = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, max_connections: 4 }".to_owned();
    let rig = setup.start().await;
    let ready = async |expected: &str| {
        let written = async {
            while wire::get(rig.admin, "/readyz").await.body.trim() != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, written).await.unwrap_or_else(|_| panic!("not {expected}"));
    };
    ready("ready").await;
    let mut watchers = Vec::new();
    for _ in 0..4 {
        let mut watcher = Watcher::open(rig.public, Sse, &["a"]).await;
        assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
        watchers.push(watcher);
    }
    ready("overloaded").await;
    assert_eq!(wire::get(rig.admin, "/readyz").await.status, 503);
    assert_eq!(wire::get(rig.admin, "/livez").await.status, 200, "it is alive");
    let last = watchers.swap_remove(0);
    drop(watchers);
    ready("ready").await;
    drop(last);
    let reference = external("mind", "a");
    let answer = rig
        .execute("query($ref: JobRef!) { job(ref: $ref) { __typename } }", json!({ "ref": reference }))
        .await;
    assert_eq!(answer.status, 200);
}
