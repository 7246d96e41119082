//! What streams do when the upstream is in trouble, and when their reader stops: they stay, say so, and lose nothing.

use std::time::Duration;

use jobgate::simulator::{
    Addresses, Fault, FaultKind, MindBridgeJob, MindBridgeStep, RetryAfter, Simulator, Upstream,
};
use serde_json::Value;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{Setup, TOKEN};
use crate::support::streams::{Heard, Sse, Watcher, WebSocket, all_hear, crowd, settles};

const FOLLOW: &str = "poll: { min_interval: 200ms, max_interval: 1s, unsubscribe_grace: 300ms }";
/// What a machine without air needs: nothing here is about how long these take.
const PATIENT: &str =
    "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 5m, write_timeout: 1h }";
const SOURCE: &str = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 4m";

fn setup() -> Setup {
    let running = |id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]);
    let rest = format!("{PATIENT}\n{FOLLOW}\nstreams: {{ init_timeout: 1m }}");
    Setup { source: SOURCE, rest, ..Setup::with(vec![running("a"), running("other")], Vec::new()) }
}

#[tokio::test]
async fn an_outage_disconnects_nobody_and_is_told_and_taken_back() {
    let rig = setup().start().await;
    let mut watching = crowd(rig.public, 20, &["a"]).await;
    all_hear(&mut watching, "SNAPSHOT RUNNING").await;
    for outage in [FaultKind::html(502), FaultKind::CloseBeforeHeaders] {
        rig.upstreams.push_fault(Fault::always(Upstream::MindBridge, outage));
        all_hear(&mut watching, "CHANGED RUNNING, stale: UNAVAILABLE").await;
        rig.upstreams.clear_faults(None);
        all_hear(&mut watching, "CHANGED RUNNING").await;
    }
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for watcher in watching {
        assert_eq!(watcher.rest().await, ["ENDED SUCCEEDED", "complete"]);
    }
}

#[tokio::test]
async fn a_throttled_source_is_left_alone_for_as_long_as_it_says_while_streams_stay() {
    // so long that it is not over before the other job was asked about
    let pause = Duration::from_secs(15);
    let rig = setup().start().await;
    let mut watching = crowd(rig.public, 20, &["a"]).await;
    all_hear(&mut watching, "SNAPSHOT RUNNING").await;
    let throttled = FaultKind::throttled(Some(RetryAfter::Seconds(pause.as_secs())));
    rig.upstreams.push_fault(Fault::next(Upstream::MindBridge, 1, throttled));
    all_hear(&mut watching, "CHANGED RUNNING, stale: THROTTLED").await;
    // not even for somebody who asks about another job
    assert!(rig.look("mind", "other").await.starts_with("THROTTLED after"));
    all_hear(&mut watching, "CHANGED RUNNING").await;
    let asked = rig.upstreams.record();
    let refused = asked.iter().position(|asked| asked.status == Some(429)).unwrap();
    let quiet = asked[refused + 1].started.duration_since(asked[refused].ended.unwrap());
    assert!(quiet >= pause, "asked again after {quiet:?}");
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for watcher in watching {
        assert_eq!(watcher.rest().await, ["ENDED SUCCEEDED", "complete"]);
    }
}

/// A ping without an answer, and what its frame takes.
const PING: usize = 2;

#[tokio::test]
async fn who_stands_still_past_a_ping_hears_the_end_and_a_dead_peer_is_let_go_after_two() {
    let mut setup = setup();
    setup.rest =
        format!("{PATIENT}\n{FOLLOW}\nstreams: {{ init_timeout: 1m, ping_interval: 1s, pong_timeout: 12s }}");
    let rig = setup.start().await;
    let mut still = Watcher::open(rig.public, WebSocket, &["a"]).await;
    let mut dead = Watcher::open(rig.public, WebSocket, &["other"]).await;
    assert_eq!(still.short().await, "SNAPSHOT RUNNING");
    assert_eq!(dead.short().await, "SNAPSHOT RUNNING");
    // both have read nothing since: the first ping is overdue, and the second is sent
    still.unread(2 * PING).await;
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    assert_eq!(still.rest().await, ["ENDED SUCCEEDED", "complete"]);
    settles("the dead peer is gone", Duration::from_mins(2), || rig.serving.streams().websocket == 0).await;
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

/// The number of the change that an update shows.
fn number(update: &Value) -> Option<usize> {
    update["result"]["error"].as_str()?.split(' ').next()?.parse().ok()
}

fn place(update: &Value) -> usize {
    let id = update["result"]["externalId"].as_str().unwrap();
    JOBS.iter().position(|job| *job == id).unwrap()
}

/// 18 MB pass by four readers that do not read, three times what the system would hold for one. Had the gateway a queue for
/// each, it would grow by more than 40 MB over the last two thirds.
#[tokio::test]
async fn a_reader_who_stopped_costs_bounded_memory_and_wakes_to_the_newest_and_the_end() {
    let mut setup = setup();
    setup.scenario.mindbridge.jobs =
        JOBS.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).collect();
    setup.rest = format!(
        "{PATIENT}\npoll: {{ min_interval: 100ms, max_interval: 1s }}\n\
         streams: {{ init_timeout: 1m, ping_interval: 1h, pong_timeout: 1h }}"
    );
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let upstreams = simulator.handle();
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    // each thread may keep memory that it has freed: as many as the machine has cores would be counted with it
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
    assert!(grown < 24 << 20, "{grown} bytes more for readers who do not read");
    for id in JOBS {
        upstreams.set_state(id, change(CHANGES, "COMPLETE")).unwrap();
    }
    for mut watcher in stopped {
        let mut last: [(u64, bool); JOBS.len()] = Default::default();
        let (mut told, mut heard) = (0, watcher.hear().await);
        while let Heard::Update(update) = heard {
            let (sequence, at) = (update["sequence"].as_u64().unwrap(), &mut last[place(&update)]);
            assert!(sequence > at.0 && !at.1, "{sequence} behind {at:?}");
            *at = (sequence, update["isFinal"].as_bool().unwrap());
            assert_eq!(at.1, number(&update) == Some(CHANGES), "the end is the newest, and told as the end");
            told += 1;
            heard = watcher.hear().await;
        }
        assert_eq!((heard, last.map(|at| at.1)), (Heard::Complete, [true; JOBS.len()]));
        assert!(told < CHANGES * JOBS.len() / 2, "{told} updates: it was not behind");
    }
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.0.code(), Some(0));
}
