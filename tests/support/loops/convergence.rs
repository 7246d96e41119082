//! Redis is unavailable, loses its data or accepts no writes while jobs complete and their upstream removes them, so
//! that the replicas observe different things. Soon after, all must return the better answer; and no outage makes the
//! replicas together call a source more often than its hourly budget allows.

use std::time::Duration;

use futures_util::future::{join, join_all};
use jobgate_simulator::{Addresses, SimUpstream, Simulator, SupermetricsJob, SupermetricsStep};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::redis::Redis;
use super::super::scratch::Scratch;
use super::super::server::{ANY, Setup, describe, external};
use super::{Outcome, Replica, Site, execute, metric, until};

/// What happens to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// It is killed, and restarts with the data on disk.
    Kill,
    /// It is suspended: it accepts connections and answers none.
    Stop,
    /// `FLUSHALL`.
    Flush,
    /// It accepts no writes: alternately because it became a replica, or has too few replicas.
    ReadOnly,
    /// It has no memory left.
    OutOfMemory,
}

/// Jobs in each iteration.
const JOBS: usize = 6;
/// Calls that the source with a small budget allows in an hour, and the pause of a client that spends them.
const PER_HOUR: usize = 60;
const PAUSE: Duration = Duration::from_millis(120);
/// For how long the budget is spent before the outage.
const BEFORE: Duration = Duration::from_secs(1);
/// How soon after an outage all replicas must agree, and for how long the budget is tested after that.
const SOON: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(8);

/// Runs `times` outages of one kind.
pub(crate) async fn run(
    outage: Outage,
    times: usize,
    progress: impl Fn(usize, &[String]) + Send + Sync,
) -> Outcome {
    let mut site = site(outage, times).await;
    let replicas = [site.replica().await, site.replica().await, site.replica().await];
    let (mut bad, mut checked, mut longest, mut spent) = (Vec::new(), 0, Duration::ZERO, Vec::new());
    for replica in &replicas {
        if !until(|| async { metric(replica, "jobgate_redis_replicas").await > 2.5 }).await {
            bad.push(format!("{} does not detect the others", replica.address));
        }
    }
    for iteration in 0..times {
        let ids: Vec<String> = (0..JOBS).map(|number| format!("d{iteration}n{number}")).collect();
        for id in &ids {
            site.upstreams.add_job(SupermetricsJob::new(id, &[(0, "RUNNING")]));
        }
        for replica in &replicas {
            let now = states(replica, &ids).await;
            if now.iter().any(|state| state != "RUNNING") {
                bad.push(format!("iteration {iteration}: {ids:?} are {now:?} before they complete"));
            }
        }
        let stop = CancellationToken::new();
        let spending = join_all(
            replicas.iter().enumerate().map(|(place, replica)| spend(replica, iteration, place, &stop)),
        );
        let staging = async {
            let outcome = stage(outage, iteration, &mut site, &replicas, &ids).await;
            tokio::time::sleep(AFTER).await;
            stop.cancel();
            outcome
        };
        let ((agreed, mut wrong), _) = join(staging, spending).await;
        longest = longest.max(agreed);
        bad.append(&mut wrong);
        checked += JOBS * replicas.len();
        let prefix = format!("b{iteration}x");
        let calls = site.upstreams.record();
        let calls =
            calls.iter().filter(|request| request.ids.iter().any(|id| id.starts_with(&prefix))).count();
        spent.push(calls);
        if calls > PER_HOUR {
            bad.push(format!("iteration {iteration}: {calls} calls of {PER_HOUR} in an hour"));
        }
        site.upstreams.clear_record();
        progress(iteration + 1, &bad);
    }
    let notes = vec![
        format!("all replicas agreed at most {longest:.1?} after the end of an outage"),
        format!(
            "calls of {PER_HOUR} an hour that three replicas made together, in each iteration: {spent:?}"
        ),
    ];
    site.stop().await;
    Outcome { tries: times, checked, bad, notes }
}

/// A site with a source of a small budget for each iteration.
async fn site(outage: Outage, times: usize) -> Site {
    let kept: &[&str] = match outage {
        Outage::Kill => &["--appendonly", "yes"],
        Outage::Stop | Outage::Flush | Outage::ReadOnly | Outage::OutOfMemory => &[],
    };
    let redis = Redis::with(kept).await;
    let simulator = Simulator::start(Setup::default().scenario, Addresses::ephemeral()).await.unwrap();
    let mind = simulator.mindbridge_url();
    let tight = (0..times).map(|iteration| {
        format!(
            "  tight{iteration}: {{ upstream: mindbridge, base_url: \"{mind}\", credential: {{ bearer: {{ env: MIND_TOKEN }} }}, \
             budget: {{ per_second: 50, per_hour: {PER_HOUR}, concurrency: 8 }} }}\n"
        )
    });
    let store = "store: { kind: redis, redis: { url: { env: REDIS_URL }, record_secret: { env: RECORD_SECRET }, lease: 3s, timeout: 500ms } }";
    let rest = format!("{}{store}\n", tight.collect::<String>());
    let setup = Setup { rest, ..Setup::default() };
    let config = Scratch::new(&setup.yaml(&mind, &simulator.supermetrics_url()));
    Site { upstreams: simulator.handle(), simulator, redis, config }
}

/// One outage in which replicas observe different things. Returns how long after it all agreed, and what was wrong.
async fn stage(
    outage: Outage,
    iteration: usize,
    site: &mut Site,
    replicas: &[Replica; 3],
    ids: &[String],
) -> (Duration, Vec<String>) {
    tokio::time::sleep(BEFORE).await;
    begin(outage, iteration, site).await;
    let mut order = [0, 1, 2];
    fastrand::shuffle(&mut order);
    for id in ids {
        site.upstreams.set_state(id, SupermetricsStep::new("SUCCESS")).unwrap();
    }
    let mut wrong = Vec::new();
    let first = states(&replicas[order[0]], ids).await;
    if first.iter().any(|state| state != "SUCCEEDED") {
        wrong.push(format!("iteration {iteration}: {ids:?} have completed, and are {first:?}"));
    }
    for id in ids {
        site.upstreams.forget(SimUpstream::Supermetrics, id);
    }
    states(&replicas[order[1]], ids).await;
    tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
    end(outage, site).await;
    let ended = Instant::now();
    // The third replica observes it only now, or received no request for it.
    loop {
        let states_seen = join_all(replicas.iter().map(|replica| states(replica, ids))).await;
        if states_seen.iter().flatten().all(|state| state == "SUCCEEDED") {
            return (ended.elapsed(), wrong);
        }
        if ended.elapsed() > SOON {
            wrong.push(format!(
                "iteration {iteration}: {SOON:?} after the outage the replicas report {states_seen:?}, observed in order {order:?}"
            ));
            return (ended.elapsed(), wrong);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn begin(outage: Outage, iteration: usize, site: &mut Site) {
    let set = |option: &str, value: &str| redis::cmd("CONFIG").arg("SET").arg(option).arg(value).to_owned();
    match outage {
        Outage::Kill => site.redis.kill(),
        Outage::Stop => site.redis.signal("STOP"),
        Outage::Flush => {
            let () = site.redis.execute(&redis::cmd("FLUSHALL")).await;
        }
        Outage::ReadOnly if iteration.is_multiple_of(2) => {
            let () = site.redis.execute(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1)).await;
        }
        Outage::ReadOnly => {
            let () = site.redis.execute(&set("min-replicas-to-write", "1")).await;
        }
        Outage::OutOfMemory => {
            let () = site.redis.execute(&set("maxmemory", "1")).await;
        }
    }
}

async fn end(outage: Outage, site: &mut Site) {
    let set = |option: &str, value: &str| redis::cmd("CONFIG").arg("SET").arg(option).arg(value).to_owned();
    match outage {
        Outage::Kill => site.redis.restart_empty().await,
        Outage::Stop => site.redis.signal("CONT"),
        Outage::Flush => {}
        Outage::ReadOnly => {
            let () = site.redis.execute(redis::cmd("REPLICAOF").arg("NO").arg("ONE")).await;
            let () = site.redis.execute(&set("min-replicas-to-write", "0")).await;
        }
        Outage::OutOfMemory => {
            let () = site.redis.execute(&set("maxmemory", "0")).await;
        }
    }
}

/// What a replica reports of jobs; the state of each incomplete job is fetched from the upstream.
async fn states(replica: &Replica, ids: &[String]) -> Vec<String> {
    let refs: Vec<Value> = ids.iter().map(|id| external("metrics", id)).collect();
    let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs, maxStaleness: \"0ms\") {ANY} }}");
    let data = execute(replica.address, &query, json!({ "refs": refs })).await;
    let nodes = data.and_then(|mut data| data["jobs"].take().as_array().cloned()).unwrap_or_default();
    nodes.iter().map(describe).collect()
}

/// Spends the budget of the source of one iteration: every request is for another job, so it costs a call or is
/// rejected.
async fn spend(replica: &Replica, iteration: usize, place: usize, stop: &CancellationToken) {
    let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
    for number in 0_usize.. {
        let reference = external(&format!("tight{iteration}"), &format!("b{iteration}x{place}n{number}"));
        let request = execute(replica.address, &query, json!({ "ref": reference }));
        tokio::select! {
            _ = request => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
    }
}
