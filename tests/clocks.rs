//! A system clock that is wrong and is corrected, in either direction, and replicas whose clocks differ: no age, no
//! order and no answer depends on it. `tests/load/clocks.sh` does the same with a real process.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use jobgate::domain::job::Life;
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::JobSnapshot;
use jobgate::outbound::redis::{RedisSettings, SharedStore};
use jobgate::outbound::stores::embedded::{self, EmbeddedStore, RowLimits};
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::outbound::system::SystemClock;
use jobgate::ports::clock::Clock;
use jobgate::ports::ledger::Ledger;
use jobgate::ports::store::{JobStore, StoreOutcome};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::redis_shared_store::{key, run, seen, settings, until};
use crate::support::ports::{FOLLOW, TestGateway, gateway_on, reference, retention};
use crate::support::redis::Redis;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: i64 = 3_600;
/// The steps of the clock: an hour and a day, forwards and back.
const STEPS: [i64; 4] = [HOUR, -HOUR, 24 * HOUR, -24 * HOUR];

/// A machine whose system clock a test sets. Its monotonic clock is the runtime's.
#[derive(Debug)]
struct Machine {
    start: Timestamp,
    began: Instant,
    set_by: AtomicI64,
    /// Time that passed in addition to the runtime's, in seconds.
    passed: AtomicI64,
}

impl Machine {
    /// Started when its system clock was so many seconds ahead.
    fn ahead(seconds: i64) -> Arc<Self> {
        let start = Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        let (set_by, passed) = Default::default();
        Arc::new(Self { start, began: Instant::now(), set_by, passed })
    }

    /// Advances the time by so many seconds, also where the runtime's time is not paused: the thread of the store's
    /// file is not part of the runtime.
    fn pass(&self, seconds: i64) {
        self.passed.fetch_add(seconds, Ordering::Relaxed);
    }

    fn set_by(&self, seconds: i64) {
        self.set_by.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        self.start + self.began.elapsed() + SignedDuration::from_secs(self.passed.load(Ordering::Relaxed))
    }

    fn time_of_day(&self) -> Timestamp {
        self.now() + SignedDuration::from_secs(self.set_by.load(Ordering::Relaxed))
    }
}

fn on(machine: &Arc<Machine>, store: Arc<dyn JobStore>, ledger: Arc<dyn Ledger>) -> TestGateway {
    gateway_on(FOLLOW, Arc::clone(machine) as Arc<dyn Clock>, store, ledger)
}

async fn fresh(gateway: &TestGateway, id: &str) -> JobSnapshot {
    let max = Some(Duration::ZERO);
    gateway.jobs.lookup_one(&Principal::local(), reference("mind", id), max).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_clock_step_does_not_make_a_cached_answer_fresh() {
    for step in STEPS {
        let machine = Machine::ahead(0);
        let gateway = on(&machine, Arc::new(MemoryStore::new(retention())), Arc::new(NoLedger));
        assert_eq!(fresh(&gateway, "a").await.observation.job.state(), JobState::Running);
        tokio::time::advance(SECOND * 5).await;
        machine.set_by(step);
        gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
        let answer = fresh(&gateway, "a").await;
        assert_eq!(answer.observation.job.state(), JobState::Succeeded, "{step}");
        assert_eq!(gateway.mindbridge.calls(), 2, "{step}");
        assert_eq!((answer.age, answer.observed_at), (Duration::ZERO, machine.time_of_day()), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_step_does_not_change_the_age_of_an_answer() {
    for step in STEPS {
        let machine = Machine::ahead(0);
        let gateway = on(&machine, Arc::new(MemoryStore::new(retention())), Arc::new(NoLedger));
        fresh(&gateway, "a").await;
        machine.set_by(step);
        tokio::time::advance(SECOND * 7).await;
        let answer =
            gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), Some(SECOND * 7)).await;
        let answer = answer.unwrap();
        assert_eq!((answer.age, gateway.mindbridge.calls()), (SECOND * 7, 1), "{step}");
        assert_eq!(answer.observed_at + SECOND * 7, machine.time_of_day(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn watchers_receive_every_terminal_state_across_clock_steps() {
    const JOBS: u64 = 40;
    let machine = Machine::ahead(0);
    let gateway = on(&machine, Arc::new(MemoryStore::new(retention())), Arc::new(NoLedger));
    gateway.jobs.start_following(CancellationToken::new());
    let began = Instant::now();
    gateway.mindbridge.respond_with(move |id| {
        let number: u64 = id.as_str().trim_start_matches("job").parse().unwrap();
        let over = began.elapsed() >= SECOND * u32::try_from(5 + number).unwrap();
        Ok(if over { Life::Succeeded } else { Life::Running })
    });
    let refs = (0..JOBS).map(|number| reference("mind", &format!("job{number}"))).collect();
    let mut updates = gateway.jobs.watch(Principal::local(), refs, None).boxed();
    let mut ends = Vec::new();
    let mut steps = STEPS.into_iter().cycle();
    let mut set = tokio::time::interval(SECOND * 3);
    loop {
        tokio::select! {
            update = updates.next() => match update {
                Some(update) if update.is_final => {
                    let answer = update.answer.unwrap();
                    assert!(answer.age < SECOND && answer.stale.is_none(), "{answer:?}");
                    assert_eq!(answer.observation.job.state(), JobState::Succeeded);
                    ends.push(began.elapsed());
                }
                Some(update) => assert!(update.answer.unwrap().age <= SECOND),
                None => break,
            },
            _ = set.tick() => machine.set_by(steps.next().unwrap()),
        }
    }
    assert_eq!(ends.len(), usize::try_from(JOBS).unwrap());
    // Even at the maximum interval a job of this age is polled every few seconds.
    for (number, at) in ends.iter().enumerate() {
        let ended = SECOND * u32::try_from(5 + number).unwrap();
        assert!(*at < ended + SECOND * 15, "completion {number} at {at:?}");
    }
}

/// A folder for a store, removed when it is dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!(
            "jobgate-clocks-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        )))
    }

    fn open(&self, machine: &Arc<Machine>) -> Arc<EmbeddedStore> {
        let settings = embedded::EmbeddedSettings {
            path: self.0.clone(),
            max_bytes: 64 << 20,
            rows: RowLimits::default(),
            retention: retention(),
        };
        Arc::new(EmbeddedStore::open(settings, Arc::clone(machine) as Arc<dyn Clock>).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn a_future_dated_record_is_fetched_again_after_a_restart() {
    for ahead in [HOUR, 20 * HOUR] {
        let folder = Folder::new();
        let before = Machine::ahead(ahead);
        let store = folder.open(&before);
        let gateway = on(&before, Arc::clone(&store) as Arc<_>, Arc::clone(&store) as Arc<_>);
        fresh(&gateway, "a").await;
        store.close().await;
        drop((gateway, store));

        // Its clock is right, so the record is from the future, and stays distrusted when its time has come.
        let after = Machine::ahead(0);
        let store = folder.open(&after);
        after.pass(ahead + 1);
        let gateway = on(&after, Arc::clone(&store) as Arc<_>, Arc::clone(&store) as Arc<_>);
        gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
        let principal = Principal::local();
        let answer =
            gateway.jobs.lookup_one(&principal, reference("mind", "a"), Some(SECOND * 60)).await.unwrap();
        assert_eq!(answer.observation.job.state(), JobState::Succeeded, "{ahead}");
        store.close().await;
        drop((gateway, store));

        let store = folder.open(&Machine::ahead(2 * ahead));
        let held = store.get(&[key("a")]).await.unwrap().pop().unwrap().unwrap();
        assert_eq!(held.job.state(), JobState::Succeeded, "the new fetch was also written to the file");
        store.close().await;
    }
}

#[tokio::test]
async fn only_the_next_run_replaces_a_future_dated_terminal_state() {
    let folder = Folder::new();
    let before = Machine::ahead(HOUR);
    let store = folder.open(&before);
    let gateway = on(&before, Arc::clone(&store) as Arc<_>, Arc::clone(&store) as Arc<_>);
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    fresh(&gateway, "a").await;
    store.close().await;
    drop((gateway, store));

    let after = Machine::ahead(0);
    let store = folder.open(&after);
    let older = seen("a", Life::Running, -1);
    assert!(matches!(store.keep(older).await, StoreOutcome::Older(_)), "it is not withdrawn");
    let again = seen("a", Life::Running, 1);
    assert!(matches!(store.keep(again.clone()).await, StoreOutcome::New(Some(_))), "another run");
    store.close().await;
    drop(store);
    let store = folder.open(&Machine::ahead(10));
    assert_eq!(store.get(&[key("a")]).await.unwrap(), [Some(again)]);
    store.close().await;
}

#[tokio::test]
async fn a_forward_clock_jump_does_not_evict_stored_jobs() {
    let folder = Folder::new();
    let machine = Machine::ahead(0);
    let store = folder.open(&machine);
    let held = seen("a", Life::Running, 0);
    store.keep(held.clone()).await;
    store.close().await;
    drop(store);
    let machine = Machine::ahead(1);
    let store = folder.open(&machine);
    machine.set_by(365 * 24 * HOUR);
    assert_eq!(store.get(&[key("a")]).await.unwrap(), [Some(held)]);
    store.close().await;
}

/// The clock of this machine plus an offset.
#[derive(Debug)]
struct Ahead(SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }
}

fn replica(redis: &Redis, ahead: i64) -> SharedStore {
    let clock = Arc::new(Ahead(SignedDuration::from_secs(ahead)));
    SharedStore::new(RedisSettings { clock, ..settings(&redis.url()) }).unwrap()
}

/// An observation of this moment by the clock of a replica.
fn seen_now(life: Life, ahead: i64) -> Observation {
    let at = Ahead(SignedDuration::from_secs(ahead)).now();
    let seen = seen("a", life, 0);
    Observation::new(seen.job, at, at)
}

#[tokio::test]
async fn replica_clock_skew_does_not_affect_shared_records() {
    let redis = Redis::start().await;
    let ahead = [120, 0, -120];
    let tiers = ahead.map(|ahead| replica(&redis, ahead));
    let _run: Vec<_> = tiers.iter().map(run).collect();
    for (tier, ahead) in tiers.iter().zip(ahead) {
        let measured = || async {
            ((tier.store().health().shared_store?.clock_ahead_ms + ahead * 1_000).abs() < 1_000).then_some(())
        };
        until("its clock is compared with that of Redis", measured).await;
    }
    for (writer, of_writer) in tiers.iter().zip(ahead) {
        let written = seen_now(Life::Running, of_writer);
        writer.store().keep(written).await;
        for (reader, of_reader) in tiers.iter().zip(ahead) {
            let read = reader.store().refresh(&[key("a")]).await.unwrap().pop().unwrap().unwrap();
            let now = Ahead(SignedDuration::from_secs(of_reader)).now();
            let age = now.duration_since(read.observed_at);
            assert!(
                age >= SignedDuration::ZERO && age < SignedDuration::from_secs(30),
                "{age:?} {of_writer} {of_reader}"
            );
        }
    }
    let end = seen_now(Life::Succeeded, -120);
    assert!(
        matches!(tiers[2].store().keep(end).await, StoreOutcome::New(_)),
        "the replica that is behind receives it too"
    );
    let read = tiers[0].store().refresh(&[key("a")]).await.unwrap().pop().unwrap().unwrap();
    assert_eq!(read.job.state(), JobState::Succeeded);
}
