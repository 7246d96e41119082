//! Kills the real process in the middle of its work, repeatedly, and counts the results that it had reported and lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use jobgate_simulator::{Addresses, Handle, MindBridgeJob, MindBridgeStep, SimUpstream, Simulator};
use serde_json::json;

use super::process::Process;
use super::scratch::Scratch;
use super::server::{ANY, KEY, Setup, TOKEN, describe, external};
use super::wire;

/// Jobs that complete between two kills, and the number of jobs in one request.
const JOBS: usize = 400;
const AT_ONCE: usize = 10;
/// Requests in progress at the moment of the kill.
const UNDER_WAY: usize = 8;
/// The reported results of this many kills are read again after each kill; all of them are read after the last.
const ROUNDS_CHECKED: usize = 3;

const SECRETS: [(&str, &str); 2] = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) kills: usize,
    /// Terminal states that a client received.
    pub(crate) checked: usize,
    /// Those of them that the next process did not know, or reported differently.
    pub(crate) lost: Vec<String>,
    /// Tracked jobs that the next process polled without a request.
    pub(crate) followed: usize,
    /// Files that were quarantined as damaged.
    pub(crate) quarantined: usize,
}

/// A folder that is removed with its value.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("jobgate-test-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// The configuration of a gateway that stores its jobs in this folder.
pub(crate) fn keeping(folder: &Path, simulator: &Simulator) -> Scratch {
    let rest = format!("store: {{ kind: embedded, path: \"{}\" }}", folder.display());
    let setup = Setup { rest, ..Setup::default() };
    Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()))
}

/// Starts the gateway.
pub(crate) async fn serve(config: &Scratch) -> (Process, SocketAddr) {
    let mut gateway = Process::start(&["serve", "--config", config.path()], &SECRETS);
    let address = gateway.address("public").await;
    (gateway, address)
}

/// A completed job, succeeded or failed, with a text that no other job has.
pub(crate) fn ended(id: &str) -> MindBridgeJob {
    let mut job = MindBridgeJob::new(id, &[(0, "ERROR")]);
    job.steps =
        vec![MindBridgeStep { error: Some(format!("the end of {id}")), ..MindBridgeStep::new("ERROR") }];
    job
}

/// Reads jobs of one source; returns a short description of each.
pub(crate) async fn execute(address: SocketAddr, ids: Vec<String>) -> Vec<(String, String)> {
    let refs: Vec<_> = ids.iter().map(|id| external("mind", id)).collect();
    let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs) {ANY} }}");
    let answer = wire::post(address, None, &json!({ "query": query, "variables": { "refs": refs } })).await;
    let words: Vec<String> = answer.data()["jobs"].as_array().unwrap().iter().map(describe).collect();
    ids.into_iter().zip(words).collect()
}

/// Kills a gateway `kills` times, each time after it reported some results and while it is about to report more.
pub(crate) async fn run(kills: usize, mut progress: impl FnMut(&Outcome) + Send) -> Outcome {
    let folder = Folder::new();
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let upstreams = simulator.handle();
    let config = keeping(&folder.0, &simulator);
    let follow = format!(
        "{}poll: {{ min_interval: 1s, max_interval: 1s }}\n",
        std::fs::read_to_string(config.path()).unwrap()
    );
    std::fs::write(config.path(), follow).unwrap();
    let mut rounds: Vec<BTreeMap<String, String>> = Vec::new();
    let mut outcome = Outcome::default();
    for kill in 0..kills {
        let ids: Vec<String> = (0..JOBS).map(|number| format!("k{kill}n{number}")).collect();
        for id in &ids {
            upstreams.add_job(ended(id));
        }
        let (gateway, address) = serve(&config).await;
        check(address, rounds.iter().rev().take(ROUNDS_CHECKED), &mut outcome).await;
        if let Some(before) = kill.checked_sub(1) {
            outcome.followed += usize::from(follows(&upstreams, &tracked(before)).await);
        }
        track(address, &upstreams, &tracked(kill)).await;
        let mut states = BTreeMap::new();
        let enough = fastrand::usize(1..JOBS - UNDER_WAY * AT_ONCE);
        let batches = stream::iter(ids.chunks(AT_ONCE).map(<[String]>::to_vec));
        let mut asking = batches.map(|ids| execute(address, ids)).buffer_unordered(UNDER_WAY).boxed();
        while states.len() < enough {
            states.extend(asking.next().await.unwrap());
        }
        gateway.signal("KILL").await;
        drop(asking);
        gateway.ended().await;
        upstreams.clear_record();
        // from here on a result is known only to a process that stored it
        for id in &ids {
            upstreams.forget(SimUpstream::MindBridge, id);
        }
        outcome.kills += 1;
        outcome.checked += states.len();
        rounds.push(states);
        progress(&outcome);
    }
    let (gateway, address) = serve(&config).await;
    if let Some(last) = kills.checked_sub(1) {
        outcome.followed += usize::from(follows(&upstreams, &tracked(last)).await);
    }
    outcome.lost.clear();
    check(address, rounds.iter(), &mut outcome).await;
    gateway.signal("TERM").await;
    gateway.ended().await;
    let files = std::fs::read_dir(&folder.0).unwrap();
    outcome.quarantined = files.count() - 1;
    simulator.stop().await;
    outcome
}

/// The job that is tracked before a kill.
fn tracked(kill: usize) -> String {
    format!("t{kill}")
}

async fn track(address: SocketAddr, upstreams: &Handle, id: &str) {
    upstreams.add_job(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let query = "mutation($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) { __typename } }";
    let variables = json!({ "refs": [external("mind", id)] });
    wire::post(address, None, &json!({ "query": query, "variables": variables })).await.data();
}

/// Whether a job is polled without a request. The job completes then, so that polling stops.
async fn follows(upstreams: &Handle, id: &str) -> bool {
    let is_fetched = || upstreams.record().iter().any(|request| request.ids.iter().any(|one| one == id));
    let mut again = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..6_000 {
        again.tick().await;
        if is_fetched() {
            upstreams.set_state(id, MindBridgeStep::new("COMPLETE")).unwrap();
            return true;
        }
    }
    false
}

/// Reads the reported results again, and notes those that differ.
async fn check(
    address: SocketAddr,
    rounds: impl Iterator<Item = &BTreeMap<String, String>>,
    outcome: &mut Outcome,
) {
    for round in rounds {
        let ids: Vec<String> = round.keys().cloned().collect();
        for some in ids.chunks(100) {
            for (id, now) in execute(address, some.to_vec()).await {
                if round.get(&id) != Some(&now) {
                    outcome.lost.push(format!("{id} was {:?} and is {now:?}", round.get(&id)));
                }
            }
        }
    }
}
