//! The replica that has the lease of a job is suspended between its fetch and its write, for longer than the lease.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join;
use jobgate_simulator::{FaultKind, RecordedRequest, SimFault, SimUpstream};
use tokio::time::Instant;

use super::{Outcome, Site, ended, lookup, metric, until};

/// The duration of a lease; an owner is suspended for one and a half times as long.
const LEASE: Duration = Duration::from_secs(1);

const REFUSED: &str = "jobgate_redis_fenced_writes_total";

fn name(id: &str) -> String {
    format!("jobgate:v1:{{mind/{id}}}")
}

/// Whether the lease of a job has expired, or another replica has acquired it and written.
async fn lease_is_over(site: &Site, id: &str) -> bool {
    let ends: Option<u64> = site.redis.execute(redis::cmd("HGET").arg(name(id)).arg("x")).await;
    let (seconds, micros): (u64, u64) = site.redis.execute(&redis::cmd("TIME")).await;
    ends.is_none_or(|ends| ends < seconds * 1_000_000 + micros)
}

/// Suspends the owner of a lease `times` times.
pub(crate) async fn run(times: usize, progress: impl Fn(usize, &[String]) + Send + Sync) -> Outcome {
    let site = Site::new(&[], LEASE).await;
    let replicas = [site.replica().await, site.replica().await];
    let (mut bad, stuck) = (Vec::new(), Mutex::new(Vec::new()));
    let (mut taken, mut longest) = (0_usize, Duration::ZERO);
    for number in 0..times {
        let id = format!("s{number}");
        let [owner, other] = [&replicas[number % 2], &replicas[(number + 1) % 2]];
        site.runs(&id);
        site.upstreams.clear_record();
        // Of each three: no other replica fetches, the other has the lease and still fetches, the other has written the
        // result.
        let (comes, long_fetch) = (number % 3 > 0, number % 3 == 1);
        let hold = SimFault::next(SimUpstream::MindBridge, if long_fetch { 2 } else { 1 }, FaultKind::Hold);
        site.upstreams.push_fault(hold.for_ids(&[&id]));
        let requested = |count: usize, answered: bool| {
            let record = site.upstreams.record();
            let of_it = |request: &&RecordedRequest| {
                request.ids.contains(&id) && (!answered || request.ended.is_some())
            };
            record.iter().filter(of_it).count() >= count
        };
        let refused = metric(owner, REFUSED).await;
        let stopping = async {
            assert!(until(async || requested(1, false)).await, "the owner fetches");
            owner.process.signal("STOP").await;
            assert!(until(async || owner.process.is_stopped()).await, "the owner is suspended");
            let began = Instant::now();
            // The earlier answer of the upstream reaches the owner when it resumes.
            site.upstreams.release();
            assert!(until(async || requested(1, true)).await, "and is answered");
            site.ends(&id);
            let question = async {
                if !comes {
                    return None;
                }
                let now = lookup(other.address, &[&id], Some("100ms")).await;
                now.and_then(|mut now| now.pop()).map(|now| (now.words, began.elapsed()))
            };
            let waking = async {
                // Times out where the other cannot acquire the lease: its answer shows that.
                let comes = !long_fetch || until(async || requested(2, false)).await;
                tokio::time::sleep_until(began + LEASE * 3 / 2).await;
                // By the server's clock, which decides: a renewal may have reached it late.
                let over = until(async || lease_is_over(&site, &id).await || long_fetch).await;
                if !comes || !over {
                    let lease: Vec<Option<String>> =
                        site.redis.execute(redis::cmd("HMGET").arg(name(&id)).arg(&["o", "e", "x"])).await;
                    stuck
                        .lock()
                        .unwrap()
                        .push(format!("{id}: no other replica fetches, the lease is {lease:?}"));
                }
                owner.process.signal("CONT").await;
                if long_fetch {
                    // Whether it is rejected at all is counted after the loop.
                    until(async || metric(owner, REFUSED).await > refused).await;
                    site.upstreams.release();
                }
            };
            join(question, waking).await.0
        };
        let ids = [id.as_str()];
        let (owners, seen) = join(lookup(owner.address, &ids, None), stopping).await;
        if comes {
            match seen {
                Some((words, took)) if words == ended(&id) => {
                    taken += 1;
                    longest = longest.max(took);
                }
                other => bad.push(format!("{id} has completed, and the other reports {other:?}")),
            }
        }
        let owners = owners.and_then(|mut now| now.pop()).map(|now| now.words);
        if owners.as_ref() != Some(&ended(&id)) {
            // When it was fetched, and the outcome: a fetch that was not delayed proves nothing about the fence.
            let record = site.upstreams.record();
            let request: Vec<_> = record
                .iter()
                .filter(|request| request.ids.contains(&id))
                .map(|request| {
                    (request.started.elapsed(), request.ended.map(|at| at.elapsed()), request.fault)
                })
                .collect();
            bad.push(format!(
                "{id} has completed, and its old owner reports {owners:?}; fetched {request:?} ago"
            ));
        }
        site.forget(&id);
        for replica in &replicas {
            bad.extend(site.check(replica.address, &[(id.clone(), ended(&id))]).await);
        }
        bad.append(&mut stuck.lock().unwrap());
        progress(number + 1, &bad);
    }
    let mut counts = [0.0, 0.0];
    for replica in &replicas {
        counts[0] += metric(replica, REFUSED).await;
        counts[1] += metric(replica, "jobgate_redis_lease_takeovers_total").await;
    }
    let [refused, takeovers] = counts;
    let fenced = (0..times).filter(|number| number % 3 < 2).count();
    let notes = vec![
        format!(
            "{refused} writes of old owners rejected by their fencing token, the other {} older than the stored record; {takeovers} leases taken over",
            times - fenced
        ),
        format!(
            "{taken} terminal states delivered by the other replica, the latest {longest:.1?} after the owner was suspended (lease {LEASE:?}, some answers delayed)"
        ),
    ];
    if refused < f64::from(u32::try_from(fenced).unwrap()) {
        bad.push(format!("of {fenced} writes only {refused} were rejected"));
    }
    site.stop().await;
    Outcome { tries: times, checked: times * 4, bad, notes }
}
