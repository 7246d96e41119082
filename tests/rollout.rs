//! Replicas are replaced one by one behind a balancer, and no client gets an error. `cargo bench --bench rollout` does
//! the same thirty times.

use jobgate_simulator::{Addresses, MindBridgeJob, Simulator};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::support::process::Process;
use crate::support::rollout::{self, ANNOUNCED, Outcome, Plan, WINDOW};
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN};
use crate::support::streams::{LIMIT, all_receive, crowd};
use crate::support::wire;

const PLAN: Plan = Plan { rollouts: 2, replicas: 3, pace: 100, streams: 90 };

/// The outcome of one run, which takes long, for the tests of a rollout.
async fn outcome() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| rollout::run(PLAN, |_| {})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_fails_no_request() {
    let outcome = outcome().await;
    assert_eq!(outcome.failed, [""; 0], "of {} requests", outcome.requests);
    assert!(outcome.crossed * 100 <= outcome.requests, "{} of {}", outcome.crossed, outcome.requests);
    assert!(outcome.requests > 200 && outcome.reused > outcome.requests / 2, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_ends_every_stream_with_a_signal_to_reconnect() {
    let outcome = outcome().await;
    let ended: usize = ANNOUNCED.iter().filter_map(|how| outcome.ends.get(*how)).sum();
    assert_eq!(ended, outcome.ends.values().sum::<usize>(), "{:?}", outcome.ends);
    assert!(ended >= PLAN.rollouts * PLAN.streams, "each of them in each rollout: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_spreads_the_ends_of_streams_over_the_window() {
    let outcome = outcome().await;
    // the peak needs an idle machine; the usual spread does not: a replica suspended for a window closes all at once
    let usual = outcome.spreads.get(outcome.spreads.len() / 2);
    assert!(usual.is_some_and(|spread| *spread > WINDOW / 2), "{outcome:?}");
}

/// What clients that reuse a connection received while a process drained.
#[derive(Debug)]
struct DrainOutcome {
    /// The answers before the signal.
    before: [String; 2],
    /// The answer on the first connection while the process drains, and whether the connection was closed after it.
    draining: (String, bool),
    /// The same on the second, which was idle until the listener was closed.
    idle: (String, bool),
    exit_code: Option<i32>,
}

/// The outcome of one run, which takes long, for the tests of kept connections.
async fn drained() -> &'static DrainOutcome {
    static RUN: OnceCell<DrainOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(drain_with_kept_connections())).await
}

async fn drain_with_kept_connections() -> DrainOutcome {
    // at least ten streams per second are closed: this many delay the shutdown for a minute
    let rest =
        "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, drain_delay: 1s, drain_timeout: 1h }\n\
                streams: { drain_window: 10m }"
            .to_owned();
    let jobs = vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])];
    let setup = Setup { rest, ..Setup::with(jobs, Vec::new()) };
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let (public, admin) = (gateway.address("public").await, gateway.address("admin").await);
    let mut streams = crowd(public, 600, &["a"]).await;
    all_receive(&mut streams, "SNAPSHOT RUNNING").await;
    let (mut first, mut second) =
        (TcpStream::connect(public).await.unwrap(), TcpStream::connect(public).await.unwrap());
    let before = [execute(&mut first).await, execute(&mut second).await];

    gateway.signal("TERM").await;
    gateway.find("the beginning of the end", |line| line.contains("shutting down").then_some(())).await;
    crate::redis_shared_store::until("it is not ready any more", || async {
        (wire::get(admin, "/readyz").await.status == 503).then_some(())
    })
    .await;
    let draining = (execute(&mut first).await, is_closed(&mut first).await);
    crate::redis_shared_store::until("the listener is closed", || async {
        TcpStream::connect(public).await.is_err().then_some(())
    })
    .await;
    let idle = (execute(&mut second).await, is_closed(&mut second).await);
    gateway.signal("TERM").await;
    let exit_code = gateway.ended().await.0.code();
    drop(streams);
    DrainOutcome { before, draining, idle, exit_code }
}

/// The end of a complete answer.
const COMPLETE: &str = r#""Query"}}"#;

fn assert_closed_after_a_response((answer, closed): &(String, bool)) {
    assert!(answer.contains("connection: close") && answer.ends_with(COMPLETE), "{answer}");
    assert!(closed, "the connection stays open");
}

#[tokio::test]
async fn draining_closes_a_kept_connection_after_a_response() {
    let outcome = drained().await;
    for answer in &outcome.before {
        assert!(!answer.contains("connection: close") && answer.ends_with(COMPLETE), "{answer}");
    }
    assert_closed_after_a_response(&outcome.draining);
}

#[tokio::test]
async fn draining_resets_no_idle_connection() {
    assert_closed_after_a_response(&drained().await.idle);
}

#[tokio::test]
async fn a_second_signal_during_a_drain_exits_with_0() {
    assert_eq!(drained().await.exit_code, Some(0));
}

/// Sends a request on a reused connection: the answer, as far as it arrives.
async fn execute(socket: &mut TcpStream) -> String {
    let body = json!({ "query": "{ __typename }" }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.ok();
    let mut answer = Vec::new();
    let whole = async {
        while !answer.ends_with(COMPLETE.as_bytes()) {
            if socket.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, whole).await.ok();
    String::from_utf8(answer).unwrap()
}

async fn is_closed(socket: &mut TcpStream) -> bool {
    tokio::time::timeout(LIMIT, socket.read_u8()).await.is_ok_and(|read| read.is_err())
}
