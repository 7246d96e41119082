//! Sweeps of several replicas that share a store: one of them sweeps, and another takes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobgate::domain::id::JobKey;
use jobgate::domain::state::JobState;
use jobgate::ports::BoxFuture;
use jobgate::ports::feed::{FeedEvent, NotificationFeed};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};
use tokio::time::Instant;

use super::{Ground, JOBS, MINUTE, SECOND, ends, one_ends, seconds};

/// How long a lease lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(15);

/// The leases of all replicas: owner, epoch and expiry.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<JobKey, (u64, u64, Instant)>>);

/// One replica. It learns of the writes of the others once a second.
#[derive(Debug)]
pub(crate) struct Replica {
    number: u64,
    leases: Arc<Leases>,
}

impl Replica {
    fn new(number: u64, leases: &Arc<Leases>) -> Arc<Self> {
        Arc::new(Self { number, leases: Arc::clone(leases) })
    }

    fn claim_one(&self, key: &JobKey) -> Claim {
        let now = Instant::now();
        let mut leases = self.leases.0.lock().unwrap();
        match leases.get(key) {
            Some((owner, _, until)) if *owner != self.number && *until > now => {
                Claim::HeldElsewhere { at_most: *until - now, seen: 0 }
            }
            held => {
                let epoch = held.map_or(1, |(_, epoch, _)| epoch + 1);
                leases.insert(key.clone(), (self.number, epoch, now + LEASE));
                Claim::Acquired(FencingToken::Epoch(epoch))
            }
        }
    }
}

impl LeaseManager for Replica {
    fn claim<'a>(&'a self, keys: &'a [JobKey], _: SkipIf) -> BoxFuture<'a, Vec<Claim>> {
        let claims = keys.iter().map(|key| self.claim_one(key)).collect();
        Box::pin(std::future::ready(claims))
    }

    fn renew_every(&self) -> Duration {
        LEASE / 3
    }

    fn renew<'a>(&'a self, held: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()> {
        let mut leases = self.leases.0.lock().unwrap();
        for (key, token) in held {
            if let Some((owner, epoch, until)) = leases.get_mut(key)
                && *owner == self.number
                && FencingToken::Epoch(*epoch) == *token
            {
                *until = Instant::now() + LEASE;
            }
        }
        Box::pin(std::future::ready(()))
    }

    fn release<'a>(&'a self, key: &'a JobKey, token: FencingToken) -> BoxFuture<'a, ()> {
        let mut leases = self.leases.0.lock().unwrap();
        if leases
            .get(key)
            .is_some_and(|(owner, epoch, _)| *owner == self.number && FencingToken::Epoch(*epoch) == token)
        {
            leases.remove(key);
        }
        Box::pin(std::future::ready(()))
    }
}

impl NotificationFeed for Replica {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(async {
            tokio::time::sleep(SECOND).await;
            FeedEvent::Gap
        })
    }
}

#[tokio::test(start_paused = true)]
async fn three_replicas_make_the_lists_of_one() {
    let mut lists = Vec::new();
    for count in [1, 3] {
        let ground = Ground::new().with_jobs(JOBS, |_| Vec::new());
        let leases = Arc::default();
        let replicas: Vec<_> = (0..count)
            .map(|number| {
                let running = ground.start_as(Some(&Replica::new(number, &leases)));
                running.watch(0..JOBS, None);
                running
            })
            .collect();
        tokio::time::sleep(MINUTE * 10).await;
        let before = ground.upstream.calls();
        tokio::time::sleep(MINUTE * 10).await;
        let after = ground.upstream.calls();
        assert!(replicas.iter().all(|one| one.status().in_force && one.status().trusted));
        lists.push(after.0 - before.0);
        for one in replicas {
            one.stop().await;
        }
    }
    assert!(lists[0].abs_diff(lists[1]) <= 2, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_every_replica_once() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 30));
    let leases = Arc::default();
    let replicas = [0, 1, 2].map(|number| ground.start_as(Some(&Replica::new(number, &leases))));
    let start = Instant::now();
    for one in &replicas {
        one.watch(0..JOBS, None);
    }
    tokio::time::sleep(MINUTE * 32).await;
    for one in replicas {
        let ended = one.seen.ended("j7").unwrap() - start;
        assert!(ended < MINUTE * 30 + SECOND * 28, "{ended:?}");
        assert_eq!(one.seen.states("j7"), [JobState::Running, JobState::Succeeded]);
        one.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_only_another_replica_follows_are_swept() {
    let ground = Ground::new().with_jobs(JOBS * 2, |job| ends(MINUTE * 30 + seconds(job)));
    let leases = Arc::default();
    let owner = ground.start_as(Some(&Replica::new(0, &leases)));
    owner.watch(0..JOBS, None);
    tokio::time::sleep(SECOND * 10).await;
    let other = ground.start_as(Some(&Replica::new(1, &leases)));
    let start = Instant::now();
    other.watch(JOBS..JOBS * 2, None);
    tokio::time::sleep(MINUTE * 40).await;
    for job in JOBS..JOBS * 2 {
        let ended = other.seen.ended(&format!("j{job}")).unwrap() - start;
        let late = (ended + SECOND * 10).saturating_sub(MINUTE * 30 + seconds(job));
        assert!(late < SECOND * 30, "{job}: {late:?}");
    }
    owner.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_replica_takes_over_when_the_lease_expires() {
    let ground = Ground::new().with_jobs(JOBS, one_ends(7, MINUTE * 31));
    let leases: Arc<Leases> = Arc::default();
    let owner = ground.start_as(Some(&Replica::new(0, &leases)));
    owner.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 20).await;
    let other = ground.start_as(Some(&Replica::new(1, &leases)));
    let start = Instant::now();
    other.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 10).await;
    assert!(other.status().in_force);
    // The owner stops without a word: its leases stay until they expire.
    let held = leases.0.lock().unwrap().clone();
    owner.stop().await;
    leases.0.lock().unwrap().extend(held);
    let lists = ground.upstream.calls().0;
    tokio::time::sleep(MINUTE * 3).await;
    assert!(ground.upstream.calls().0 > lists, "the other replica sweeps");
    let ended = other.seen.ended("j7").unwrap() - start;
    assert!(ended < MINUTE * 11 + SECOND * 30, "{ended:?}");
    assert_eq!(other.seen.states("j7"), [JobState::Running, JobState::Succeeded]);
    other.stop().await;
}
