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

/// A client that reuses a connection is sent away with a response, not by a connection closed on its request; and a
/// request after the listener is closed is still answered.
#[tokio::test]
async fn draining_closes_a_kept_connection_after_a_response() {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], Vec::new());
    // at least ten streams per second are closed: this many delay the shutdown for a minute
    setup.rest =
        "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, drain_delay: 1s, drain_timeout: 1h }\n\
                  streams: { drain_window: 10m }"
            .to_owned();
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let (public, admin) = (gateway.address("public").await, gateway.address("admin").await);
    let mut streams = crowd(public, 600, &["a"]).await;
    all_receive(&mut streams, "SNAPSHOT RUNNING").await;
    let mut kept = [TcpStream::connect(public).await.unwrap(), TcpStream::connect(public).await.unwrap()];
    for socket in &mut kept {
        assert!(!execute(socket).await.contains("connection: close"));
    }

    gateway.signal("TERM").await;
    gateway.find("the beginning of the end", |line| line.contains("shutting down").then_some(())).await;
    crate::redis_shared_store::until("it is not ready any more", || async {
        (wire::get(admin, "/readyz").await.status == 503).then_some(())
    })
    .await;
    let [first, second] = &mut kept;
    assert!(execute(first).await.contains("connection: close"));
    assert_eq!(first.read_u8().await.ok(), None, "and it is closed");
    crate::redis_shared_store::until("the listener is closed", || async {
        TcpStream::connect(public).await.is_err().then_some(())
    })
    .await;
    assert!(execute(second).await.contains("connection: close"), "an idle connection is not reset");
    assert_eq!(second.read_u8().await.ok(), None);
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.0.code(), Some(0));
    drop(streams);
}

/// Sends a request on a reused connection: the head of the response.
async fn execute(socket: &mut TcpStream) -> String {
    let body = json!({ "query": "{ __typename }" }).to_string();
    let request = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let whole = async {
        while !answer.ends_with(br#""Query"}}"#) {
            assert!(socket.read_buf(&mut answer).await.unwrap() > 0, "cut");
        }
    };
    tokio::time::timeout(LIMIT, whole).await.unwrap();
    String::from_utf8(answer).unwrap()
}
