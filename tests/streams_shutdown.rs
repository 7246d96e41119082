//! The shutdown of the real process under load: streams are closed by the protocol, requests finish, and a second
//! signal does not wait.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use jobgate_simulator::{
    Addresses, FaultKind, Handle, MindBridgeJob, SimFault, SimUpstream, Simulator, SupermetricsJob,
};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, KEY, Setup, TOKEN, describe, external};
use crate::support::streams::{Sse, Watcher, WebSocket, room_for};
use crate::support::wire;

/// The time over which the streams are closed, and the limit for the exit of the process.
const WINDOW: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_mins(1);

/// A gateway process whose streams watch one source while the other answers nothing until it is released.
async fn gateway(drain_window: &str, requests: usize) -> (Process, SocketAddr, Simulator) {
    let query = |number| SupermetricsJob::new(&format!("query{number}"), &[(0, "SUCCESS")]);
    let job = MindBridgeJob::new("a", &[(0, "IN_PROGRESS")]);
    let mut setup = Setup::with(vec![job], (0..requests).map(query).collect());
    setup.scenario.faults = vec![SimFault::always(SimUpstream::Supermetrics, FaultKind::Hold)];
    // nothing of this times out because the machine is slow
    setup.source = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 9m";
    setup.rest = format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 10m, drain_timeout: 10m }}\n\
         streams: {{ max_streams_per_client: 5000, ping_interval: 10m, drain_window: {drain_window} }}"
    );
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let public = gateway.address("public").await;
    (gateway, public, simulator)
}

async fn streams(public: SocketAddr, sockets: usize, events: usize) -> Vec<Watcher> {
    room_for(sockets + events + 500);
    let mut streams = Vec::new();
    for (carrier, count) in [(WebSocket, sockets), (Sse, events)] {
        for _ in 0..count {
            let mut watcher = Watcher::open(public, carrier, &["a"]).await;
            assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
            streams.push(watcher);
        }
    }
    streams
}

async fn execute(public: SocketAddr, number: usize) -> String {
    let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
    let reference = external("metrics", &format!("query{number}"));
    let body = json!({ "query": query, "variables": { "ref": reference } });
    describe(&wire::post(public, None, &body).await.data()["job"])
}

/// Waits until the gateway has fetched each of these.
async fn wait_for_all(upstreams: &Handle, requests: usize) {
    let mut seen = 0;
    while upstreams.record_of(SimUpstream::Supermetrics).len() < requests {
        seen = upstreams.record().len().max(seen) + 1;
        upstreams.wait_for_requests(seen).await;
    }
}

const REQUESTS: usize = 50;

/// What clients and the process showed at a shutdown.
#[derive(Debug)]
struct ShutdownOutcome {
    answers: Vec<String>,
    /// What each WebSocket received after its first update, and each event stream.
    sockets: Vec<Vec<String>>,
    events: Vec<Vec<String>>,
    code: Option<i32>,
    lasted: Duration,
    log: String,
}

/// The outcome of one shutdown under load, which takes long, for several tests.
async fn outcome() -> &'static ShutdownOutcome {
    static RUN: OnceCell<ShutdownOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(shutdown())).await
}

async fn shutdown() -> ShutdownOutcome {
    let sockets = 500;
    let (mut gateway, public, simulator) = gateway("1s", REQUESTS).await;
    let upstreams = simulator.handle();
    let streams = streams(public, sockets, 100).await;
    let answers = join_all((0..REQUESTS).map(|number| execute(public, number)));
    let ends = join_all(streams.into_iter().map(Watcher::rest));
    let stop = async {
        wait_for_all(&upstreams, REQUESTS).await;
        let signalled = Instant::now();
        gateway.signal("TERM").await;
        gateway.find("the beginning of the end", |line| line.contains("shutting down").then_some(())).await;
        upstreams.release();
        let (status, output) = gateway.ended().await;
        (status.code(), signalled.elapsed(), output)
    };
    let (answers, mut ends, (code, lasted, log)) = tokio::join!(answers, ends, stop);
    let events = ends.split_off(sockets);
    ShutdownOutcome { answers, sockets: ends, events, code, lasted, log }
}

#[tokio::test]
async fn shutdown_completes_every_request() {
    assert_eq!(outcome().await.answers, vec!["SUCCEEDED"; REQUESTS]);
}

#[tokio::test]
async fn shutdown_closes_every_websocket_with_1012() {
    assert_eq!(outcome().await.sockets.iter().find(|end| *end != &["1012"]), None);
}

/// Without `complete`: a client that implements the protocol reconnects.
#[tokio::test]
async fn shutdown_ends_every_event_stream_without_complete() {
    assert_eq!(outcome().await.events.iter().find(|end| !end.is_empty()), None);
}

#[tokio::test]
async fn shutdown_exits_with_0_after_the_drain_window() {
    let ShutdownOutcome { code, lasted, log, .. } = outcome().await;
    assert_eq!(*code, Some(0), "{log}");
    assert!(*lasted >= WINDOW / 2 && *lasted < DEADLINE, "{lasted:?}");
    assert!(log.contains("stopped") && !log.contains("before the drain completed"), "{log}");
}

#[tokio::test]
async fn a_second_signal_exits_without_waiting_for_streams() {
    let (mut gateway, public, simulator) = gateway("9m", 1).await;
    let upstreams = simulator.handle();
    let streams = streams(public, 30, 30).await;
    // it is never answered: because of it the process would not exit before the second signal, however late that is
    let query = "query($ref: JobRef!) { job(ref: $ref) { __typename } }";
    let body = json!({ "query": query, "variables": { "ref": external("metrics", "query0") } });
    let unanswered = wire::post(public, None, &body);
    let stop = async {
        wait_for_all(&upstreams, 1).await;
        gateway.signal("TERM").await;
        gateway.find("the beginning of the end", |line| line.contains("shutting down").then_some(())).await;
        gateway.signal("TERM").await;
        let at = Instant::now();
        let (status, output) = gateway.ended().await;
        (status, output, at.elapsed())
    };
    let (_, (status, output, lasted)) = tokio::join!(unanswered, stop);
    assert!(lasted < DEADLINE, "{lasted:?}");
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("second signal"), "{output}");
    drop(streams);
}
