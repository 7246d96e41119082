//! A collector that is away, or hangs: nobody waits for it, what is lost is counted, and the process ends in time.

use jobgate::simulator::{Addresses, MindBridgeJob, Simulator};
use tokio::net::{TcpListener, TcpSocket};

use super::secrets;
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{Setup, external};
use crate::support::streams::LIMIT;
use crate::support::wire;
use serde_json::json;

/// Requests made: each leaves several spans, more than may wait.
const REQUESTS: usize = 60;

async fn nobody_waits_for(collector: String, protocol: &str) {
    let rest = format!("telemetry: {{ otlp_endpoint: '{collector}', otlp_protocol: '{protocol}' }}");
    let setup = Setup { rest, ..Setup::with(vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])], vec![]) };
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let mut env = secrets();
    env.extend([("OTEL_BSP_MAX_QUEUE_SIZE", "40"), ("OTEL_BSP_EXPORT_TIMEOUT", "600000")]);
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let (gateway, admin) = (process.address("public").await, process.address("admin").await);
    let query = "query($ref: JobRef!) { job(ref: $ref) { ... on Job { state } } }";
    let body = json!({ "query": query, "variables": { "ref": external("mind", "a") } });
    for _ in 0..REQUESTS {
        assert_eq!(wire::post(gateway, None, &body).await.data()["job"]["state"], "SUCCEEDED");
    }
    let lost = |metrics: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with("jobgate_telemetry_dropped_total{signal=\"traces\"}"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let counted = async {
        while lost(&wire::get(admin, "/metrics").await.body) == 0.0 {
            wire::post(gateway, None, &body).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, counted).await.is_ok(), "what is lost is counted");

    process.signal("TERM").await;
    // which has a limit of its own
    let (status, said) = process.ended().await;
    assert!(status.success(), "{said}");
}

#[tokio::test]
async fn a_collector_that_refuses_holds_nobody_up() {
    // bound and not listened on: nobody else gets the port meanwhile
    let refuses = TcpSocket::new_v4().unwrap();
    refuses.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    nobody_waits_for(format!("http://{}", refuses.local_addr().unwrap()), "http/protobuf").await;
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    // the system accepts for it, and nothing is ever read
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nobody_waits_for(format!("http://{}", listener.local_addr().unwrap()), "grpc").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nobody_waits_for(format!("http://{}", listener.local_addr().unwrap()), "http/protobuf").await;
}
