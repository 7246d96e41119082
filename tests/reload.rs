//! Changes of the configuration at run time: the real binary, its file on a real disk, and streams that stay open.

mod broken;
mod load;
mod sections;
mod typo;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, Scenario, Simulator};
use serde_json::{Value, json};

use crate::support::process::Process;
use crate::support::server::{ANY, KEY, TOKEN, describe, external};
use crate::support::streams::{LIMIT, Sse, StreamEvent, Watcher, WebSocket, settles};
use crate::support::wire;

/// The token that only the second upstream accepts, once configured.
const OTHER: &str = "another-mindbridge-token";

/// The source `mind` with these options.
fn mind(url: &str, token: &str, budget: &str) -> String {
    format!(
        "mind: {{ upstream: mindbridge, base_url: \"{url}\", credential: {{ bearer: {token} }}, budget: {{ {budget} }} }}"
    )
}

const BUDGET: &str = "per_second: 10000, per_hour: 1000000, concurrency: 500";

/// A folder as Kubernetes mounts a `ConfigMap`, the gateway that reads the file in it, and two upstreams with the same
/// jobs.
struct Gateway {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    upstreams: [Simulator; 2],
    folder: PathBuf,
    round: usize,
}

impl Gateway {
    /// Starts it with the source `mind` at the first upstream, and these other sections.
    async fn start(rest: &str) -> Self {
        let mut scenario = Scenario::default();
        scenario.mindbridge.jobs =
            ["a", "b"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).into_iter().collect();
        // with one start time, so that a job is the same at both
        scenario.start = Some(SystemClock.now());
        let mut upstreams = Vec::new();
        for _ in 0..2 {
            upstreams.push(Simulator::start(scenario.clone(), Addresses::ephemeral()).await.unwrap());
        }
        let upstreams: [Simulator; 2] = upstreams.try_into().unwrap();
        let folder = std::env::temp_dir().join(format!("jobgate-reload-{:x}", fastrand::u64(..)));
        fs::create_dir_all(&folder).unwrap();
        symlink("..data/jobgate.yaml", folder.join("jobgate.yaml")).unwrap();
        let source = mind(&upstreams[0].mindbridge_url(), "{ env: MIND_TOKEN }", BUDGET);
        put(&folder, 0, &file(&[&source], rest));
        let path = folder.join("jobgate.yaml").display().to_string();
        let env = [
            ("MIND_TOKEN", TOKEN),
            ("METRICS_KEY", KEY),
            ("OTHER_TOKEN", OTHER),
            // so that its memory does not depend on the number of processors
            ("TOKIO_WORKER_THREADS", "2"),
            ("MALLOC_ARENA_MAX", "2"),
        ];
        let mut process = Process::start(&["serve", "--config", &path], &env);
        let public = process.address("public").await;
        let admin = process.address("admin").await;
        Self { process, public, admin, upstreams, folder, round: 0 }
    }

    /// Replaces the file as the kubelet does, and waits until the change is active.
    async fn change(&mut self, sources: &[&str], rest: &str, changed: &str) {
        let log_text = if changed.contains(' ') {
            format!(" changed={changed:?} ")
        } else {
            format!(" changed={changed} ")
        };
        let count = |process: &Process| {
            let output = process.output();
            output
                .lines()
                .filter(|line| line.contains("configuration reloaded") && line.contains(&log_text))
                .count()
        };
        let before = count(&self.process);
        self.put(sources, rest);
        let process = &self.process;
        settles(&log_text, LIMIT, || count(process) > before).await;
    }

    /// Replaces the file as the kubelet does.
    fn put(&mut self, sources: &[&str], rest: &str) {
        self.round += 1;
        put(&self.folder, self.round, &file(sources, rest));
    }

    fn url(&self, upstream: usize) -> String {
        self.upstreams[upstream].mindbridge_url()
    }

    async fn execute(&self, client: &str, source: &str, id: &str, max: Option<&str>) -> String {
        let query =
            format!("query($ref: JobRef!, $max: Duration) {{ job(ref: $ref, maxStaleness: $max) {ANY} }}");
        let body = json!({ "query": query, "variables": { "ref": external(source, id), "max": max } });
        let reply = wire::post(self.public, Some(&format!("jg_{client}")), &body).await;
        if reply.status == 200 { describe(&reply.data()["job"]) } else { reply.refusal().1 }
    }

    /// The hourly budget of the source `mind`, and how much of it is used.
    async fn used(&self) -> (i64, i64) {
        let query = "{ sources { name budget { perHour leftThisHour } } }";
        let data = wire::post(self.public, Some("jg_alice"), &json!({ "query": query })).await.data();
        let budget = data["sources"].as_array().unwrap().iter().find(|one| one["name"] == "mind").unwrap();
        let number = |name: &str| budget["budget"][name].as_i64().unwrap();
        (number("perHour"), number("perHour") - number("leftThisHour"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Replaces `..data` by a folder with this file in it.
fn put(folder: &std::path::Path, round: usize, text: &str) {
    let name = format!("..round{round}");
    fs::create_dir(folder.join(&name)).unwrap();
    fs::write(folder.join(&name).join("jobgate.yaml"), text).unwrap();
    symlink(name, folder.join("..data_tmp")).unwrap();
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(before) = round.checked_sub(1) {
        fs::remove_dir_all(folder.join(format!("..round{before}"))).ok();
    }
}

fn file(sources: &[&str], rest: &str) -> String {
    let server = if rest.contains("server:") {
        ""
    } else {
        "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }\n"
    };
    format!("{server}store: {{ kind: memory }}\n{rest}\nsources:\n  {}\n", sources.join("\n  "))
}

fn client(name: &str, sources: &str) -> String {
    let hash = ClientConfig::hex(&keys::hash(&format!("jg_{name}")));
    format!("{{ name: {name}, key_sha256: \"{hash}\", sources: {sources} }}")
}

/// Streams of the job `a`, one of each carrier, with this client key unless it is empty.
async fn open_streams(gateway: &Gateway, key: &str) -> Vec<Watcher> {
    let mut streams = Vec::new();
    for carrier in [WebSocket, Sse] {
        let mut stream = Watcher::of_client(gateway.public, carrier, vec![external("mind", "a")], key).await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        streams.push(stream);
    }
    streams
}

/// Completes the job `a` at this upstream, and checks that each stream received nothing before that.
async fn assert_uninterrupted(gateway: &Gateway, upstream: usize, streams: Vec<Watcher>) {
    gateway.upstreams[upstream].handle().set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for mut stream in streams {
        assert_eq!(stream.short().await, "ENDED SUCCEEDED", "the stream received nothing else");
    }
}

/// The source `more` at the second upstream.
fn more(gateway: &Gateway) -> String {
    mind(&gateway.url(1), "{ env: MIND_TOKEN }", BUDGET).replacen("mind:", "more:", 1)
}

/// A gateway without clients and with the sources `mind` and `more`, and the text of these.
async fn with_two_sources() -> (Gateway, [String; 2]) {
    let mut gateway = Gateway::start("").await;
    let source = mind(&gateway.url(0), "{ env: MIND_TOKEN }", BUDGET);
    let more = more(&gateway);
    gateway.change(&[&source, &more], "", "sources.more").await;
    (gateway, [source, more])
}

/// Without clients, so that only the source is removed.
#[tokio::test]
async fn removing_a_source_ends_only_its_streams() {
    let (mut gateway, [_, more]) = with_two_sources().await;
    let mut streams = Vec::new();
    for (carrier, source) in [(WebSocket, "more"), (Sse, "more"), (WebSocket, "mind"), (Sse, "mind")] {
        let mut stream = Watcher::of_client(gateway.public, carrier, vec![external(source, "b")], "").await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        streams.push(stream);
    }
    gateway.change(&[&more], "", "sources.mind").await;
    for mut stream in streams.split_off(2) {
        assert_eq!(stream.short().await, "ENDED NOT_FOUND for good");
        assert_eq!(stream.receive().await, StreamEvent::Complete);
    }
    assert_eq!(gateway.execute("", "mind", "b", None).await, "NOT_FOUND after 5s");
    gateway.upstreams[1].handle().set_state("b", MindBridgeStep::new("COMPLETE")).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.short().await, "ENDED SUCCEEDED", "the other source's streams received nothing");
    }
}

#[tokio::test]
async fn a_source_that_is_added_again_keeps_its_usage() {
    let (mut gateway, [source, more]) = with_two_sources().await;
    gateway.execute("", "mind", "b", None).await;
    let used = gateway.used().await.1;
    assert!(used > 0);
    gateway.change(&[&more], "", "sources.mind").await;
    let low = source.replace("per_hour: 1000000", "per_hour: 999");
    gateway.change(&[&low, &more], "", "sources.mind").await;
    let (per_hour, after) = gateway.used().await;
    assert!(per_hour == 999 && after >= used, "{after} of {per_hour}, before {used}");
    assert_eq!(gateway.execute("", "mind", "b", Some("0ms")).await, "RUNNING");
}

/// It would be another source: its jobs have other states.
#[tokio::test]
async fn a_source_with_another_upstream_needs_another_name() {
    let (mut gateway, [source, more]) = with_two_sources().await;
    gateway.put(&[&source.replace("mindbridge", "supermetrics"), &more], "");
    let refused =
        |line: &str| (line.contains("sources.mind.upstream") && line.contains("another name")).then_some(());
    gateway.process.find("the refusal", refused).await;
}

fn contains(text: &'static str) -> impl Fn(&str) -> Option<()> + Send + Sync {
    move |line| line.contains(text).then_some(())
}

/// A gateway whose file is written in place, and truncated before its clients until that is noticed; and the whole
/// file, which changes an option.
async fn truncated() -> (Gateway, String) {
    let alice = client("alice", "[mind]");
    let mut gateway = Gateway::start(&format!("clients: [{alice}]")).await;
    let path = gateway.folder.join("jobgate.yaml");
    let whole = fs::read_to_string(&path).unwrap() + "limits: { burst: 777 }\n";
    fs::write(&path, whole.replace(&format!("clients: [{alice}]"), "")).unwrap();
    gateway.process.find("the refusal", contains("removes all clients and issuers")).await;
    (gateway, whole)
}

#[tokio::test]
async fn an_incomplete_file_is_reloaded_once_it_is_complete() {
    let (mut gateway, whole) = truncated().await;
    assert_eq!(gateway.execute("alice", "mind", "b", None).await, "RUNNING");
    let streams = open_streams(&gateway, "jg_alice").await;
    fs::write(gateway.folder.join("jobgate.yaml"), whole).unwrap();
    gateway.process.find("the rest", contains(" changed=limits.burst ")).await;
    assert_uninterrupted(&gateway, 0, streams).await;
}

#[tokio::test]
async fn a_file_is_reloaded_once_the_secret_that_it_names_exists() {
    let mut gateway = Gateway::start("").await;
    let streams = open_streams(&gateway, "").await;
    let secret = gateway.folder.join("late-secret");
    let reference = format!("{{ file: \"{}\" }}", secret.display());
    gateway.put(&[&mind(&gateway.url(0), &reference, BUDGET)], "");
    gateway.process.find("the refusal", contains("sources.mind.credential")).await;
    assert_eq!(gateway.execute("", "mind", "b", Some("0ms")).await, "RUNNING");
    fs::write(&secret, TOKEN).unwrap();
    gateway.process.find("the next try", contains("sources.mind.credential.bearer.file")).await;
    assert_eq!(gateway.execute("", "mind", "b", Some("0ms")).await, "RUNNING");
    assert_uninterrupted(&gateway, 0, streams).await;
}

#[tokio::test]
async fn a_reload_error_is_not_logged_repeatedly() {
    let (mut gateway, whole) = truncated().await;
    let path = gateway.folder.join("jobgate.yaml");
    let half = fs::read_to_string(&path).unwrap();
    for _ in 0..10 {
        // each is noticed by the watch of the folder
        fs::write(&path, &half).unwrap();
        gateway.execute("alice", "mind", "b", Some("0ms")).await;
    }
    fs::write(&path, whole).unwrap();
    gateway.process.find("the rest", contains(" changed=limits.burst ")).await;
    let refusals = gateway.process.output().matches("configuration not reloaded").count();
    assert!(refusals <= 2, "{}", gateway.process.output());
}

/// One word for an update of a job.
fn state(update: &Value) -> String {
    describe(&update["result"])
}
