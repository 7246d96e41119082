//! Whole processes, stopped and killed repeatedly under load: the parts that the loops share. `cargo bench --bench
//! crashes` runs them at full size, the suite a few iterations of each.

pub(crate) mod convergence;
pub(crate) mod kills;
pub(crate) mod outages;
pub(crate) mod stops;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use jobgate_simulator::{Addresses, Handle, MindBridgeJob, MindBridgeStep, SimUpstream, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::Process;
use super::redis::Redis;
use super::scratch::Scratch;
use super::server::{ANY, KEY, Setup, TOKEN, describe, external};
use super::wire;

/// The limit of every wait: only a hung process reaches it.
const LIMIT: Duration = Duration::from_mins(2);
/// Jobs in one request.
const AT_ONCE: usize = 100;

/// The result of a loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Iterations of the loop.
    pub(crate) tries: usize,
    /// Answers that were checked.
    pub(crate) checked: usize,
    /// The wrong ones, described.
    pub(crate) bad: Vec<String>,
    /// Further measurements.
    pub(crate) notes: Vec<String>,
}

/// The results that clients received for completed jobs: they must never change.
#[derive(Debug, Default)]
pub(crate) struct EventLog(Mutex<BTreeMap<String, String>>);

impl EventLog {
    /// Records what a client received. Returns a message if another client received something else.
    fn note(&self, id: &str, words: &str) -> Option<String> {
        let mut checked = self.0.lock().unwrap();
        let first = checked.entry(id.to_owned()).or_insert_with(|| words.to_owned());
        (first != words).then(|| format!("{id} was {first:?}, and another client received {words:?}"))
    }

    fn all(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().iter().map(|(id, words)| (id.clone(), words.clone())).collect()
    }
}

/// A running `jobgate serve`.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Upstreams, a Redis, and the configuration of the replicas.
pub(crate) struct Site {
    simulator: Simulator,
    pub(crate) upstreams: Handle,
    pub(crate) redis: Redis,
    config: Scratch,
}

impl Site {
    /// With a Redis of these arguments, and leases of this duration.
    pub(crate) async fn new(arguments: &[&str], lease: Duration) -> Self {
        let redis = Redis::with(arguments).await;
        let rest = format!(
            "store: {{ kind: redis, redis: {{ url: {{ env: REDIS_URL }}, record_secret: {{ env: RECORD_SECRET }}, lease: {}s, timeout: 5s }} }}\n\
             poll: {{ min_interval: 1s, max_interval: 2s }}",
            lease.as_secs()
        );
        let setup = Setup { rest, ..Setup::default() };
        let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
        let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
        Self { upstreams: simulator.handle(), simulator, redis, config }
    }

    pub(crate) async fn replica(&self) -> Replica {
        let url = self.redis.url();
        let env = [
            ("MIND_TOKEN", TOKEN),
            ("METRICS_KEY", KEY),
            ("REDIS_URL", url.as_str()),
            ("RECORD_SECRET", "a secret of the loops"),
        ];
        let mut process = Process::start(&["serve", "--config", self.config.path()], &env);
        let (address, admin) = (process.address("public").await, process.address("admin").await);
        Replica { process, address, admin }
    }

    /// Stops the upstreams.
    pub(crate) async fn stop(self) {
        self.simulator.stop().await;
    }

    /// Adds a running job to the upstream.
    fn runs(&self, id: &str) {
        self.upstreams.add_job(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    }

    /// Completes a job with a text that no other job has.
    fn ends(&self, id: &str) {
        self.upstreams.set_state(id, end(id)).unwrap();
    }

    /// Removes a job from the upstream: only a replica that stored it knows it from here on.
    fn forget(&self, id: &str) {
        self.upstreams.forget(SimUpstream::MindBridge, id);
    }

    /// Reads the recorded results from a replica again, and describes those that differ.
    async fn check(&self, replica: SocketAddr, checked: &[(String, String)]) -> Vec<String> {
        let mut bad = Vec::new();
        for some in checked.chunks(AT_ONCE) {
            let ids: Vec<&str> = some.iter().map(|(id, _)| id.as_str()).collect();
            let Some(now) = lookup(replica, &ids, None).await else {
                bad.push(format!("{replica} does not answer for {ids:?}"));
                continue;
            };
            for ((id, was), now) in some.iter().zip(now) {
                if *was != now.words {
                    bad.push(format!("{id} was {was:?} and is {:?} at {replica}", now.words));
                }
            }
        }
        bad
    }
}

/// The description of a job that [`Site::ends`] completed.
fn ended(id: &str) -> String {
    format!("FAILED (the end of {id})")
}

fn end(id: &str) -> MindBridgeStep {
    MindBridgeStep { error: Some(format!("the end of {id}")), ..MindBridgeStep::new("ERROR") }
}

/// What a replica reports of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Now {
    words: String,
    version: i64,
}

impl Now {
    fn of(node: &Value) -> Self {
        let version = node["version"].as_str().and_then(|version| version.parse().ok());
        Self { words: describe(node), version: version.or_else(|| node["version"].as_i64()).unwrap_or(-1) }
    }
}

/// Reads jobs. `None` when the replica is gone.
async fn lookup(replica: SocketAddr, ids: &[&str], max: Option<&str>) -> Option<Vec<Now>> {
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    let query =
        format!("query($refs: [JobRef!]!, $max: Duration) {{ jobs(refs: $refs, maxStaleness: $max) {ANY} }}");
    let data = execute(replica, &query, json!({ "refs": refs, "max": max })).await?;
    Some(data["jobs"].as_array()?.iter().map(Now::of).collect())
}

/// Executes a query. `None` when the replica is gone, or dies before it has answered.
pub(crate) async fn execute(replica: SocketAddr, query: &str, variables: Value) -> Option<Value> {
    let body = json!({ "query": query, "variables": variables }).to_string();
    let answer = exchange(replica, "application/json", &body).await?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let mut answer: Value = serde_json::from_str(body).ok()?;
    assert_eq!(answer.get("errors"), None, "{answer}");
    Some(answer["data"].take())
}

/// Reads a subscription to a job until it completes or the replica is gone: the description in the last final update.
pub(crate) async fn watched(replica: SocketAddr, id: &str) -> Option<String> {
    let query = format!(
        "subscription($refs: [JobRef!]!) {{ jobUpdates(refs: $refs, maxStaleness: \"100ms\") {{ isFinal result {ANY} }} }}"
    );
    let body = json!({ "query": query, "variables": { "refs": [external("mind", id)] } }).to_string();
    let answer = exchange(replica, "text/event-stream", &body).await?;
    let mut updates = answer.lines().rev().filter_map(|line| {
        let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        let update = &event["data"]["jobUpdates"];
        (update["isFinal"] == true).then(|| describe(&update["result"]))
    });
    updates.next()
}

async fn exchange(replica: SocketAddr, accept: &str, body: &str) -> Option<String> {
    let headers = [("content-type", "application/json"), ("accept", accept)];
    let request = wire::request("POST", "/graphql", &headers, body);
    let mut answer = Vec::new();
    let exchanged = async {
        let mut socket = TcpStream::connect(replica).await.ok()?;
        socket.write_all(&request).await.ok()?;
        // What arrived before the connection closed counts, also if it closed by a reset.
        socket.read_to_end(&mut answer).await.ok();
        Some(())
    };
    tokio::time::timeout(LIMIT, exchanged).await.ok().flatten()?;
    String::from_utf8(answer).ok()
}

/// The value of a line of `/metrics`, 0 when there is none.
async fn metric(replica: &Replica, name: &str) -> f64 {
    let text = wire::get(replica.admin, "/metrics").await.body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or(0.0)
}

/// Repeats a check until it is true; returns whether that happened in time.
async fn until<F: Future<Output = bool> + Send>(again: impl Fn() -> F + Send + Sync) -> bool {
    let holds = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !again().await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, holds).await.is_ok()
}
