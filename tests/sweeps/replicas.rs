//! Sweeps of several replicas that share a store: one of them sweeps, and another takes over.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobgate::domain::id::{JobKey, SourceName};
use jobgate::domain::state::JobState;
use jobgate::domain::sweep::SweepRecord;
use jobgate::ports::BoxFuture;
use jobgate::ports::feed::{FeedEvent, NotificationFeed};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};
use jobgate::ports::ledger::{Labels, Ledger, LedgerContents};
use jobgate::ports::store::StoreError;
use tokio::time::Instant;

use super::{Ground, JOBS, MINUTE, SECOND, SweepNotes, ends, one_ends, rounds, seconds};

/// How long a lease lasts that is not renewed.
const LEASE: Duration = Duration::from_secs(15);

/// The leases of all replicas: owner, epoch and expiry. Beside them, how many jobs each replica verifies.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<JobKey, (u64, u64, Instant)>>, Mutex<HashMap<u64, u64>>);

impl Leases {
    /// The lease on the sweeps, which is none of a job.
    fn of_sweeps(&self) -> Option<JobKey> {
        let leases = self.0.lock().unwrap();
        leases.keys().find(|key| !key.external_id.as_str().starts_with('j')).cloned()
    }
}

/// What replicas remember together, each under its own leases.
#[derive(Debug)]
struct FencedNotes {
    notes: Arc<SweepNotes>,
    replica: Arc<Replica>,
}

impl Ledger for FencedNotes {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        self.notes.remembered()
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.notes.track(jobs)
    }

    fn follow(&self, _: &JobKey, _: bool) {}

    fn sweep<'a>(&'a self, lease: &'a JobKey) -> BoxFuture<'a, Result<Option<SweepRecord>, StoreError>> {
        self.notes.sweep(lease)
    }

    fn note_sweep<'a>(
        &'a self,
        lease: &'a JobKey,
        record: &'a SweepRecord,
        token: FencingToken,
    ) -> BoxFuture<'a, bool> {
        let held = self.replica.leases.0.lock().unwrap().get(lease).copied();
        let now = Instant::now();
        let holds = held.is_some_and(|(owner, epoch, until)| {
            owner == self.replica.number && FencingToken::Epoch(epoch) == token && until > now
        });
        if holds { self.notes.note_sweep(lease, record, token) } else { Box::pin(async { false }) }
    }

    fn share_verified<'a>(&'a self, _: &'a SourceName, jobs: u64) -> BoxFuture<'a, u64> {
        let mut counts = self.replica.leases.1.lock().unwrap();
        counts.insert(self.replica.number, jobs);
        Box::pin(std::future::ready(counts.values().sum()))
    }
}

/// One replica. It learns of the writes of the others at intervals.
#[derive(Debug)]
pub(crate) struct Replica {
    number: u64,
    leases: Arc<Leases>,
    learns_every: Duration,
}

impl Replica {
    fn new(number: u64, leases: &Arc<Leases>) -> Arc<Self> {
        Self::learning_every(SECOND, number, leases)
    }

    fn learning_every(learns_every: Duration, number: u64, leases: &Arc<Leases>) -> Arc<Self> {
        Arc::new(Self { number, leases: Arc::clone(leases), learns_every })
    }

    pub(super) fn ledger(self: &Arc<Self>, notes: &Arc<SweepNotes>) -> Arc<dyn Ledger> {
        Arc::new(FencedNotes { notes: Arc::clone(notes), replica: Arc::clone(self) })
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
            tokio::time::sleep(self.learns_every).await;
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

#[tokio::test(start_paused = true)]
async fn verification_of_all_replicas_uses_a_tenth_of_the_hour() {
    let ground = Ground::new().with_jobs(JOBS * 3, |_| Vec::new());
    ground.upstream.per_hour.store(100, Ordering::Relaxed);
    let leases = Arc::default();
    let replicas =
        [0, 1, 2].map(|number| ground.start_as(Some(&Replica::learning_every(MINUTE, number, &leases))));
    for (number, one) in replicas.iter().enumerate() {
        one.watch(JOBS * number..JOBS * (number + 1), None);
    }
    tokio::time::sleep(MINUTE * 60).await;
    assert!(replicas.iter().all(|one| one.status().in_force));
    let before = ground.upstream.calls().1;
    tokio::time::sleep(MINUTE * 120).await;
    let reads = ground.upstream.calls().1 - before;
    assert!((8..=20).contains(&reads), "{reads} reads by id in two hours, of 200 calls");
    for one in replicas {
        one.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_lease_records_no_sweep() {
    let ground = Ground::new().with_jobs(JOBS, |_| Vec::new());
    let leases: Arc<Leases> = Arc::default();
    let owner = ground.start_as(Some(&Replica::new(0, &leases)));
    owner.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 5).await;
    *ground.upstream.list_takes.lock().unwrap() = SECOND * 40;
    let begun = ground.upstream.calls().0;
    while ground.upstream.begun.load(Ordering::Relaxed) == begun {
        tokio::time::sleep(SECOND).await;
    }
    let (before, lease) = (rounds(&ground), leases.of_sweeps().unwrap());
    leases.0.lock().unwrap().insert(lease, (9, u64::MAX, Instant::now() + MINUTE * 60));
    tokio::time::sleep(SECOND * 50).await;
    assert_eq!(ground.upstream.calls().0, begun + 1, "the list was completed");
    assert_eq!(rounds(&ground), before, "and not recorded");
    owner.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stops_during_a_list_releases_its_lease() {
    let ground = Ground::new().with_jobs(JOBS, |_| Vec::new());
    let leases: Arc<Leases> = Arc::default();
    let owner = ground.start_as(Some(&Replica::new(0, &leases)));
    owner.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 5).await;
    *ground.upstream.list_takes.lock().unwrap() = MINUTE * 60;
    tokio::time::sleep(MINUTE).await;
    assert!(
        leases.of_sweeps().is_some()
            && ground.upstream.begun.load(Ordering::Relaxed) > ground.upstream.calls().0
    );
    let stopped = Instant::now();
    owner.stop().await;
    assert!(stopped.elapsed() < SECOND && leases.of_sweeps().is_none(), "{:?}", stopped.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_beside_the_replica_that_sweeps_gets_what_it_requires() {
    let ground = Ground::new().with_jobs(JOBS, |job| {
        if job < 5 { ends(MINUTE * 40 + SECOND * 7 * u32::try_from(job).unwrap()) } else { Vec::new() }
    });
    let leases = Arc::default();
    let owner = ground.start_as(Some(&Replica::new(0, &leases)));
    owner.watch(0..JOBS, None);
    tokio::time::sleep(MINUTE * 20).await;
    let other = ground.start_as(Some(&Replica::new(1, &leases)));
    let start = Instant::now() - MINUTE * 20;
    other.watch(0..5, Some(SECOND * 5));
    other.watch(5..JOBS, None);
    tokio::time::sleep(MINUTE * 10).await;
    let (lists, reads) = ground.upstream.calls();
    tokio::time::sleep(MINUTE * 5).await;
    let (lists, reads) = (ground.upstream.calls().0 - lists, ground.upstream.calls().1 - reads);
    assert!(lists <= 15 && (50..=70).contains(&reads), "{lists} lists, {reads} reads of five jobs at once");
    tokio::time::sleep(MINUTE * 10).await;
    for job in 0..5 {
        let late = other.seen.ended(&format!("j{job}")).unwrap() - start;
        let late = late.saturating_sub(MINUTE * 40 + seconds(7 * job));
        assert!(late <= SECOND * 6, "{job}: {late:?}");
    }
    owner.stop().await;
    other.stop().await;
}
