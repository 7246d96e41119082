//! `jobFeed` after a cursor, over both transports: what was missed follows once, or the feed reports that it does not.

use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, Scenario, Simulator};
use serde_json::Value;

use crate::support::crashes;
use crate::support::scratch::ScratchFolder;
use crate::support::server::{Rig, Setup};
use crate::support::streams::{Carrier, Sse, Watcher, WebSocket};

fn jobs() -> Vec<MindBridgeJob> {
    ["a", "b", "c", "d"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).to_vec()
}

/// Reads a job from the upstream, which the feed reports if it changed.
async fn fetch(rig: &Rig, id: &str) {
    rig.lookup_within("mind", id, Some("0s")).await;
}

/// The kind of an update, its job and its state.
fn short(update: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let result = &update["result"];
    format!("{} {} {}", text(&update["kind"]), text(&result["externalId"]), text(&result["state"]))
}

fn cursor(update: &Value) -> String {
    update["cursor"].as_str().unwrap().to_owned()
}

/// A feed that has begun.
async fn begun(rig: &Rig, carrier: Carrier) -> Watcher {
    let mut feed = Watcher::feed_after(rig.public, carrier, "unknown").await;
    assert_eq!(short(&feed.update().await), "RESET - -");
    feed
}

#[tokio::test]
async fn a_resumed_feed_delivers_each_missed_change_once() {
    for carrier in [WebSocket, Sse] {
        let rig = Setup::with(jobs(), Vec::new()).start().await;
        let mut feed = begun(&rig, carrier).await;
        fetch(&rig, "a").await;
        fetch(&rig, "b").await;
        let first = feed.update().await;
        assert_eq!(short(&first), "CHANGED a RUNNING");
        drop(feed);
        fetch(&rig, "c").await;
        rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
        fetch(&rig, "a").await;
        let mut feed = Watcher::feed_after(rig.public, carrier, &cursor(&first)).await;
        let begin = feed.update().await;
        assert_eq!((short(&begin), cursor(&begin)), ("RESUMED - -".to_owned(), cursor(&first)));
        let mut last = Value::Null;
        for expected in ["CHANGED b RUNNING", "CHANGED c RUNNING", "ENDED a SUCCEEDED"] {
            last = feed.update().await;
            assert_eq!(short(&last), expected, "{carrier:?}");
        }
        fetch(&rig, "d").await;
        assert_eq!(short(&feed.update().await), "CHANGED d RUNNING", "{carrier:?}: nothing twice");
        drop(feed);
        let mut feed = Watcher::feed_after(rig.public, carrier, &cursor(&last)).await;
        assert_eq!(short(&feed.update().await), "RESUMED - -");
        assert_eq!(short(&feed.update().await), "CHANGED d RUNNING");
    }
}

#[tokio::test]
async fn the_event_id_of_a_feed_is_its_cursor() {
    let rig = Setup::with(jobs(), Vec::new()).start().await;
    let mut feed = begun(&rig, Sse).await;
    let begin = feed.last_event_id().unwrap().to_owned();
    fetch(&rig, "a").await;
    let update = feed.update().await;
    assert_eq!(feed.last_event_id(), Some(&*cursor(&update)));
    assert!(begin != cursor(&update) && begin.len() == 32, "{begin}");
}

#[tokio::test]
async fn an_unknown_cursor_resets_the_feed() {
    let rig = Setup::with(jobs(), Vec::new()).start().await;
    let other = Setup::with(jobs(), Vec::new()).start().await;
    let mut of_other = begun(&other, WebSocket).await;
    fetch(&other, "a").await;
    let of_other = cursor(&of_other.update().await);
    fetch(&rig, "a").await;
    let long = "f".repeat(5_000);
    for carrier in [WebSocket, Sse] {
        for unknown in [of_other.as_str(), "0", &long, &"f".repeat(32), "+f0000000000000000000000000000000"] {
            let mut feed = Watcher::feed_after(rig.public, carrier, unknown).await;
            let begin = feed.update().await;
            assert_eq!(short(&begin), "RESET - -", "{carrier:?} {unknown}");
            let mut feed = Watcher::feed_after(rig.public, carrier, &cursor(&begin)).await;
            assert_eq!(short(&feed.update().await), "RESUMED - -", "the cursor of the reset is known");
        }
    }
}

#[tokio::test]
async fn a_restart_resets_the_feed() {
    let mut scenario = Scenario::default();
    scenario.mindbridge.jobs = jobs();
    let simulator = Simulator::start(scenario, Addresses::ephemeral()).await.unwrap();
    let folder = ScratchFolder::new();
    let config = crashes::keeping(folder.path(), &simulator);
    for carrier in [WebSocket, Sse] {
        let (gateway, address) = crashes::serve(&config).await;
        let mut feed = Watcher::feed_after(address, carrier, "unknown").await;
        let before = cursor(&feed.update().await);
        gateway.signal("KILL").await;
        gateway.ended().await;
        let (gateway, address) = crashes::serve(&config).await;
        let mut feed = Watcher::feed_after(address, carrier, &before).await;
        let begin = feed.update().await;
        assert_eq!(short(&begin), "RESET - -", "{carrier:?}");
        let mut feed = Watcher::feed_after(address, carrier, &cursor(&begin)).await;
        assert_eq!(short(&feed.update().await), "RESUMED - -", "{carrier:?}");
        gateway.signal("KILL").await;
        gateway.ended().await;
    }
}
