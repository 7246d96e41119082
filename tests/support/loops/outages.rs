//! Redis loses its data: it is flushed, restarted, out of memory, or killed with the last second of its writes. No
//! replica may report less than before, and all must report the same soon after.

use std::collections::BTreeMap;
use std::time::Duration;

use jobgate_simulator::MindBridgeStep;
use tokio::time::Instant;

use super::{Now, Outcome, Replica, Site, ended, lookup, metric, until};

/// How Redis loses its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataLoss {
    /// It is killed, and restarts with the data on disk.
    Kill,
    /// `FLUSHALL`.
    Flush,
    /// It is killed, and restarts without data.
    Empty,
    /// It has no memory left for a moment.
    Evict,
}

/// Completed jobs, and running jobs, in each iteration.
const ENDED: usize = 6;
const RUNNING: usize = 4;
/// For how long all of them are read after the fault.
const WHILE: Duration = Duration::from_millis(1_500);

/// The last answer of each replica for each job.
type Before = BTreeMap<(usize, String), Now>;

/// Causes `times` faults of one kind.
pub(crate) async fn run(
    loss: DataLoss,
    times: usize,
    progress: impl Fn(usize, &[String]) + Send + Sync,
) -> Outcome {
    let kept: &[&str] = if loss == DataLoss::Kill { &["--appendonly", "yes"] } else { &[] };
    let mut site = Site::new(kept, Duration::from_secs(1)).await;
    let replicas = [site.replica().await, site.replica().await];
    let third = site.replica().await;
    let (mut bad, mut checked, mut longest) = (Vec::new(), 0, Duration::ZERO);
    // Only a replica that has connected to this Redis can detect that another one is empty.
    for replica in replicas.iter().chain([&third]) {
        if !until(|| async { metric(replica, "jobgate_redis_replicas").await > 2.5 }).await {
            bad.push(format!("{} does not detect the others", replica.address));
        }
    }
    for iteration in 0..times {
        let over: Vec<String> = (0..ENDED).map(|number| format!("o{iteration}e{number}")).collect();
        let on: Vec<String> = (0..RUNNING).map(|number| format!("o{iteration}r{number}")).collect();
        for id in over.iter().chain(&on) {
            site.runs(id);
        }
        for id in &over {
            site.ends(id);
        }
        let ids: Vec<&str> = over.iter().chain(&on).map(String::as_str).collect();
        let mut before = Before::new();
        checked += execute_all(&replicas, &ids, &mut before, &mut bad).await;
        for id in &over {
            site.forget(id);
        }
        let failure = lose_data(loss, &mut site).await;
        let began = Instant::now();
        while began.elapsed() < WHILE {
            if let Some(id) = fastrand::choice(&on) {
                site.upstreams.set_state(id, MindBridgeStep::new("IN_PROGRESS")).unwrap();
            }
            checked += execute_all(&replicas, &ids, &mut before, &mut bad).await;
        }
        let waiting_since = Instant::now();
        for replica in replicas.iter().chain([&third]) {
            let healed = until(|| async { metric(replica, "jobgate_redis_up").await > 0.5 }).await;
            if !healed {
                bad.push(format!("iteration {iteration}: {} does not reconnect to redis", replica.address));
            }
        }
        // A replica that never read them must get from Redis what the upstream has removed.
        let ends: Vec<(String, String)> = over.iter().map(|id| (id.clone(), ended(id))).collect();
        let whole = until(|| async { site.check(third.address, &ends).await.is_empty() }).await;
        longest = longest.max(waiting_since.elapsed());
        if !whole {
            bad.extend(site.check(third.address, &ends).await);
        }
        checked += execute_all(&replicas, &ids, &mut before, &mut bad).await + ends.len();
        for id in &on {
            site.ends(id);
        }
        bad.extend(failure);
        progress(iteration + 1, &bad);
    }
    let notes = vec![format!(
        "a replica that had read none of it returned all terminal states at most {longest:.1?} after the {WHILE:?} that followed"
    )];
    site.stop().await;
    Outcome { tries: times, checked, bad, notes }
}

async fn lose_data(loss: DataLoss, site: &mut Site) -> Option<String> {
    match loss {
        DataLoss::Flush => {
            let () = site.redis.execute(&redis::cmd("FLUSHALL")).await;
        }
        DataLoss::Empty => site.redis.restart_empty().await,
        DataLoss::Kill => {
            site.redis.kill();
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_000))).await;
            site.redis.restart_empty().await;
        }
        DataLoss::Evict => {
            let set =
                |option: &str, value: &str| redis::cmd("CONFIG").arg("SET").arg(option).arg(value).to_owned();
            let () = site.redis.execute(&set("maxmemory-policy", "allkeys-random")).await;
            let () = site.redis.execute(&set("maxmemory", "1")).await;
            let gone = until(|| async {
                let left: i64 = site.redis.execute(&redis::cmd("DBSIZE")).await;
                left == 0
            });
            let gone = gone.await;
            let () = site.redis.execute(&set("maxmemory", "0")).await;
            if !gone {
                return Some("nothing was evicted".to_owned());
            }
        }
    }
    None
}

/// Reads all jobs from each replica, and notes each answer that contains less than the one before.
async fn execute_all(
    replicas: &[Replica; 2],
    ids: &[&str],
    before: &mut Before,
    bad: &mut Vec<String>,
) -> usize {
    for (place, replica) in replicas.iter().enumerate() {
        let Some(now) = lookup(replica.address, ids, Some("100ms")).await else {
            bad.push(format!("{} does not answer", replica.address));
            continue;
        };
        for (id, now) in ids.iter().zip(now) {
            let key = (place, (*id).to_owned());
            if let Some(was) = before.get(&key) {
                let over = was.words == ended(id);
                if (over && was.words != now.words) || was.version > now.version {
                    bad.push(format!("{id} was {was:?} and is {now:?} at replica {place}"));
                }
            } else if now.version < 0 {
                bad.push(format!("{id} is {now:?} at replica {place}"));
            }
            before.insert(key, now);
        }
    }
    ids.len() * replicas.len()
}
