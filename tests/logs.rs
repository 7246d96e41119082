//! The log of the real process: what a line about a request contains and what never, a level that changes at run time,
//! and a reader that stalls; and the status page.

use std::process::Stdio;
use std::time::Duration;

use jobgate_simulator::{Addresses, FaultKind, MadeUpBody, MindBridgeJob, SimFault, SimUpstream, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN, external};
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

#[tokio::test]
async fn the_access_log_has_one_line_per_request_and_no_input() {
    let (_simulator, config) = written("telemetry: { log_format: json, access_log: all }").await;
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
    let ended = gateway
        .find("the line about a query", |line| {
            line.contains("\"operation\":\"query\"").then(|| line.to_owned())
        })
        .await;
    let ended: Value = serde_json::from_str(&ended).unwrap();
    assert_eq!(
        (&ended["method"], &ended["route"], &ended["status"]),
        (&"POST".into(), &"/graphql".into(), &200.into())
    );
    assert_eq!((&ended["bytes"], &ended["whole"]), (&answer.body.len().into(), &true.into()));
    assert!(ended["duration_ms"].is_u64() && ended["client"].is_string(), "{ended}");
    assert!(answer.head.contains(ended["request_id"].as_str().unwrap()), "{}", answer.head);
    let about = |output: &str, operation: &str| {
        lines(output, "request served").into_iter().filter(|line| line["operation"] == operation).count()
    };
    assert_eq!(about(&gateway.output(), "subscription"), 0, "it has not exited yet");
    drop(watcher);
    let stream = gateway
        .find("the end of the stream", |line| {
            line.contains("\"operation\":\"subscription\"").then(|| line.to_owned())
        })
        .await;
    let stream: Value = serde_json::from_str(&stream).unwrap();
    assert_eq!(stream["whole"], false, "{stream}");

    gateway.signal("TERM").await;
    let (_, output) = gateway.ended().await;
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
    assert!(output.contains("\"request_id\":\"by-the-client\""), "{output}");
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

#[tokio::test]
async fn only_a_valid_admin_request_changes_the_log_level() {
    let (_simulator, config) = written("").await;
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let (public, admin) = (gateway.address("public").await, gateway.address("admin").await);
    let plain = ("content-type", "text/plain");
    let shown = async || wire::get(admin, "/log-level").await.json();
    assert_eq!(shown().await, json!({ "active": "info", "configured": "info", "restoredInSeconds": null }));

    let refused = [
        ("/log-level", vec![plain, ("origin", "http://localhost:9090")], "debug", 403),
        ("/log-level", vec![plain, ("sec-fetch-site", "same-origin")], "debug", 403),
        ("/log-level", vec![("content-type", "application/x-www-form-urlencoded")], "debug", 415),
        ("/log-level", vec![], "debug", 415),
        ("/log-level", vec![plain], "loud", 400),
        ("/log-level", vec![plain], "info,=", 400),
        ("/log-level", vec![plain], "", 400),
        ("/log-level?for=10", vec![plain], "debug", 400),
        ("/log-level?for=0s", vec![plain], "debug", 400),
        ("/log-level?for=25h", vec![plain], "debug", 400),
        ("/log-level?until=10m", vec![plain], "debug", 400),
    ];
    for (target, headers, body, status) in refused {
        let reply = set_level(admin, target, &headers, body).await;
        assert_eq!((reply.status, target, body), (status, target, body), "{}", reply.body);
        assert!(reply.json()["error"].is_string(), "{}", reply.body);
    }
    assert_eq!(
        set_level(public, "/log-level", &[plain], "debug").await.status,
        404,
        "not on the public listener"
    );
    assert_eq!(shown().await["active"], "info", "nothing was changed");
    let too_long = "info,".repeat(2_000);
    assert_eq!(set_level(admin, "/log-level", &[plain], &too_long).await.status, 400);

    // to compile a field pattern would take years; it is treated as plain text, and answered at once
    let pattern = format!("info,[{{job=[ab]*a{}}}]=debug", "[ab]".repeat(40));
    let requests = async { set_level(admin, "/log-level?for=1h", &[plain], &pattern).await.status };
    assert_eq!(tokio::time::timeout(LIMIT, requests).await.ok(), Some(200));

    // an unknown path is logged at `debug`
    wire::get(public, "/nowhere").await;
    let reply = set_level(admin, "/log-level?for=1s", &[plain], "debug").await;
    assert_eq!((reply.status, &reply.json()["active"]), (200, &"debug".into()));
    gateway.find("the setting", |line| line.contains("log level set temporarily").then_some(())).await;
    assert!(!gateway.output().contains("NO_SUCH_PATH"), "{}", gateway.output());
    let back = |line: &str| line.contains("log level restored").then_some(());
    gateway.find("the old level", back).await;
    assert_eq!(shown().await["active"], "info");
    assert_eq!(set_level(admin, "/log-level", &[plain], "debug").await.json()["configured"], "debug");
    wire::get(public, "/nowhere").await;
    gateway.find("a line at debug", |line| line.contains("NO_SUCH_PATH").then_some(())).await;
}

/// Some 1,500 requests, each with its line of more than 200 bytes: several times what a pipe holds.
#[tokio::test]
async fn a_blocked_log_reader_delays_no_answer_and_no_shutdown() {
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
    let requests = async {
        let mut socket = BufReader::new(TcpStream::connect(public).await.unwrap());
        for _ in 0..1_500 {
            socket.write_all(b"HEAD /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(socket.read_line(&mut head).await.unwrap(), 0, "{head}");
            }
            assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        }
    };
    tokio::time::timeout(LIMIT * 3, requests).await.expect("every request is answered");
    let id = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().await.unwrap().success());
    let ended = tokio::time::timeout(LIMIT, process.wait()).await.expect("it exits").unwrap();
    assert_eq!(ended.code(), Some(0));
    // the content of the pipe can still be read; another line may be between the two
    let mut served = false;
    while let Some(line) = log.next_line().await.unwrap() {
        served |= line.contains("request served");
    }
    assert!(served);
}

#[tokio::test]
async fn status_reports_health_as_json_and_html_without_secrets() {
    let rig = Setup::with(vec![MindBridgeJob::new(CANARY, &[(0, "IN_PROGRESS")])], vec![]).start().await;
    let mut watcher = Watcher::open(rig.public, Sse, &[CANARY]).await;
    assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
    let reply = wire::get(rig.admin, "/status").await;
    let status = reply.json();
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
    let requests = [("accept", "text/html,application/xhtml+xml")];
    let page = wire::exchange(rig.admin, &wire::request("GET", "/status", &requests, "")).await;
    assert!(page.head.contains("text/html") && page.head.contains("default-src 'none'"), "{}", page.head);
    assert!(page.body.contains("<td>mind</td>"), "{}", page.body);
    for secret in [TOKEN, KEY, CANARY] {
        assert!(!page.body.contains(secret) && !reply.body.contains(secret), "{secret}");
    }
    assert_eq!(wire::get(rig.public, "/status").await.status, 404, "not on the public listener");
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
