//! The transitions of jobs in the shared store: each replica has each of them once, also after an outage of Redis.

use jiff::Timestamp;
use jobgate::domain::job::Life;
use jobgate::domain::observation::Observation;
use jobgate::domain::state::JobState;
use jobgate::outbound::redis::SharedStore;
use jobgate::ports::store::JobStore as _;

use crate::redis_shared_store::{held, key, running, seen, settings, tier, until};
use crate::support::redis::Redis;

/// The states and times of a history.
fn transitions(of: &Observation) -> Vec<(JobState, Timestamp)> {
    of.history.transitions().iter().map(|one| (one.state, one.observed_at)).collect()
}

#[tokio::test]
async fn replicas_have_each_transition_once() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let lives = [Life::Queued, Life::Running, Life::Running, Life::Succeeded, Life::Queued, Life::Succeeded];
    let mut expected = Vec::new();
    for (index, life) in (1..).zip(lives) {
        let new = seen("a", life, 10 * index);
        if expected.last().is_none_or(|(state, _)| *state != new.job.state()) {
            expected.push((new.job.state(), new.observed_at));
        }
        let (writer, reader) = if index % 2 == 0 { (&one, &other) } else { (&other, &one) };
        writer.store().keep(new).await;
        for replica in [writer, reader, &tier(&redis)] {
            for _ in 0..2 {
                let shared = replica.store().refresh(&[key("a")]).await.unwrap().pop().unwrap();
                assert_eq!(transitions(&shared.unwrap()), expected);
            }
        }
    }
    assert_eq!(expected.len(), 5);
}

/// What only one replica observed while Redis was unavailable is in the history of the job that another one stored.
#[tokio::test]
async fn transitions_of_a_redis_outage_are_merged() {
    let mut redis = Redis::start().await;
    let (one, _one_runs) = running(&redis);
    let (other, _other_runs) = running(&redis);
    let [queued, ran, ended] =
        [seen("a", Life::Queued, 10), seen("a", Life::Running, 20), seen("a", Life::Succeeded, 30)];
    one.store().keep(queued.clone()).await;
    assert_eq!(held(&other, "a").await.as_ref(), Some(&queued));
    redis.kill();
    other.store().keep(ran.clone()).await;
    redis.restart_empty().await;
    one.store().keep(ended.clone()).await;
    let expected = [&queued, &ran, &ended].map(|seen| (seen.job.state(), seen.observed_at));
    let has_all = async |replica: &SharedStore| {
        let held = held(replica, "a").await?;
        (transitions(&held) == expected).then_some(())
    };
    until("the replica that observed it has all", || has_all(&other)).await;
    other.store().keep(seen("a", Life::Succeeded, 40)).await;
    let third = SharedStore::new(settings(&redis.url())).unwrap();
    until("the record has all", || has_all(&third)).await;
}
