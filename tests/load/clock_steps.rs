//! A real process whose system clock is stepped repeatedly, an hour or a day forwards or back, while jobs complete
//! under load. It needs libfaketime.

use std::path::Path;
use std::time::Duration;

use futures_util::future::{join, join_all};
use jiff::{SignedDuration, Timestamp};
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock as _;
use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, Simulator};
use serde_json::{Value, json};

use crate::support::loops::{Outcome, Replica, execute, watched};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN, external};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// The possible offsets of the clock, in seconds.
const OFFSETS: [i64; 5] = [0, 3_600, -3_600, 86_400, -86_400];
/// Jobs of each kind in one iteration.
const JOBS: usize = 5;
/// One of this many iterations begins with a restart.
const RESTARTS: usize = 4;

/// Steps the clock `times` times.
pub(crate) async fn run(times: usize, progress: impl Fn(usize, &[String]) + Send + Sync) -> Outcome {
    assert!(Path::new(LIBRARY).exists(), "{LIBRARY} does not exist: install the package faketime");
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let upstreams = simulator.handle();
    let folder =
        std::env::temp_dir().join(format!("jobgate-steps-{}-{:x}", std::process::id(), fastrand::u64(..)));
    let rest = format!("store: {{ kind: embedded, path: \"{}\" }}", folder.display());
    let setup = Setup { rest, ..Setup::default() };
    let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
    let clock = Scratch::new("+0");
    let mut gateway = start(&config, &clock).await;
    let (mut bad, mut checked, mut offset, mut restarts) = (Vec::new(), 0, 0, 0);
    for iteration in 0..times {
        let ids: Vec<String> = (0..JOBS).map(|number| format!("t{iteration}n{number}")).collect();
        for id in &ids {
            upstreams.add_job(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
        }
        let mut check = |when: &str, nodes: &[Value], state: &str, offset: i64, bad: &mut Vec<String>| {
            checked += nodes.len();
            let wrong = nodes.iter().filter(|one| is_wrong(one, state, offset));
            bad.extend(wrong.map(|one| {
                format!("iteration {iteration}, clock {offset} s ahead, {when}: {one} where {state} is right")
            }));
        };
        check("before", &lookup(&gateway, &ids, "0ms").await, "RUNNING", offset, &mut bad);
        if iteration % RESTARTS == RESTARTS - 1 {
            // Unfinished jobs are written with a delay.
            tokio::time::sleep(Duration::from_millis(500)).await;
            gateway.process.signal("KILL").await;
            gateway.process.ended().await;
            restarts += 1;
            offset = set(&clock, offset);
            gateway = start(&config, &clock).await;
        } else {
            offset = set(&clock, offset);
        }
        // One is watched while it completes, the others are queried.
        let end = async {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
            for id in &ids {
                upstreams.set_state(id, MindBridgeStep::new("COMPLETE")).unwrap();
            }
            lookup(&gateway, &ids[1..], "0ms").await
        };
        let (nodes, last) = join(end, watched(gateway.address, &ids[0])).await;
        check("after, allowing nothing", &nodes, "SUCCEEDED", offset, &mut bad);
        if last.as_deref() != Some("SUCCEEDED") {
            bad.push(format!("iteration {iteration}: the last update of the watcher was {last:?}"));
        }
        // An earlier observation may be this old by now, and no older.
        let id = format!("a{iteration}");
        upstreams.add_job(MindBridgeJob::new(&id, &[(0, "IN_PROGRESS")]));
        let ids = [id];
        check("a second one", &lookup(&gateway, &ids, "0ms").await, "RUNNING", offset, &mut bad);
        upstreams.set_state(&ids[0], MindBridgeStep::new("COMPLETE")).unwrap();
        offset = set(&clock, offset);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let loads = join_all((0..4).map(|_| lookup(&gateway, &ids, "1s"))).await;
        for nodes in loads {
            check("allowing a second", &nodes, "SUCCEEDED", offset, &mut bad);
        }
        progress(iteration + 1, &bad);
    }
    let notes =
        vec![format!("{} steps of the clock, {restarts} of them while the process was restarted", 2 * times)];
    gateway.process.signal("KILL").await;
    gateway.process.ended().await;
    std::fs::remove_dir_all(&folder).ok();
    simulator.stop().await;
    Outcome { tries: times, checked, bad, notes }
}

/// Whether an answer has another state, is stale or too old, or its date does not match the current clock.
fn is_wrong(one: &Value, state: &str, offset: i64) -> bool {
    let now = SystemClock.time_of_day() + SignedDuration::from_secs(offset);
    let freshness = &one["freshness"];
    let at: Option<Timestamp> = freshness["observedAt"].as_str().and_then(|at| at.parse().ok());
    let off = at.map_or(i64::MAX, |at| now.duration_since(at).as_secs().abs());
    let age = freshness["ageMs"].as_i64().unwrap_or(i64::MAX);
    one["state"] != state || freshness["isStale"] != false || age > 5_000 || off > 10
}

async fn start(config: &Scratch, clock: &Scratch) -> Replica {
    let env = [
        ("MIND_TOKEN", TOKEN),
        ("METRICS_KEY", KEY),
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", clock.path()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
    ];
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let (address, admin) = (process.address("public").await, process.address("admin").await);
    Replica { process, address, admin }
}

/// Sets the clock to another offset.
fn set(clock: &Scratch, before: i64) -> i64 {
    let others: Vec<i64> = OFFSETS.into_iter().filter(|offset| *offset != before).collect();
    let offset = fastrand::choice(&others).copied().unwrap_or(0);
    std::fs::write(clock.path(), format!("{offset:+}")).unwrap();
    offset
}

async fn lookup(gateway: &Replica, ids: &[String], max: &str) -> Vec<Value> {
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    let query = "query($refs: [JobRef!]!, $max: Duration) { jobs(refs: $refs, maxStaleness: $max) { \
                 ... on Job { externalId state freshness { observedAt ageMs isStale } } ... on JobProblem { code } } }";
    let data = execute(gateway.address, query, json!({ "refs": refs, "max": max })).await;
    data.and_then(|mut data| data["jobs"].take().as_array().cloned()).unwrap_or_default()
}
