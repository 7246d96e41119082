//! Two hundred rotations under load: queries without a pause, and streams that stay open.

use std::time::Duration;

use futures_util::future::join_all;
use jobgate_simulator::{Auth, MindBridgeStep, RecordedRequest, SimUpstream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, MissedTickBehavior};

use super::{EVERY, Mounted, lookup, serve, settled_state, upstreams};
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, TOKEN};
use crate::support::streams::{Sse, StreamEvent, Watcher, WebSocket};

/// How soon after a change the old value is unused.
const PROMISE: Duration = Duration::from_secs(5);
/// Each awaited change is active within this time, even on a busy machine.
const IN_TIME: Duration = Duration::from_secs(30);
const ROTATIONS: usize = 200;
/// The last of this many changes is awaited: how many of them take effect depends on the machine.
const FEW: usize = 8;

/// What clients and upstreams observed over the rotations.
#[derive(Debug)]
struct Outcome {
    /// The number of requests of each client.
    counts: Vec<usize>,
    /// Answers other than the state of the job.
    failed: Vec<String>,
    record: Vec<RecordedRequest>,
    /// Awaited credentials, and since when each was active.
    active: Vec<(usize, Instant)>,
    /// How long it took from each awaited replacement until it was active.
    took: Vec<Duration>,
    /// The last event of each stream.
    ends: Vec<StreamEvent>,
    /// The state of the credential in the end.
    state: String,
    log: String,
}

/// The outcome of one run, which takes long, for all tests of this file.
async fn outcome() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(rotate_under_load())).await
}

/// The timer is slow here, so that the folder watch finds each replacement.
async fn rotate_under_load() -> Outcome {
    let simulator = upstreams().await;
    let upstream = simulator.handle();
    let mut mounted = Mounted::new(Some(TOKEN));
    let key = Scratch::new(KEY);
    let rest = "credentials: { reload_interval: 1m }";
    let (gateway, address) = serve(&simulator, [&mounted.path(), key.path()], rest).await;
    let mut watchers = Vec::new();
    for carrier in [WebSocket, Sse] {
        let mut watcher = Watcher::open(address, carrier, &["watched"]).await;
        assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
        watchers.push(watcher);
    }

    // The active credential, and since when. A probe comes before that, and alone.
    let mut active: Vec<(usize, Instant)> = Vec::new();
    let mut took = Vec::new();
    let is_in_force = |number: usize| {
        let record = upstream.record_of(SimUpstream::MindBridge);
        record.iter().filter(|request| request.credential == Some(number)).count() > 3
    };
    let (done, over) = tokio::sync::watch::channel(false);
    let rotate = async {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 1..=ROTATIONS {
            tick.tick().await;
            let token = format!("token-of-round-{number}");
            assert_eq!(upstream.also_accept(SimUpstream::MindBridge, &token), number);
            mounted.swap(&token);
            let swapped = Instant::now();
            if number.is_multiple_of(FEW) {
                let settled = async {
                    while !is_in_force(number) {
                        tick.tick().await;
                    }
                };
                if tokio::time::timeout(IN_TIME, settled).await.is_ok() {
                    active.push((number, Instant::now()));
                }
                took.push(swapped.elapsed());
            }
            // a credential that was replaced longer ago than promised is not accepted any more
            let old = active.iter().rev().find(|(_, at)| at.elapsed() > PROMISE);
            let old = old.map_or(0, |(number, _)| *number);
            (0..old).for_each(|old| upstream.revoke(SimUpstream::MindBridge, old));
        }
        done.send_replace(true);
    };
    let execute = |source: &'static str, id: &'static str| {
        let over = over.clone();
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut count, mut failed) = (0, Vec::new());
            while !*over.borrow() || count <= 10 {
                tick.tick().await;
                let answer = lookup(address, source, id).await;
                if answer != "RUNNING" {
                    failed.push(format!("{source} {id}, request {count}: {answer}"));
                }
                count += 1;
            }
            (count, failed)
        }
    };
    let load =
        join_all([execute("mind", "a"), execute("mind", "b"), execute("mind", "a"), execute("metrics", "q")]);
    let ((), clients) = tokio::join!(rotate, load);
    let (counts, failed): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
    let record = upstream.record_of(SimUpstream::MindBridge);

    upstream.set_state("watched", MindBridgeStep::new("COMPLETE")).unwrap();
    let mut ends = Vec::new();
    for mut watcher in watchers {
        let mut event = watcher.receive().await;
        while matches!(event, StreamEvent::Update(_)) {
            event = watcher.receive().await;
        }
        ends.push(event);
    }
    let state = settled_state(address, "mind", "ACTIVE").await;
    Outcome { counts, failed: failed.concat(), record, active, took, ends, state, log: gateway.output() }
}

#[tokio::test]
async fn two_hundred_rotations_under_load_fail_no_request() {
    let outcome = outcome().await;
    assert_eq!(outcome.failed, [""; 0]);
    assert!(outcome.counts.iter().all(|count| *count > 10), "{:?} requests", outcome.counts);
    for request in &outcome.record {
        assert_eq!(
            (request.auth, request.status),
            (Auth::Bearer, request.status.filter(|it| *it != 401)),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn two_hundred_rotations_under_load_close_no_stream() {
    let ends = &outcome().await.ends;
    assert!(ends.iter().all(|end| *end == StreamEvent::Complete), "{ends:?}");
}

#[tokio::test]
async fn a_replaced_secret_is_active_within_five_seconds() {
    let mut took = outcome().await.took.clone();
    took.sort_unstable();
    // the median, since a machine may be suspended now and then
    assert!(took[took.len() / 2] < PROMISE, "from the replacement until it is active: {took:?}");
    assert!(took.iter().all(|took| *took < IN_TIME), "one was not active in time: {took:?}");
}

#[tokio::test]
async fn a_replaced_credential_is_unused_after_five_seconds() {
    let outcome = outcome().await;
    for request in &outcome.record {
        let number = request.credential.unwrap();
        let replaced = outcome.active.iter().find(|(newer, _)| *newer > number);
        assert!(replaced.is_none_or(|(_, at)| request.started <= *at + PROMISE), "{request:?}");
    }
}

#[tokio::test]
async fn two_hundred_rotations_leave_the_credential_active() {
    assert_eq!(outcome().await.state, "ACTIVE");
}

#[tokio::test]
async fn two_hundred_rotations_log_no_secret() {
    let log = &outcome().await.log;
    assert!(!log.contains("token-of-round"), "{log}");
}
