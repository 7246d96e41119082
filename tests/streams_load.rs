//! Many watchers on real sockets: their upstream calls, and that no resource is left once they are gone.

use std::time::Duration;

use futures_util::future::join_all;
use jobgate::inbound::streams::StreamCounts;
use jobgate_simulator::{Endpoint, FaultKind, MindBridgeJob, SimFault, SimUpstream};
use serde_json::json;
use tokio::time::timeout;

use crate::support::server::{Rig, Setup};
use crate::support::streams::{Sse, Watcher, WebSocket, all_receive, crowd, settles};
use crate::support::wire;

/// The shortest time between two polls of a job.
const PACE: Duration = Duration::from_millis(400);
/// The fraction of the interval that the jitter of a job leaves.
const LEAST: f64 = 0.8;
const UNSUBSCRIBE_GRACE: Duration = Duration::from_millis(300);
/// The machine's delay for what the gateway does at once.
const SLACK: Duration = Duration::from_mins(2);
/// A client that does not read for a while is not closed: a machine without CPU time needs long to open so many.
const LONG_TIMEOUT: &str = "ping_interval: 1h";

/// A gateway with jobs that run until a test completes them.
async fn rig(ids: &[&str], streams: &str) -> Rig {
    let jobs = ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).collect();
    let setup = Setup::with(jobs, Vec::new());
    let rest = format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 30m }}\n\
         poll: {{ min_interval: 400ms, max_interval: 1s, unsubscribe_grace: 300ms }}\n\
         streams: {{ max_streams_per_client: 5000, {streams} }}"
    );
    // a thousand watchers arrive while the first fetch is in flight
    let source = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 20m";
    Setup { source, rest, ..setup }.start().await
}

/// The sixth fetch observes the terminal state. The number of fetches, and the length of the last four intervals.
async fn polls_of_a_job(watchers: usize) -> (usize, Duration) {
    let rig = rig(&["shared"], LONG_TIMEOUT).await;
    rig.upstreams.push_fault(SimFault::next(SimUpstream::MindBridge, 1, FaultKind::Hold));
    let done = FaultKind::set("/status", json!("COMPLETE"));
    rig.upstreams.push_fault(SimFault::always(SimUpstream::MindBridge, done).after(4));
    // all of them arrive while the first fetch is in flight
    let mut watching = crowd(rig.public, watchers, &["shared"]).await;
    rig.upstreams.wait_for_requests(1).await;
    // once this is answered, everything that the last of them sent before has been read too
    wire::get(rig.admin, "/livez").await;
    rig.upstreams.release();
    all_receive(&mut watching, "SNAPSHOT RUNNING").await;
    all_receive(&mut watching, "ENDED SUCCEEDED").await;
    let requests = rig.requests_to(Endpoint::One);
    let span = requests.last().unwrap().started.duration_since(requests[1].started);
    assert_eq!(rig.calls(SimUpstream::MindBridge), requests.len());
    rig.assert_well_behaved();
    (requests.len(), span)
}

#[tokio::test]
async fn a_thousand_sockets_cause_the_upstream_calls_of_one() {
    for watchers in [1, 1_000] {
        let (calls, span) = polls_of_a_job(watchers).await;
        assert_eq!(calls, 6, "{watchers} watchers");
        // with more fetches, the sixth would have come earlier
        assert!(span >= PACE.mul_f64(LEAST) * 4, "{watchers} watchers: four intervals took {span:?}");
    }
}

/// Nothing is open, nothing is followed, and no call is made any more.
async fn comes_to_rest(rig: &Rig, within: Duration) {
    settles("every stream is closed", within, || rig.serving.streams() == StreamCounts::default()).await;
    settles("no job is followed", within, || rig.serving.followed() == 0).await;
    // a call in flight may still arrive
    let mut rests = false;
    for _ in 0..10 {
        let calls = rig.upstreams.record().len();
        rests = rests || timeout(PACE * 3, rig.upstreams.wait_for_requests(calls + 1)).await.is_err();
    }
    assert!(rests, "upstream calls continue");
}

#[tokio::test]
async fn a_thousand_connection_resets_leak_no_stream_or_watch() {
    let ids: Vec<String> = (0..20).map(|number| format!("job{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let rig = rig(&ids, LONG_TIMEOUT).await;
    let mut watching = crowd(rig.public, 1_000, &ids).await;
    all_receive(&mut watching, "SNAPSHOT RUNNING").await;
    let held = rig.serving.streams();
    assert_eq!((held.websocket, held.sse, rig.serving.followed()), (500, 500, 20));
    watching.into_iter().for_each(Watcher::reset);
    comes_to_rest(&rig, UNSUBSCRIBE_GRACE + SLACK).await;
}

/// They stay connected and read nothing: a machine that is suspended, or a tab that hangs.
#[tokio::test]
async fn a_socket_without_pongs_is_closed_after_two_pings() {
    let rig = rig(&["left", "kept"], "ping_interval: 2s").await;
    let mut lively = Watcher::open(rig.public, WebSocket, &["kept"]).await;
    assert_eq!(lively.short().await, "SNAPSHOT RUNNING");
    let alone = async {
        // each stops reading after its snapshot
        let silent = join_all((0..100).map(async |_| {
            let mut silent = Watcher::open(rig.public, WebSocket, &["left"]).await;
            assert_eq!(silent.short().await, "SNAPSHOT RUNNING");
            silent
        }))
        .await;
        let within = Duration::from_secs(2 + 12 + 12) + SLACK;
        settles("the unresponsive clients are disconnected", within, || rig.serving.streams().websocket == 1)
            .await;
        settles("their job is not followed any more", UNSUBSCRIBE_GRACE + SLACK, || {
            rig.serving.followed() == 1
        })
        .await;
        drop(silent);
    };
    // a client that reads answers pings, and stays; a late poll may be delivered meanwhile
    let stays = lively.until_over();
    tokio::select! {
        () = alone => {}
        over = stays => panic!("a client that answers pings was disconnected: {over:?}"),
    }
    drop(lively);
    comes_to_rest(&rig, UNSUBSCRIBE_GRACE + SLACK).await;
}

/// An event stream has no ping: the maximum age limits a peer that reads nothing and stays connected.
#[tokio::test]
async fn an_unread_event_stream_ends_at_its_maximum_age() {
    let rig = rig(&["left"], "max_age: 1s").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Watcher::open(rig.public, Sse, &["left"]).await);
    }
    comes_to_rest(&rig, Duration::from_millis(1_200) + UNSUBSCRIBE_GRACE + SLACK).await;
    drop(silent);
}
