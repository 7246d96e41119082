//! The replica that has a job's turn is stopped between its question and its write, for longer than its lease.

use std::time::Duration;

use futures_util::future::join;
use jobgate::simulator::{Fault, FaultKind, Upstream};
use tokio::time::Instant;

use super::{Outcome, Site, ended, look, metric, until};

/// How long a turn lasts; an owner is stopped for half as long again.
const LEASE: Duration = Duration::from_secs(1);

/// Stops the owner of a turn so many times.
pub(crate) async fn run(times: usize, progress: impl Fn(usize, usize) + Send + Sync) -> Outcome {
    let site = Site::new(&[], LEASE).await;
    let replicas = [site.replica().await, site.replica().await];
    let mut bad = Vec::new();
    let (mut taken, mut longest) = (0_usize, Duration::ZERO);
    for number in 0..times {
        let id = format!("s{number}");
        let [owner, other] = [&replicas[number % 2], &replicas[(number + 1) % 2]];
        site.runs(&id);
        site.upstreams.clear_record();
        site.upstreams.push_fault(Fault::next(Upstream::MindBridge, 1, FaultKind::Hold).for_ids(&[&id]));
        let asked = |answered: bool| {
            let record = site.upstreams.record();
            record.iter().any(|asked| asked.ids.contains(&id) && (!answered || asked.ended.is_some()))
        };
        let stopping = async {
            assert!(until(async || asked(false)).await, "the owner asks");
            owner.process.signal("STOP").await;
            let began = Instant::now();
            // What the upstream said before the end reaches the owner when it wakes up.
            site.upstreams.release();
            assert!(until(async || asked(true)).await, "and is answered");
            site.ends(&id);
            let mut seen = None;
            // A third of the time nobody else comes, and the turn is over all the same.
            if number % 3 > 0 {
                let now = look(other.address, &[&id], Some("100ms")).await;
                seen = now.and_then(|mut now| now.pop()).map(|now| (now.words, began.elapsed()));
            }
            tokio::time::sleep_until(began + LEASE * 3 / 2).await;
            owner.process.signal("CONT").await;
            seen
        };
        let ids = [id.as_str()];
        let (owners, seen) = join(look(owner.address, &ids, None), stopping).await;
        if number % 3 > 0 {
            match seen {
                Some((words, took)) if words == ended(&id) => {
                    taken += 1;
                    longest = longest.max(took);
                }
                other => bad.push(format!("{id} has ended, and the other says {other:?}")),
            }
        }
        let owners = owners.and_then(|mut now| now.pop()).map(|now| now.words);
        if owners.as_ref() != Some(&ended(&id)) {
            bad.push(format!("{id} has ended, and its old owner says {owners:?}"));
        }
        site.forget(&id);
        for replica in &replicas {
            bad.extend(site.check(replica.address, &[(id.clone(), ended(&id))]).await);
        }
        progress(number + 1, bad.len());
    }
    let mut counts = [0.0, 0.0];
    for replica in &replicas {
        counts[0] += metric(replica, "jobgate_redis_fence_refusals_total").await;
        counts[1] += metric(replica, "jobgate_redis_turn_takeovers_total").await;
    }
    let [refused, takeovers] = counts;
    let notes = vec![
        format!("{refused} writes of old owners refused, {takeovers} turns taken over"),
        format!(
            "{taken} ends told by the other replica meanwhile, the latest {longest:.1?} after the owner was stopped (lease {LEASE:?})"
        ),
    ];
    if refused < f64::from(u32::try_from(times).unwrap()) {
        bad.push(format!("of {times} writes only {refused} were refused"));
    }
    site.stop().await;
    Outcome { tries: times, checked: times * 4, bad, notes }
}
