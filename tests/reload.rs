//! Changes of the configuration at run time: the real binary, its file on a real disk, and streams that stay open.

mod broken;
mod load;
mod typo;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use futures_util::future::join_all;
use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate::simulator::{Addresses, MindBridgeJob, MindBridgeStep, Scenario, SimUpstream, Simulator};
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
        self.round += 1;
        put(&self.folder, self.round, &file(sources, rest));
        let process = &self.process;
        settles(&log_text, LIMIT, || count(process) > before).await;
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

#[tokio::test]
async fn reloading_any_live_section_keeps_streams_open() {
    let alice = client("alice", "[mind]");
    let only_alice = format!("clients: [{alice}]");
    let mut gateway = Gateway::start(&only_alice).await;
    let mut streams = Vec::new();
    for carrier in [WebSocket, Sse] {
        let mut stream = Watcher::open_as(gateway.public, carrier, &["a"], Some("jg_alice")).await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        streams.push(stream);
    }

    // a budget changes, and its used part stays used
    let (per_hour, used) = gateway.used().await;
    assert!(per_hour == 1_000_000 && used > 0, "{used} of {per_hour}");
    let small =
        mind(&gateway.url(0), "{ env: MIND_TOKEN }", "per_second: 9000, per_hour: 500, concurrency: 50");
    let changed =
        "sources.mind.budget.concurrency, sources.mind.budget.per_hour, sources.mind.budget.per_second";
    gateway.change(&[&small], &only_alice, changed).await;
    let (per_hour, after) = gateway.used().await;
    assert!(per_hour == 500 && after >= used, "{after} of {per_hour}, before {used}");

    // a source is added, and the clients named in it may read it
    let more = mind(&gateway.url(1), "{ env: MIND_TOKEN }", BUDGET).replacen("mind:", "more:", 1);
    let both = format!("clients: [{alice}, {}]", client("bob", "[mind, more]"));
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "UNAUTHENTICATED");
    gateway.change(&[&small, &more], &both, "clients, sources.more").await;
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "RUNNING");
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "NOT_FOUND after 5s");

    // a client with a wider grant keeps its streams, also when that is revoked
    let wide = format!("clients: [{}, {}]", client("alice", "[mind, more]"), client("bob", "[mind, more]"));
    gateway.change(&[&small, &more], &wide, "clients").await;
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "RUNNING");
    gateway.change(&[&small, &more], &both, "clients").await;
    assert_eq!(gateway.execute("alice", "more", "b", None).await, "NOT_FOUND after 5s");

    // another address: later calls go there, with another credential once that is configured
    let moved = mind(&gateway.url(1), "{ env: MIND_TOKEN }", BUDGET);
    let calls_of = |upstream: &Simulator| upstream.handle().record_of(SimUpstream::MindBridge).len();
    gateway
        .change(
            &[&moved, &more],
            &both,
            &format!("sources.mind.base_url, {}", changed.replace("sources.mind.base_url, ", "")),
        )
        .await;
    let before = calls_of(&gateway.upstreams[1]);
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
    assert!(calls_of(&gateway.upstreams[1]) > before);
    // the old credential stays valid until no call uses it: streams poll all the time
    gateway.upstreams[1].handle().also_accept(SimUpstream::MindBridge, OTHER);
    let keyed = mind(&gateway.url(1), "{ env: OTHER_TOKEN }", BUDGET);
    let more = more.replace("MIND_TOKEN", "OTHER_TOKEN");
    let changed = "sources.mind.credential.bearer.env, sources.more.credential.bearer.env";
    gateway.change(&[&keyed, &more], &both, changed).await;
    let credential_of = |upstream: &Simulator| {
        upstream.handle().record_of(SimUpstream::MindBridge).last().and_then(|recorded| recorded.credential)
    };
    crate::redis_shared_store::until("the other credential is used", || async {
        assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
        (credential_of(&gateway.upstreams[1]) == Some(1)).then_some(())
    })
    .await;
    gateway.upstreams[1].handle().revoke(SimUpstream::MindBridge, 0);
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");

    // limits, intervals, pages
    let slow = format!("{both}\nlimits: {{ requests_per_second: 1, burst: 1 }}");
    gateway.change(&[&keyed, &more], &slow, "limits.burst, limits.requests_per_second").await;
    let answers = join_all((0..20).map(|_| gateway.execute("bob", "mind", "b", None))).await;
    assert!(answers.iter().any(|answer| answer == "TOO_MANY_REQUESTS"), "{answers:?}");
    let fresh = format!(
        "{both}\ncache: {{ fresh_for: 1h }}\nstreams: {{ max_streams_per_client: 1 }}\npoll: {{ max_interval: 1m }}"
    );
    let changed = "cache.fresh_for, limits.burst, limits.requests_per_second, poll.max_interval, streams.max_streams_per_client";
    gateway.change(&[&keyed, &more], &fresh, changed).await;
    assert_eq!(gateway.execute("bob", "mind", "b", None).await, "RUNNING", "the earlier rate does not apply");
    let before = calls_of(&gateway.upstreams[1]);
    for _ in 0..5 {
        assert_eq!(gateway.execute("bob", "more", "b", None).await, "RUNNING");
    }
    let requests = gateway.upstreams[1].handle().record_of(SimUpstream::MindBridge);
    let of_b =
        requests.iter().skip(before).filter(|recorded| format!("{recorded:?}").contains("\"b\"")).count();
    assert_eq!(of_b, 0, "a cached answer is fresh for an hour");
    let refused = Watcher::refused(gateway.public, "jg_alice").await;
    assert_eq!(refused, 429, "two streams exceed the limit, and neither was closed");

    let origin = [("origin", "https://app.example"), ("authorization", "Bearer jg_bob")];
    let request = wire::request("GET", "/v1/jobs/mind/b", &origin, "");
    assert_eq!(wire::exchange(gateway.public, &request).await.status, 403);
    let pages = format!(
        "{both}\nserver: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, allowed_origins: ['https://app.example'], trusted_proxies: [10.0.0.0/8] }}\ngraphql: {{ max_depth: 7 }}"
    );
    let changed = "cache.fresh_for, poll.max_interval, server.allowed_origins, server.trusted_proxies, streams.max_streams_per_client";
    gateway.change(&[&keyed, &more], &pages, changed).await;
    assert_eq!(wire::exchange(gateway.public, &request).await.status, 200);
    let restart =
        |line: &str| (line.contains("need a restart") && line.contains("graphql.max_depth")).then_some(());
    gateway.process.find("what needs a restart", restart).await;

    // a source is removed: its watchers receive that, and its jobs are gone
    let refs = vec![external("more", "b")];
    let mut gone = Vec::new();
    for carrier in [WebSocket, Sse] {
        let mut stream = Watcher::of_client(gateway.public, carrier, refs.clone(), "jg_bob").await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        gone.push(stream);
    }
    let last = format!("{pages}\n").replace("[mind, more]", "[mind]");
    gateway.change(&[&keyed], &last, "clients, sources.more").await;
    for mut stream in gone {
        // a client whose grant changed is disconnected for that; both reasons are valid, and their order is not
        // promised
        match stream.receive().await {
            StreamEvent::Update(update) => assert_eq!(describe(&update["result"]), "NOT_FOUND for good"),
            log_text @ (StreamEvent::Complete | StreamEvent::Over(_)) => {
                assert_ne!(log_text, StreamEvent::Complete);
            }
        }
    }
    assert_eq!(gateway.execute("bob", "more", "b", None).await, "NOT_FOUND after 5s");

    gateway.upstreams[1].handle().set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.short().await, "ENDED SUCCEEDED", "the stream received nothing else");
    }
    let output = gateway.process.output();
    assert!(!output.contains("ERROR") && !output.contains(OTHER) && !output.contains(TOKEN), "{output}");
}

/// Without clients, so that only the source is removed.
#[tokio::test]
async fn removing_a_source_ends_its_streams_and_keeps_its_usage() {
    let mut gateway = Gateway::start("").await;
    let source = mind(&gateway.url(0), "{ env: MIND_TOKEN }", BUDGET);
    let more = mind(&gateway.url(1), "{ env: MIND_TOKEN }", BUDGET).replacen("mind:", "more:", 1);
    gateway.change(&[&source, &more], "", "sources.more").await;
    let mut streams = Vec::new();
    for (carrier, source) in [(WebSocket, "more"), (Sse, "more"), (WebSocket, "mind"), (Sse, "mind")] {
        let mut stream = Watcher::of_client(gateway.public, carrier, vec![external(source, "b")], "").await;
        assert_eq!(stream.short().await, "SNAPSHOT RUNNING");
        streams.push(stream);
    }
    let used = gateway.used().await.1;
    assert!(used > 0);
    gateway.change(&[&more], "", "sources.mind").await;
    for mut stream in streams.split_off(2) {
        assert_eq!(stream.short().await, "ENDED NOT_FOUND for good");
        assert_eq!(stream.receive().await, StreamEvent::Complete);
    }
    assert_eq!(gateway.execute("", "mind", "b", None).await, "NOT_FOUND after 5s");
    let low =
        mind(&gateway.url(0), "{ env: MIND_TOKEN }", "per_second: 9000, per_hour: 999, concurrency: 50");
    gateway.change(&[&low, &more], "", "sources.mind").await;
    let (per_hour, after) = gateway.used().await;
    assert!(per_hour == 999 && after >= used, "{after} of {per_hour}, before {used}");
    assert_eq!(gateway.execute("", "mind", "b", Some("0ms")).await, "RUNNING");
    // the same name for another upstream is not a change of a source
    let kind = low.replace("mindbridge", "supermetrics");
    gateway.round += 1;
    put(&gateway.folder, gateway.round, &file(&[&kind, &more], ""));
    let refused =
        |line: &str| (line.contains("sources.mind.upstream") && line.contains("another name")).then_some(());
    gateway.process.find("the refusal", refused).await;
    gateway.upstreams[1].handle().set_state("b", MindBridgeStep::new("COMPLETE")).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.short().await, "ENDED SUCCEEDED", "the other source's streams received nothing");
    }
}

#[tokio::test]
async fn an_incomplete_file_is_reloaded_once_it_is_complete() {
    let alice = client("alice", "[mind]");
    let mut gateway = Gateway::start(&format!("clients: [{alice}]")).await;
    let mut stream = Watcher::open_as(gateway.public, Sse, &["a"], Some("jg_alice")).await;
    assert_eq!(stream.short().await, "SNAPSHOT RUNNING");

    // written in place, and truncated before its clients until that is noticed
    let path = gateway.folder.join("jobgate.yaml");
    let whole = fs::read_to_string(&path).unwrap() + "limits: { burst: 777 }\n";
    let half = whole.replace(&format!("clients: [{alice}]"), "");
    fs::write(&path, half).unwrap();
    let log_text = |text: &'static str| move |line: &str| line.contains(text).then_some(());
    gateway.process.find("the refusal", log_text("removes all clients and issuers")).await;
    assert_eq!(gateway.execute("alice", "mind", "b", None).await, "RUNNING");
    fs::write(&path, whole).unwrap();
    gateway.process.find("the rest", log_text(" changed=limits.burst ")).await;

    // a secret file that is created after the configuration that names it
    let secret = gateway.folder.join("late-secret");
    let reference = format!("{{ file: \"{}\" }}", secret.display());
    let source = mind(&gateway.url(0), &reference, BUDGET);
    gateway.round += 1;
    put(&gateway.folder, gateway.round, &file(&[&source], &format!("clients: [{alice}]")));
    gateway.process.find("the refusal", log_text("sources.mind.credential")).await;
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");
    fs::write(&secret, TOKEN).unwrap();
    gateway.process.find("the next try", log_text("sources.mind.credential.bearer.file")).await;
    assert_eq!(gateway.execute("alice", "mind", "b", Some("0ms")).await, "RUNNING");

    gateway.upstreams[0].handle().set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    assert_eq!(stream.short().await, "ENDED SUCCEEDED");
    let refusals = gateway.process.output().matches("configuration not reloaded").count();
    assert!(refusals <= 4, "the same error is not logged repeatedly: {}", gateway.process.output());
    gateway.process.signal("TERM").await;
    let (status, output) = gateway.process_ended().await;
    assert_eq!(status, Some(0), "{output}");
}

impl Gateway {
    /// Waits for the exit of the process: the exit code, and the output.
    async fn process_ended(mut self) -> (Option<i32>, String) {
        let stand_in = Process::start(&["schema"], &[]);
        let process = std::mem::replace(&mut self.process, stand_in);
        let (status, output) = process.ended().await;
        (status.code(), output)
    }
}

/// One word for an update of a job.
fn state(update: &Value) -> String {
    describe(&update["result"])
}
