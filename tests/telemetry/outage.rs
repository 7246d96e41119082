//! A collector that refuses connections or hangs: no request waits for it, lost spans are counted, and the process
//! exits in time.

use std::net::SocketAddr;

use jobgate_simulator::{Addresses, MindBridgeJob, Simulator};
use tokio::net::{TcpListener, TcpSocket};

use super::secrets;
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{Setup, external};
use crate::support::streams::LIMIT;
use crate::support::wire;
use serde_json::json;

/// Requests made once the queue of spans is full; each has several more spans.
const REQUESTS: usize = 60;
/// The allowed speed advantage of a gateway without a collector, also for sequential requests. Compared with a request
/// thread that waits 300 ms for each span, it answers some hundred times as many.
const TIMES: usize = 20;

/// Reads a terminal job.
async fn execute(gateway: SocketAddr) {
    let query = "query($ref: JobRef!) { job(ref: $ref) { ... on Job { state } } }";
    let body = json!({ "query": query, "variables": { "ref": external("mind", "a") } });
    assert_eq!(wire::post(gateway, None, &body).await.data()["job"]["state"], "SUCCEEDED");
}

/// Spans that were lost, as `/metrics` reports it.
async fn lost(admin: SocketAddr) -> f64 {
    let metrics = wire::get(admin, "/metrics").await.body;
    let name = "jobgate_telemetry_dropped_total{signal=\"traces\"}";
    metrics.lines().find(|line| line.starts_with(name)).unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Runs a gateway with this collector beside one without, and compares how many requests each answers. Nothing is
/// measured in seconds, since a slow machine is slow for both.
async fn no_request_waits_for(collector: String, protocol: &str) {
    let setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])], vec![]);
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let yaml = setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url());
    let without = Scratch::new(&yaml);
    let telemetry = format!("telemetry: {{ otlp_endpoint: '{collector}' }}");
    let with = Scratch::new(&format!("{yaml}{telemetry}\n"));
    let mut env = secrets();
    env.extend([
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "40"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "600000"),
    ]);
    let mut process = Process::start(&["serve", "--config", with.path()], &env);
    let mut control = Process::start(&["serve", "--config", without.path()], &env);
    let (gateway, admin) = (process.address("public").await, process.address("admin").await);
    let beside = control.address("public").await;

    // nothing is exported before, so that the queue is full from here on
    let full = async {
        while lost(admin).await == 0.0 {
            execute(gateway).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, full).await.is_ok(), "lost spans are counted");
    execute(beside).await;
    let mut answered = 0;
    let exporting = async {
        for _ in 0..REQUESTS {
            execute(gateway).await;
        }
    };
    let reference = async {
        while answered <= REQUESTS * TIMES {
            execute(beside).await;
            answered += 1;
        }
    };
    tokio::select! {
        () = exporting => {}
        () = reference => {}
    }
    assert!(answered <= REQUESTS * TIMES, "a request waits for the collector");

    process.signal("TERM").await;
    // which has its own limit
    let (status, output) = process.ended().await;
    assert!(status.success(), "{output}");
}

#[tokio::test]
async fn no_request_waits_for_a_collector_that_refuses() {
    // bound without listening: no other program gets the port meanwhile
    let refuses = TcpSocket::new_v4().unwrap();
    refuses.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    no_request_waits_for(format!("http://{}", refuses.local_addr().unwrap()), "http/protobuf").await;
}

#[tokio::test]
async fn no_request_waits_for_a_collector_that_hangs() {
    // the system accepts the connection, and nothing is ever read
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    no_request_waits_for(format!("http://{}", listener.local_addr().unwrap()), "grpc").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    no_request_waits_for(format!("http://{}", listener.local_addr().unwrap()), "http/protobuf").await;
}
