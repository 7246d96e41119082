//! The embedded store under the real process: killed, locked by another process, and on a full disk.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use jobgate_simulator::{Addresses, MindBridgeJob, SimUpstream, Simulator};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::crashes::{self, Folder, Outcome, ended, execute, keeping, serve};
use crate::support::process::run;
use crate::support::server::{KEY, Setup, TOKEN, external};
use crate::support::wire;

/// The outcome of one run, which takes long, for the tests of kills.
async fn kills() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| crashes::run(12, |_| {})).await
}

/// `cargo bench --bench crashes -- --loop kill-embedded` does the same three hundred times.
#[tokio::test]
async fn a_kill_loses_no_delivered_terminal_state() {
    let outcome = kills().await;
    assert_eq!((outcome.kills, outcome.lost.as_slice()), (12, [].as_slice()));
    assert!(outcome.checked > 300, "{outcome:?}");
}

#[tokio::test]
async fn a_kill_damages_no_store_file() {
    assert_eq!(kills().await.quarantined, 0);
}

#[tokio::test]
async fn a_tracked_job_is_followed_again_after_a_kill() {
    assert_eq!(kills().await.followed, 12, "without a request");
}

const SECRETS: [(&str, &str); 2] = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];

#[tokio::test]
async fn a_second_gateway_on_the_same_store_reports_why_it_exits() {
    let folder = Folder::new();
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let config = keeping(&folder.0.join("data"), &simulator);
    let (_first, _) = serve(&config).await;
    let (code, output) = run(&["serve", "--config", config.path()], &SECRETS).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("store.path: ") && output.contains("most likely a second jobgate"), "{output}");
}

#[tokio::test]
async fn a_stopped_gateway_releases_its_store() {
    let folder = Folder::new();
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let config = keeping(&folder.0.join("data"), &simulator);
    let (first, _) = serve(&config).await;
    first.signal("TERM").await;
    assert_eq!(first.ended().await.0.code(), Some(0));
    let (again, _) = serve(&config).await;
    drop(again);
}

#[tokio::test]
async fn serve_reports_a_store_path_that_it_cannot_use() {
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let config = keeping(Path::new("/proc/nowhere/data"), &simulator);
    let (code, output) = run(&["serve", "--config", config.path()], &SECRETS).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("store.path: cannot use /proc/nowhere/data"), "{output}");
}

/// As docs/operations.md describes: the file of a stopped gateway is copied to another one.
#[tokio::test]
async fn a_copy_of_the_store_file_restores_every_answer() {
    let (folder, other) = (Folder::new(), Folder::new());
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let ids: Vec<String> = (0..50).map(|number| format!("b{number}")).collect();
    for id in &ids {
        simulator.handle().add_job(ended(id));
    }
    let (gateway, address) = serve(&keeping(&folder.0, &simulator)).await;
    let described = execute(address, ids.clone()).await;
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.0.code(), Some(0));
    std::fs::copy(folder.0.join("jobs.redb"), other.0.join("jobs.redb")).unwrap();
    for id in &ids {
        simulator.handle().forget(SimUpstream::MindBridge, id);
    }
    let (_restored, address) = serve(&keeping(&other.0, &simulator)).await;
    assert!(
        described.iter().all(|(id, words)| *words == format!("FAILED (the end of {id})")),
        "{described:?}"
    );
    assert_eq!(execute(address, ids).await, described);
}

#[tokio::test]
async fn a_truncated_store_file_is_reported_at_start() {
    let folder = Folder::new();
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let config = keeping(&folder.0, &simulator);
    let file = folder.0.join("jobs.redb");
    // no file, the file of the run before, and one that lost its content
    for (truncated, reports) in [(false, 0), (false, 0), (true, 1)] {
        if truncated {
            std::fs::write(&file, "").unwrap();
        }
        let (gateway, _) = serve(&config).await;
        gateway.signal("TERM").await;
        let (status, output) = gateway.ended().await;
        assert_eq!(status.code(), Some(0), "{output}");
        let lines: Vec<&str> = output.lines().filter(|line| line.contains("store file is empty")).collect();
        assert_eq!(lines.len(), reports, "{output}");
        for line in lines {
            assert!(line.contains("WARN") && line.contains(file.to_str().unwrap()), "{line}");
        }
    }
}

/// A small file system.
struct SmallDisk(Folder);

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self(Folder::new());
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(disk.path()).status();
        let mounted = mounted.is_ok_and(|status| status.success());
        assert!(
            mounted,
            "this test mounts a small tmpfs: run it as root, or inside `unshare --user --map-root-user --mount`"
        );
        disk
    }

    fn path(&self) -> &Path {
        &self.0.0
    }

    /// Uses up all free space.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.path()).status().ok();
    }
}

/// What clients and the log showed of a disk that was full for some time.
struct FullDiskOutcome {
    /// The answers before the disk was full, and while it was.
    answers: Vec<(String, String)>,
    /// The answers for the same jobs after a restart, when the upstream no longer has them.
    restored: Vec<(String, String)>,
    log: String,
}

const DISK_JOBS: usize = 600;

fn expected_answers() -> Vec<(String, String)> {
    let answer = |number| (format!("n{number}"), format!("FAILED (the end of n{number})"));
    (0..DISK_JOBS).map(answer).collect()
}

/// The outcome of one run, for the tests of a full disk.
async fn full_disk() -> &'static FullDiskOutcome {
    static RUN: OnceCell<FullDiskOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(run_on_full_disk())).await
}

async fn run_on_full_disk() -> FullDiskOutcome {
    let disk = SmallDisk::mount();
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let upstreams = simulator.handle();
    let ids: Vec<String> = expected_answers().into_iter().map(|(id, _)| id).collect();
    for id in &ids {
        upstreams.add_job(ended(id));
    }
    let config = keeping(&disk.path().join("data"), &simulator);
    let (mut gateway, address) = serve(&config).await;
    let mut answers = execute(address, ids[..100].to_vec()).await;
    disk.fill();
    for some in ids[100..].chunks(50) {
        answers.extend(execute(address, some.to_vec()).await);
    }
    gateway.find("the warning", |line| line.contains("store not writable").then_some(())).await;
    disk.free();
    gateway.find("the healing", |line| line.contains("store writable again").then_some(())).await;
    gateway.signal("TERM").await;
    let (_, log) = gateway.ended().await;
    for id in &ids {
        upstreams.forget(SimUpstream::MindBridge, id);
    }
    let (_restarted, address) = serve(&config).await;
    let mut restored = Vec::new();
    for some in ids.chunks(100) {
        restored.extend(execute(address, some.to_vec()).await);
    }
    FullDiskOutcome { answers, restored, log }
}

#[tokio::test]
async fn a_full_disk_causes_no_client_error() {
    assert_eq!(full_disk().await.answers, expected_answers());
}

#[tokio::test]
async fn a_disk_that_was_full_loses_no_job() {
    assert_eq!(full_disk().await.restored, expected_answers());
}

#[tokio::test]
async fn the_log_reports_a_full_disk_and_its_end() {
    let log = &full_disk().await.log;
    let reported = [log.find("store not writable"), log.find("store writable again")];
    assert!(reported[0].is_some() && reported[0] < reported[1], "{log}");
}

/// Tracks a job of the source `mind`: whether the answer reports that it was written to the store.
async fn is_stored(address: SocketAddr, id: &str) -> bool {
    let query = "mutation($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) { isStored } }";
    let body = json!({ "query": query, "variables": { "refs": [external("mind", id)] } });
    wire::post(address, None, &body).await.data()["trackJobs"]["isStored"].as_bool().unwrap()
}

/// The disk is full before the file is created, so no byte of it can be written.
#[tokio::test]
async fn track_jobs_answers_whether_it_was_stored() {
    let disk = SmallDisk::mount();
    let jobs = ["a", "b"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let scenario = Setup::with(jobs.to_vec(), vec![]).scenario;
    let simulator = Simulator::start(scenario, Addresses::ephemeral()).await.unwrap();
    disk.fill();
    let (mut gateway, address) = serve(&keeping(&disk.path().join("data"), &simulator)).await;
    assert!(!is_stored(address, "a").await);
    disk.free();
    gateway.find("the healing", |line| line.contains("store writable again").then_some(())).await;
    assert!(is_stored(address, "b").await);
}
