//! Random histories of the simulated upstreams, behind the real adapters: each job is discovered, and reaches the terminal
//! state that it has upstream, once.

use std::collections::BTreeMap;
use std::time::Duration;

use jobgate_simulator::{MindBridgeJob, SimList, SupermetricsJob};
use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::server::Setup;
use crate::support::streams::{Sse, Watcher};

/// A job: when it begins and how long it runs, in seconds, and whether it succeeds.
type Life = (u64, u64, bool);

/// The jobs of both upstreams, how many seconds later a change is listed than it happens, and how far pages shift.
#[derive(Clone, Debug)]
struct History {
    mind: Vec<Life>,
    metrics: Vec<Life>,
    delay: u64,
    shift: u32,
}

fn history() -> impl Strategy<Value = History> {
    let life = || (0_u64..5, 3_u64..8, any::<bool>());
    let of = |most| proptest::collection::vec(life(), 1..most);
    (of(40), of(12), 0_u64..3, 0_u32..3).prop_map(|(mind, metrics, delay, shift)| History {
        mind,
        metrics,
        delay,
        shift,
    })
}

/// Runs one history, and compares what a feed received with the truth.
async fn run(history: &History) {
    let mut setup = Setup::default();
    let delay = Duration::from_secs(history.delay);
    setup.scenario.mindbridge.list = SimList { delay, shift: history.shift, ..SimList::default() };
    setup.scenario.supermetrics.list = SimList { shift: history.shift, ..SimList::default() };
    setup.mind = ", discovery: { enabled: true }";
    setup.metrics = ", discovery: { enabled: true, data_sources: [GAWA] }";
    "poll: { min_interval: 100ms, max_interval: 1s, verify_interval: 1m }".clone_into(&mut setup.rest);
    let rig = setup.start().await;
    let mut feed = Watcher::feed(rig.public, Sse).await;
    let (sender, mut updates) = tokio::sync::mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "a task of the test")]
    let reads = tokio::spawn(async move { while sender.send(feed.update().await).is_ok() {} });
    let mut truth: BTreeMap<String, &str> = BTreeMap::new();
    for (number, (begins, runs, succeeds)) in history.mind.iter().enumerate() {
        let id = format!("m{number}");
        let (end, state) = if *succeeds { ("COMPLETE", "SUCCEEDED") } else { ("ERROR", "FAILED") };
        rig.upstreams.add_job(MindBridgeJob::new(&id, &[(*begins, "IN_PROGRESS"), (begins + runs, end)]));
        truth.insert(id, state);
    }
    for (number, (begins, runs, succeeds)) in history.metrics.iter().enumerate() {
        let id = format!("q{number}");
        let (end, state) = if *succeeds { ("SUCCESS", "SUCCEEDED") } else { ("STOPPED", "CANCELED") };
        rig.upstreams.add_job(SupermetricsJob::new(&id, &[(*begins, "RUNNING"), (begins + runs, end)]));
        truth.insert(id, state);
    }
    let all_ended = Instant::now() + Duration::from_secs(15);
    let mut seen: BTreeMap<String, Option<String>> = BTreeMap::new();
    loop {
        // On a machine without CPU time no list may contain a short query: what no list contained is not discovered.
        let is_over = |(id, _): (&String, _)| match seen.get(id) {
            Some(end) => end.is_some(),
            None => id.starts_with('q') && Instant::now() > all_ended,
        };
        if truth.iter().all(is_over) {
            break;
        }
        let Ok(update) = tokio::time::timeout(Duration::from_secs(1), updates.recv()).await else { continue };
        let update = update.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, state) = (text(&update["result"]["externalId"]), text(&update["result"]["state"]));
        assert_ne!(seen.get(&id).map(Option::is_some), Some(true), "{id} after its end: {update}");
        let ends = (update["kind"] == "ENDED").then_some(state);
        seen.insert(id, ends);
    }
    for (id, end) in seen {
        assert_eq!(end.as_deref(), truth.get(&id).copied(), "{id}");
    }
    reads.abort();
    rig.assert_well_behaved();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn discovered_jobs_reach_the_state_that_they_have_upstream(history in history()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(run(&history));
    }
}
