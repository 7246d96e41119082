//! Streams while the upstream fails, and while their reader stalls: they stay open, report it, and lose nothing.

use std::time::Duration;

use jobgate_simulator::{
    Addresses, FaultKind, MindBridgeJob, MindBridgeStep, RetryAfter, SimFault, SimUpstream, Simulator,
};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{Setup, TOKEN};
use crate::support::streams::{Sse, StreamEvent, Watcher, WebSocket, all_receive, crowd, settles};

const FOLLOW: &str = "poll: { min_interval: 200ms, max_interval: 1s, unsubscribe_grace: 300ms }";
/// Timeouts for a machine without CPU time: nothing here is about how long these take.
const LONG_TIMEOUT: &str =
    "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 5m, idle_timeout: 1h }";
const SOURCE: &str = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 4m";

fn setup() -> Setup {
    let running = |id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]);
    let rest = format!("{LONG_TIMEOUT}\n{FOLLOW}");
    Setup { source: SOURCE, rest, ..Setup::with(vec![running("a"), running("other")], Vec::new()) }
}

#[tokio::test]
async fn an_outage_marks_streams_stale_and_disconnects_none() {
    let rig = setup().start().await;
    let mut watching = crowd(rig.public, 20, &["a"]).await;
    all_receive(&mut watching, "SNAPSHOT RUNNING").await;
    for outage in [FaultKind::html(502), FaultKind::CloseBeforeHeaders] {
        rig.upstreams.push_fault(SimFault::always(SimUpstream::MindBridge, outage));
        all_receive(&mut watching, "CHANGED RUNNING, stale: UNAVAILABLE").await;
        rig.upstreams.clear_faults(None);
        all_receive(&mut watching, "CHANGED RUNNING").await;
    }
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for watcher in watching {
        assert_eq!(watcher.rest().await, ["ENDED SUCCEEDED", "complete"]);
    }
}

#[tokio::test]
async fn a_throttled_source_is_not_called_until_retry_after() {
    // so long that it is not over before the other job is requested
    let pause = Duration::from_secs(15);
    let rig = setup().start().await;
    let mut watching = crowd(rig.public, 20, &["a"]).await;
    all_receive(&mut watching, "SNAPSHOT RUNNING").await;
    let throttled = FaultKind::throttled(Some(RetryAfter::Seconds(pause.as_secs())));
    rig.upstreams.push_fault(SimFault::next(SimUpstream::MindBridge, 1, throttled));
    all_receive(&mut watching, "CHANGED RUNNING, stale: THROTTLED").await;
    // not even for a request for another job
    assert!(rig.lookup("mind", "other").await.starts_with("THROTTLED after"));
    all_receive(&mut watching, "CHANGED RUNNING").await;
    let requests = rig.upstreams.record();
    let refused = requests.iter().position(|requests| requests.status == Some(429)).unwrap();
    let quiet = requests[refused + 1].started.duration_since(requests[refused].ended.unwrap());
    assert!(quiet >= pause, "fetched again after {quiet:?}");
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for watcher in watching {
        assert_eq!(watcher.rest().await, ["ENDED SUCCEEDED", "complete"]);
    }
}

/// The size of a ping frame.
const PING: usize = 2;

#[tokio::test]
async fn a_socket_is_closed_after_two_missed_pings_and_not_one() {
    let mut setup = setup();
    setup.rest = format!("{LONG_TIMEOUT}\n{FOLLOW}\nstreams: {{ ping_interval: 2s }}");
    let rig = setup.start().await;
    let mut still = Watcher::open(rig.public, WebSocket, &["a"]).await;
    let mut dead = Watcher::open(rig.public, WebSocket, &["other"]).await;
    assert_eq!(still.short().await, "SNAPSHOT RUNNING");
    assert_eq!(dead.short().await, "SNAPSHOT RUNNING");
    // neither has read since: the first ping is overdue, and the second is sent
    still.unread(2 * PING).await;
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    assert_eq!(still.rest().await, ["ENDED SUCCEEDED", "complete"]);
    settles("the unresponsive peer is disconnected", Duration::from_mins(2), || {
        rig.serving.streams().websocket == 0
    })
    .await;
    dead.unread(2 * PING).await;
}

/// Jobs that change at once, and what each change adds to an answer, in bytes.
const JOBS: [&str; 5] = ["a", "b", "c", "d", "e"];
const WEIGHT: usize = 100_000;
const CHANGES: usize = 36;

fn change(number: usize, status: &str) -> MindBridgeStep {
    let error = Some(format!("{number} {}", "x".repeat(WEIGHT)));
    MindBridgeStep { error, ..MindBridgeStep::new(status) }
}

/// The number of the change in an update.
fn number(update: &Value) -> Option<usize> {
    update["result"]["error"].as_str()?.split(' ').next()?.parse().ok()
}

fn place(update: &Value) -> usize {
    let id = update["result"]["externalId"].as_str().unwrap();
    JOBS.iter().position(|job| *job == id).unwrap()
}

/// The parts of an update that matter here.
#[derive(Debug)]
struct StalledUpdate {
    /// The position of its job.
    place: usize,
    sequence: u64,
    is_final: bool,
    /// The number of its change.
    number: Option<usize>,
}

/// What the process and four readers showed that did not read while jobs changed.
#[derive(Debug)]
struct StalledOutcome {
    /// How much the memory grew over the last two thirds, in bytes.
    grown: u64,
    /// What each reader received: the updates, and the event after them.
    received: Vec<(Vec<StalledUpdate>, StreamEvent)>,
    code: Option<i32>,
}

/// The outcome of one run, which takes long, for the tests of stalled readers.
async fn stalled() -> &'static StalledOutcome {
    static RUN: OnceCell<StalledOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(stall())).await
}

async fn stall() -> StalledOutcome {
    let mut setup = setup();
    setup.scenario.mindbridge.jobs =
        JOBS.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).collect();
    setup.rest = format!(
        "{LONG_TIMEOUT}\npoll: {{ min_interval: 100ms, max_interval: 1s }}\n\
         streams: {{ ping_interval: 1h }}"
    );
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let upstreams = simulator.handle();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    // each thread may keep memory that it has freed: with one thread per core that would be counted
    let few = [("TOKIO_WORKER_THREADS", "2"), ("MALLOC_ARENA_MAX", "2")];
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", "k"), few[0], few[1]];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let public = gateway.address("public").await;

    let mut stopped = Vec::new();
    for carrier in [WebSocket, Sse, WebSocket, Sse] {
        stopped.push(Watcher::narrow(public, carrier, &JOBS).await);
    }
    let mut reader = Watcher::open(public, WebSocket, &JOBS).await;
    let mut early = 0;
    for round in 0..CHANGES {
        for id in JOBS {
            upstreams.set_state(id, change(round, "IN_PROGRESS")).unwrap();
        }
        let mut behind = JOBS.len();
        while behind > 0 {
            behind -= usize::from(number(&reader.update().await) == Some(round));
        }
        if round == CHANGES / 3 {
            early = gateway.resident();
        }
    }
    let grown = gateway.resident().saturating_sub(early);
    for id in JOBS {
        upstreams.set_state(id, change(CHANGES, "COMPLETE")).unwrap();
    }
    let mut received = Vec::new();
    for mut watcher in stopped {
        let (mut updates, mut event) = (Vec::new(), watcher.receive().await);
        while let StreamEvent::Update(update) = event {
            updates.push(StalledUpdate {
                place: place(&update),
                sequence: update["sequence"].as_u64().unwrap(),
                is_final: update["isFinal"].as_bool().unwrap(),
                number: number(&update),
            });
            event = watcher.receive().await;
        }
        received.push((updates, event));
    }
    gateway.signal("TERM").await;
    StalledOutcome { grown, received, code: gateway.ended().await.0.code() }
}

/// 18 MB for four readers that do not read, three times what the system would buffer for one. If the gateway had a
/// queue for each, it would grow by more than 40 MB over the last two thirds.
#[tokio::test]
async fn a_stalled_reader_uses_bounded_memory() {
    let grown = stalled().await.grown;
    assert!(grown < 24 << 20, "{grown} bytes more for readers who do not read");
}

#[tokio::test]
async fn a_stalled_reader_gets_the_latest_update_of_each_job() {
    for (updates, event) in &stalled().await.received {
        let mut last: [(u64, bool); JOBS.len()] = Default::default();
        for StalledUpdate { place, sequence, is_final, number } in updates {
            let at = &mut last[*place];
            assert!(*sequence > at.0 && !at.1, "{sequence} behind {at:?}");
            *at = (*sequence, *is_final);
            assert_eq!(at.1, *number == Some(CHANGES), "the last update is the newest, and final");
        }
        assert_eq!((event, last.map(|at| at.1)), (&StreamEvent::Complete, [true; JOBS.len()]));
        assert!(updates.len() < CHANGES * JOBS.len() / 2, "{} updates: it was not behind", updates.len());
    }
}

#[tokio::test]
async fn a_stalled_reader_does_not_prevent_a_clean_exit() {
    assert_eq!(stalled().await.code, Some(0));
}
