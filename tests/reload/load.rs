//! A hundred reloads under load: queries without a pause, and streams that stay open.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jobgate_simulator::MindBridgeStep;
use serde_json::json;
use tokio::sync::OnceCell;

use super::{BUDGET, Gateway, mind};
use crate::support::server::{ANY, TOKEN, describe, external};
use crate::support::streams::{LIMIT, StreamEvent, Watcher, crowd};
use crate::support::wire;

const RELOADS: usize = 100;
const STREAMS: usize = 50;
const CLIENTS: usize = 4;
/// Reloads after which the memory is in a steady state for such a load.
const WARM: usize = 20;
/// The allowed growth from then on: far more than noise, far less than anything retained of each of eighty reloads.
const GROWTH: u64 = 24 << 20;

/// What clients, upstreams and the process showed over the reloads.
#[derive(Debug)]
struct Outcome {
    request_count: usize,
    /// Answers other than the state of the job.
    failed: Vec<String>,
    /// What each stream received after the reloads.
    ends: Vec<String>,
    /// What the upstreams would not accept of a correct client.
    violations: Vec<String>,
    /// The resident memory in the steady state, and after the last reload.
    resident: [u64; 2],
    log: String,
}

/// The outcome of one run, which takes long, for all tests of this file.
async fn outcome() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(reload_under_load())).await
}

#[expect(clippy::print_stderr, reason = "the figures are taken from it")]
async fn reload_under_load() -> Outcome {
    let mut gateway = Gateway::start("").await;
    let mut streams = crowd(gateway.public, STREAMS, &["a"]).await;
    for stream in &mut streams {
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
    }
    let (done, request_count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let public = gateway.public;
    let execute = async || {
        let query = format!("query($ref: JobRef!) {{ job(ref: $ref, maxStaleness: \"1ms\") {ANY} }}");
        let body = json!({ "query": query, "variables": { "ref": external("mind", "b") } });
        let mut failed = Vec::new();
        while !done.load(Ordering::Relaxed) || request_count.load(Ordering::Relaxed) < RELOADS {
            let reply = wire::post(public, None, &body).await;
            if reply.status != 200 || describe(&reply.data()["job"]) != "RUNNING" {
                failed.push(format!("{} {}", reply.status, reply.body));
            }
            request_count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        failed
    };
    let reload = async {
        let mut warm = 0;
        for number in 1..=RELOADS {
            change(&mut gateway, number).await;
            if number == WARM {
                warm = gateway.process.resident();
            }
        }
        done.store(true, Ordering::Relaxed);
        [warm, gateway.process.resident()]
    };
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| execute()));
    let (resident, failed) = tokio::join!(reload, clients);
    eprintln!("{request_count:?} queries; {resident:?} bytes after {WARM} and {RELOADS} reloads");

    let mut violations = Vec::new();
    for upstream in &gateway.upstreams {
        upstream.handle().set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
        violations.extend(upstream.handle().violations());
    }
    let mut ends = Vec::new();
    for stream in &mut streams {
        ends.push(end(stream).await);
    }
    Outcome {
        request_count: request_count.load(Ordering::Relaxed),
        failed: failed.concat(),
        ends,
        violations,
        resident,
        log: gateway.process.output(),
    }
}

#[tokio::test]
async fn a_hundred_reloads_under_load_fail_no_request() {
    let outcome = outcome().await;
    assert_eq!(outcome.failed, [""; 0]);
    assert!(outcome.request_count >= RELOADS, "too few requests: {}", outcome.request_count);
}

#[tokio::test]
async fn a_hundred_reloads_under_load_close_no_stream() {
    assert_eq!(outcome().await.ends, ["ENDED SUCCEEDED"; STREAMS]);
}

#[tokio::test]
async fn a_hundred_reloads_do_not_grow_the_memory() {
    let [warm, last] = outcome().await.resident;
    assert!(last < warm + GROWTH, "{warm} bytes after {WARM} reloads, {last} after {RELOADS}");
}

#[tokio::test]
async fn a_hundred_reloads_cause_no_upstream_violation() {
    assert_eq!(outcome().await.violations, [""; 0]);
}

#[tokio::test]
async fn a_hundred_valid_reloads_log_no_error() {
    let log = &outcome().await.log;
    assert!(!log.contains("ERROR"), "{log}");
}

/// Changes many options at once, and waits until the change is active.
async fn change(gateway: &mut Gateway, number: usize) {
    let odd = number % 2;
    let per_hour = 100_000 + number;
    let budget = format!("per_second: 10000, per_hour: {per_hour}, concurrency: {}", 100 + odd);
    let token = if odd == 0 { "{ env: MIND_TOKEN }" } else { "{ file: SECRET }" };
    let secret = gateway.folder.join("secret");
    if number == 1 {
        // once: to write it in place again would truncate it first, which raises an alarm
        fs::write(&secret, TOKEN).unwrap();
    }
    let token = token.replace("SECRET", &format!("\"{}\"", secret.display()));
    let source = mind(&gateway.url(odd), &token, &budget);
    let more =
        mind(&gateway.url(1), "{ env: MIND_TOKEN }", BUDGET).replacen("mind:", &format!("more{number}:"), 1);
    let sources = if odd == 0 { vec![source.as_str()] } else { vec![source.as_str(), more.as_str()] };
    let rest = format!(
        "limits: {{ burst: {} }}\ncache: {{ fresh_for: {}ms }}\nstreams: {{ ping_interval: {}s }}\ncredentials: {{ reload_interval: {}s }}",
        2000 + number,
        1000 + number,
        100 + odd,
        10 + odd
    );
    gateway.put(&sources, &rest);
    gateway.process.signal("HUP").await;
    // the log suppresses repeated lines, so the counter is used
    let applied = format!("jobgate_config_reloads_total{{outcome=\"applied\"}} {number}");
    let active = async {
        while !wire::get(gateway.admin, "/metrics").await.body.lines().any(|line| line == applied) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, active).await.is_ok(), "not active: {applied}");
}

/// The next event of a stream, which is its last: a job is the same at both upstreams.
async fn end(stream: &mut Watcher) -> String {
    match stream.receive().await {
        StreamEvent::Update(update) => {
            format!("{} {}", update["kind"].as_str().unwrap(), super::state(&update))
        }
        received @ (StreamEvent::Complete | StreamEvent::Over(_)) => format!("{received:?}"),
    }
}
