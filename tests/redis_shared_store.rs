//! What replicas share, on a real server: records, leases and notifications (the budgets: `redis_budget`). Each replica
//! here is its own shared store in this process; `redis_replicas` has real processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use jobgate::domain::details::Details;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::domain::sweep::SweepRecord;
use jobgate::outbound::redis::{RedisSettings, SharedStore, TopologyMode};
use jobgate::outbound::stores::memory::Retention;
use jobgate::outbound::system::SystemClock;
use jobgate::ports::feed::{ChangeNotification, FeedEvent, NotificationFeed as _, RemoteChange};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager as _, SkipIf};
use jobgate::ports::ledger::Ledger as _;
use jobgate::ports::store::{JobStore as _, ListFilter, StoreOutcome};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::redis::Redis;
use crate::support::streams::LIMIT;

/// A lease that expires in a test.
pub(crate) const LEASE: Duration = Duration::from_millis(300);
/// A lease that never expires in a test, however busy the machine is.
const LONG: Duration = Duration::from_mins(5);
/// How long one command may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn settings(url: &str) -> RedisSettings {
    let day = Duration::from_hours(24);
    RedisSettings {
        urls: url.into(),
        mode: TopologyMode::Single,
        authorities: None,
        sentinel_password: None,
        prefix: "test".to_owned(),
        record_secret: Some("a secret of the test".into()),
        lease: LONG,
        // long enough for a busy machine: no server is slow, except one that a test suspends
        timeout: TIMEOUT,
        max_record: 64 << 10,
        retention: Retention {
            max_bytes: 64 << 20,
            finished: day,
            unfinished: day,
            missing: Duration::from_mins(5),
        },
        clock: Arc::new(SystemClock),
    }
}

pub(crate) fn tier(redis: &Redis) -> SharedStore {
    SharedStore::new(settings(&redis.url())).unwrap()
}

/// Runs the heartbeat and the subscription of a shared store for as long as the guard exists.
#[expect(clippy::disallowed_methods, reason = "a task of the test, not of the gateway")]
pub(crate) fn run(tier: &SharedStore) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn(tier.clone().run(stop.clone()));
    stop.drop_guard()
}

pub(crate) fn running(redis: &Redis) -> (SharedStore, DropGuard) {
    let tier = tier(redis);
    let runs = run(&tier);
    (tier, runs)
}

pub(crate) fn key(id: &str) -> JobKey {
    JobKey { source: SourceName::parse("mind").unwrap(), external_id: ExternalId::parse(id).unwrap() }
}

/// A job as observed by a fetch of this second.
pub(crate) fn seen(id: &str, life: Life, second: i64) -> Observation {
    let at = |millis| Timestamp::from_millisecond(1_700_000_000_000 + second * 1_000 + millis).unwrap();
    let job = Job::new(key(id), life, Details::MindBridge(Box::default()));
    Observation::new(Arc::new(job), at(0), at(500))
}

pub(crate) async fn held(tier: &SharedStore, id: &str) -> Option<Observation> {
    tier.store().get(&[key(id)]).await.unwrap().pop().unwrap()
}

async fn claim(tier: &SharedStore, id: &str, unless: SkipIf) -> Claim {
    tier.leases().claim(&[key(id)], unless).await.pop().unwrap()
}

/// Repeats a read until it returns a value.
pub(crate) async fn until<T, F: Future<Output = Option<T>> + Send>(
    what: &str,
    again: impl Fn() -> F + Send + Sync,
) -> T {
    let held = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            if let Some(found) = again().await {
                return found;
            }
        }
    };
    let held = tokio::time::timeout(LIMIT, held).await;
    assert!(held.is_ok(), "not within {LIMIT:?}: {what}");
    held.unwrap()
}

#[tokio::test]
async fn replicas_agree_on_when_a_run_was_first_seen() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let (first, second, last) =
        (seen("a", Life::Queued, 10), seen("a", Life::Running, 20), seen("a", Life::Succeeded, 30));
    one.store().keep(first.clone()).await;
    other.store().keep(second.clone()).await;
    one.store().keep(last.clone()).await;
    for replica in [&one, &other, &tier(&redis)] {
        let held = held(replica, "a").await.unwrap();
        assert_eq!(held, last);
        let sightings = held.sightings;
        assert_eq!(sightings.first_seen_at, Some(first.observed_at));
        assert_eq!(sightings.state_since, Some(last.observed_at));
        assert_eq!(sightings.terminal_seen_at, Some(last.observed_at));
    }
}

#[tokio::test]
async fn a_new_run_has_its_own_first_seen_time() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    one.store().keep(seen("a", Life::Succeeded, 30)).await;
    let rerun = seen("a", Life::Running, 40);
    other.store().keep(rerun.clone()).await;
    let held = held(&tier(&redis), "a").await.unwrap();
    assert_eq!(
        (held.sightings.first_seen_at, held.sightings.terminal_seen_at),
        (Some(rerun.observed_at), None)
    );
}

#[tokio::test]
async fn replicas_share_records() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let (first, second) = (seen("a", Life::Running, 10), seen("a", Life::Succeeded, 20));
    assert_eq!(one.store().keep(first.clone()).await, StoreOutcome::New(None));
    assert_eq!(held(&other, "a").await, Some(first.clone()));
    assert_eq!(one.store().keep(second.clone()).await, StoreOutcome::New(Some(first)));
    assert_eq!(held(&other, "a").await, Some(second), "an unfinished job is read again");
}

#[tokio::test]
async fn a_replica_rejects_an_older_record_than_the_shared_one() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let (first, second) = (seen("a", Life::Running, 10), seen("a", Life::Succeeded, 20));
    one.store().keep(first.clone()).await;
    one.store().keep(second.clone()).await;
    assert_eq!(held(&other, "a").await, Some(second.clone()));
    for late in [first, seen("a", Life::Running, 15)] {
        assert_eq!(other.store().keep(late.clone()).await, StoreOutcome::Older(second.clone()));
        assert_eq!(
            tier(&redis).store().keep(late).await,
            StoreOutcome::Older(second.clone()),
            "only that replica has it"
        );
    }
}

#[tokio::test]
async fn a_terminal_state_is_served_from_memory_until_refreshed() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let second = seen("a", Life::Succeeded, 20);
    one.store().keep(second.clone()).await;
    assert_eq!(held(&other, "a").await, Some(second.clone()));
    let rerun = seen("a", Life::Running, 30);
    one.store().keep(rerun.clone()).await;
    assert_eq!(held(&other, "a").await, Some(second));
    let refreshed = other.store().refresh(&[key("a")]).await.unwrap();
    assert_eq!(refreshed, [Some(rerun.clone())], "a notification makes it read again");
    assert_eq!(held(&other, "a").await, Some(rerun));
}

#[tokio::test]
async fn a_list_contains_the_jobs_of_all_replicas_in_order() {
    let redis = Redis::start().await;
    let tiers = [tier(&redis), tier(&redis), tier(&redis)];
    for number in 0..250_i64 {
        let which = usize::try_from(number).unwrap() % 3;
        tiers[which].store().keep(seen(&format!("job-{number:03}"), Life::Running, number)).await;
    }
    let gone: i64 = redis.execute(redis::cmd("DEL").arg("test:v1:{mind/job-003}")).await;
    assert_eq!(gone, 1);
    let fresh = tier(&redis);
    let page = fresh.store().list(&ListFilter::default(), Some(&key("job-001")), 3).await.unwrap();
    let names: Vec<_> = page.iter().map(|one| one.job.key.external_id.as_str()).collect();
    assert_eq!(names, ["job-002", "job-004", "job-005"]);
    let all = fresh.store().list(&ListFilter::default(), None, 1_000).await.unwrap();
    assert_eq!(all.len(), 249);
}

/// A process that can write to Redis but does not know the secret can delay, and cannot forge a job's state.
#[tokio::test]
async fn a_record_with_an_invalid_mac_is_a_cache_miss() {
    let redis = Redis::start().await;
    let writer = tier(&redis);
    writer.store().keep(seen("a", Life::Succeeded, 1)).await;
    writer.store().keep(seen("b", Life::Running, 1)).await;
    let good = record(&redis, "a").await;
    let put = async |bytes: &[u8]| {
        put(&redis, "b", bytes).await;
        let reader = tier(&redis);
        (held(&reader, "b").await, reader.store().health().damaged)
    };
    assert_eq!(put(&good).await, (None, 1), "the record of another job");
    for place in (0..good.len()).step_by(7) {
        let mut bent = good.clone();
        bent[place] ^= 0x10;
        assert_eq!(put(&bent).await, (None, 1), "byte {place}");
        assert_eq!(put(&good[..place]).await, (None, 1), "cut at {place}");
    }
    let unsealed = SharedStore::new(RedisSettings { record_secret: None, ..settings(&redis.url()) }).unwrap();
    assert_eq!(held(&unsealed, "a").await, None, "authenticated with an unknown secret");
}

#[tokio::test]
async fn a_damaged_record_is_replaced() {
    let redis = Redis::start().await;
    tier(&redis).store().keep(seen("b", Life::Running, 1)).await;
    let good = record(&redis, "b").await;
    put(&redis, "b", &good[..good.len() - 1]).await;
    let kept = tier(&redis).store().keep(seen("b", Life::Running, 9)).await;
    assert_eq!(kept, StoreOutcome::New(None));
}

async fn record(redis: &Redis, id: &str) -> Vec<u8> {
    redis.execute(redis::cmd("HGET").arg(format!("test:v1:{{mind/{id}}}")).arg("r")).await
}

async fn put(redis: &Redis, id: &str, record: &[u8]) {
    let name = format!("test:v1:{{mind/{id}}}");
    let _: i64 = redis.execute(redis::cmd("HSET").arg(name).arg("r").arg(record)).await;
}

async fn acquired(tier: &SharedStore) -> FencingToken {
    let claim = claim(tier, "a", SkipIf::Never).await;
    let Claim::Acquired(fencing_token) = claim else { unreachable!("it is free: {claim:?}") };
    fencing_token
}

#[tokio::test]
async fn a_job_has_one_lease_at_a_time() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let fencing_token = acquired(&one).await;
    let theirs = claim(&other, "a", SkipIf::Never).await;
    let Claim::HeldElsewhere { at_most, .. } = theirs else { panic!("{theirs:?}") };
    assert!(at_most <= LONG, "{at_most:?}");
    one.leases().release(&key("a"), fencing_token).await;
    acquired(&other).await;
}

#[tokio::test]
async fn a_write_releases_its_lease() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let fencing_token = acquired(&one).await;
    assert!(one.store().keep_under(seen("a", Life::Running, 1), fencing_token).await.is_some());
    acquired(&other).await;
    assert_eq!(
        one.store().keep_under(seen("a", Life::Running, 2), fencing_token).await,
        None,
        "a lease ends once"
    );
}

#[tokio::test]
async fn a_claim_is_unneeded_once_another_replica_has_stored() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let fencing_token = acquired(&one).await;
    let theirs = claim(&other, "a", SkipIf::Never).await;
    let Claim::HeldElsewhere { seen: before, .. } = theirs else { panic!("{theirs:?}") };
    assert!(
        matches!(claim(&other, "a", SkipIf::KeptSince(before)).await, Claim::HeldElsewhere { .. }),
        "nothing was stored"
    );
    assert!(one.store().keep_under(seen("a", Life::Running, 1), fencing_token).await.is_some());
    assert_eq!(claim(&other, "a", SkipIf::KeptSince(before)).await, Claim::Unneeded);
    assert_eq!(claim(&other, "a", SkipIf::KeptWithin(LIMIT)).await, Claim::Unneeded);
}

#[tokio::test]
async fn an_old_fencing_token_releases_no_lease() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let old = acquired(&one).await;
    assert!(one.store().keep_under(seen("a", Life::Running, 1), old).await.is_some());
    let newer = acquired(&other).await;
    one.leases().release(&key("a"), old).await;
    assert!(matches!(claim(&one, "a", SkipIf::Never).await, Claim::HeldElsewhere { .. }));
    other.leases().release(&key("a"), newer).await;
    acquired(&one).await;
}

#[tokio::test]
async fn a_not_found_is_shared_only_under_the_lease_that_found_it() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let fencing_token = acquired(&one).await;
    assert!(one.store().note_missing_under(&key("a"), fencing_token).await);
    assert_eq!(claim(&other, "a", SkipIf::KeptWithin(LIMIT)).await, Claim::Unneeded);
    assert_eq!(held(&other, "a").await, None);
    assert!(other.store().missing_for(&key("a")).await.unwrap().is_some());
    assert!(!one.store().note_missing_under(&key("a"), fencing_token).await, "that lease has ended");
}

#[tokio::test]
async fn an_observation_replaces_a_shared_not_found() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let fencing_token = acquired(&one).await;
    assert!(one.store().note_missing_under(&key("a"), fencing_token).await);
    other.store().keep(seen("a", Life::Queued, 1)).await;
    assert!(held(&tier(&redis), "a").await.is_some());
}

/// An owner that is suspended between fetch and write for longer than its lease learns that when it writes: also when
/// no other replica came, and also when the other has not written yet.
#[tokio::test]
async fn writes_under_an_expired_lease_are_rejected() {
    let redis = Redis::start().await;
    let one = SharedStore::new(RedisSettings { lease: LEASE, ..settings(&redis.url()) }).unwrap();
    let other = tier(&redis);
    let ids: Vec<String> = (0..60).map(|number| format!("job-{number}")).collect();
    let keys: Vec<JobKey> = ids.iter().map(|id| key(id)).collect();
    let claims = one.leases().claim(&keys, SkipIf::Never).await;
    let fences: Vec<FencingToken> =
        claims
            .iter()
            .map(|claim| {
                if let Claim::Acquired(fencing_token) = claim { *fencing_token } else { panic!("{claim:?}") }
            })
            .collect();
    // The other acquires two thirds as soon as it can, and writes for half of these: with times of a clock that is
    // behind.
    let rounds = keys.iter().enumerate().filter(|(number, _)| number % 3 > 0);
    join_all(rounds.map(async |(number, key)| {
        until("the lease expires", || async {
            let claim = other.leases().claim(std::slice::from_ref(key), SkipIf::Never).await.pop().unwrap();
            let Claim::Acquired(fencing_token) = claim else { return None };
            if number % 3 == 1 {
                return Some(());
            }
            let ended = seen(key.external_id.as_str(), Life::Succeeded, 5);
            other.store().keep_under(ended, fencing_token).await.map(drop)
        })
        .await;
    }))
    .await;
    let store = one.store();
    let late = ids
        .iter()
        .zip(&fences)
        .map(|(id, fencing_token)| store.keep_under(seen(id, Life::Running, 1_000), *fencing_token));
    let accepted = join_all(late).await.into_iter().flatten().count();
    assert_eq!(accepted, 0);
    for id in ids.iter().skip(2).step_by(3) {
        assert_eq!(held(&tier(&redis), id).await, Some(seen(id, Life::Succeeded, 5)));
    }
}

#[tokio::test]
async fn a_lease_lasts_while_it_is_renewed() {
    let redis = Redis::start().await;
    // long enough for a busy machine to renew in time
    let lease = LEASE * 10;
    let [one, other] =
        [(), ()].map(|()| SharedStore::new(RedisSettings { lease, ..settings(&redis.url()) }).unwrap());
    let number = AtomicUsize::new(0);
    until("a machine that is not suspended for the duration of a lease", || async {
        let id = format!("a{}", number.fetch_add(1, Ordering::Relaxed));
        renewed(&one, &other, lease, &id).await
    })
    .await;
}

/// Holds a lease for longer than its duration. `None` when this machine was suspended for so long that the lease may
/// have expired: then the result proves nothing.
async fn renewed(one: &SharedStore, other: &SharedStore, lease: Duration, id: &str) -> Option<()> {
    let began = Instant::now();
    let mut last = began;
    let mine = claim(one, id, SkipIf::Never).await;
    let Claim::Acquired(fencing_token) = mine else { unreachable!("the first has the lease: {mine:?}") };
    let mut ticks = tokio::time::interval(one.leases().renew_every());
    while began.elapsed() < lease * 3 / 2 {
        ticks.tick().await;
        let now = Instant::now();
        one.leases().renew(&[(key(id), fencing_token)]).await;
        if last.elapsed() >= lease {
            return None;
        }
        last = now;
        let theirs = claim(other, id, SkipIf::Never).await;
        if last.elapsed() >= lease {
            return None;
        }
        assert!(matches!(theirs, Claim::HeldElsewhere { .. }), "{theirs:?}");
    }
    let kept = one.store().keep_under(seen(id, Life::Running, 1), fencing_token).await;
    if last.elapsed() >= lease {
        return None;
    }
    assert!(kept.is_some());
    Some(())
}

/// Waits until a running shared store is subscribed: it receives whatever is sent from then on.
pub(crate) async fn listens(tier: &SharedStore) {
    until("it is subscribed", || async { (tier.store().health().shared_store?.gaps > 0).then_some(()) })
        .await;
}

/// The next notifications. The feed also has events for elapsed time, which occur on a busy machine.
async fn next_notifications(tier: &SharedStore) -> FeedEvent {
    let next = async {
        loop {
            let event = tier.leases().next().await;
            if event != FeedEvent::Gap {
                return event;
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.unwrap()
}

#[tokio::test]
async fn replicas_receive_only_the_notifications_of_others() {
    let redis = Redis::start().await;
    let (one, _one_runs) = running(&redis);
    let (other, _other_runs) = running(&redis);
    for tier in [&one, &other] {
        listens(tier).await;
        assert_eq!(tier.leases().next().await, FeedEvent::Gap, "earlier messages are not delivered");
    }
    one.store().keep(seen("a", Life::Running, 1)).await;
    let notifications = |what| FeedEvent::Notifications(vec![ChangeNotification { key: key("a"), what }]);
    assert_eq!(next_notifications(&other).await, notifications(RemoteChange::Changed));
    one.store().keep(seen("a", Life::Running, 2)).await;
    assert_eq!(next_notifications(&other).await, notifications(RemoteChange::Renewed));
    let labels = [("team".to_owned(), "x".to_owned())].into_iter().collect();
    other.ledger().track(vec![(key("a"), Some(labels))]).await.unwrap();
    assert_eq!(
        next_notifications(&one).await,
        notifications(RemoteChange::Tracked),
        "its own messages are not delivered"
    );
}

#[tokio::test]
async fn replicas_share_tracked_jobs() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let labels = [("team".to_owned(), "x".to_owned())].into_iter().collect();
    other.ledger().track(vec![(key("a"), Some(labels))]).await.unwrap();
    let remembered = one.ledger().remembered().await.unwrap();
    assert_eq!(remembered.tracked.len(), 1);
    other.ledger().track(vec![(key("a"), None)]).await.unwrap();
    assert_eq!(one.ledger().remembered().await.unwrap().tracked, []);
}

#[tokio::test]
async fn replicas_share_the_sweeps_of_a_source() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let lease = key("lease");
    assert_eq!(one.ledger().sweep(&lease).await.unwrap(), None);
    let record = SweepRecord { rounds: 3, watermark: Some(Timestamp::UNIX_EPOCH), ..SweepRecord::default() };
    assert!(other.ledger().note_sweep(&lease, &record, FencingToken::Alone).await);
    assert_eq!(one.ledger().sweep(&lease).await.unwrap(), Some(record));
}

#[tokio::test]
async fn sweeps_are_recorded_under_the_present_lease_alone() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let lease = key("lease");
    let rounds = |rounds| SweepRecord { rounds, ..SweepRecord::default() };
    let claim = async |of: &SharedStore| match of
        .leases()
        .claim(std::slice::from_ref(&lease), SkipIf::Never)
        .await[0]
    {
        Claim::Acquired(token) => token,
        claim @ (Claim::HeldElsewhere { .. } | Claim::Unneeded) => panic!("{claim:?}"),
    };
    let first = claim(&one).await;
    assert!(one.ledger().note_sweep(&lease, &rounds(1), first).await);
    assert!(one.ledger().note_sweep(&lease, &rounds(2), first).await, "the lease stays");
    assert!(!other.ledger().note_sweep(&lease, &rounds(9), first).await, "the lease of another replica");
    one.leases().release(&lease, first).await;
    let second = claim(&other).await;
    assert!(!one.ledger().note_sweep(&lease, &rounds(9), first).await, "a lease that is over");
    assert!(other.ledger().note_sweep(&lease, &rounds(3), second).await);
    assert_eq!(one.ledger().sweep(&lease).await.unwrap(), Some(rounds(3)));
}

#[tokio::test]
async fn replicas_count_the_jobs_that_all_of_them_verify() {
    let redis = Redis::start().await;
    let (one, other) = (tier(&redis), tier(&redis));
    let source = key("a").source;
    assert_eq!(one.ledger().share_verified(&source, 100).await, 100);
    assert_eq!(other.ledger().share_verified(&source, 40).await, 140);
    assert_eq!(one.ledger().share_verified(&source, 7).await, 47);
}
