//! The budget of one source, counted in Redis for all replicas: exact over any second and any hour, by the server's
//! clock.
//!
//! Each replica reads all calls once a second, and reports those that it made while the server was unavailable. So the
//! shared count can be restored after it was lost (emptied, restored from an older state, or past a step of the
//! server's clock): it has a mark, and a replica that finds a different mark puts back the calls that it knows before
//! it calls again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::heartbeat::MISSED_AFTER;
use super::replica::RedisReplica;
use super::stats;
use super::unavailable::Unavailable;
use crate::domain::budget::SharedUse;
use crate::domain::id::SourceName;
use crate::outbound::upstreams::limiter::LimiterSettings;
use crate::outbound::upstreams::limiter::shared::{SharedBudget, SharedDecision, SharedWindow};
use crate::ports::BoxFuture;

/// A slot expires after this long if its replica terminated. Longer than any call.
const SLOT_MS: &[u8] = b"120000";
/// The retry delay when all slots are taken.
const SLOT_WAIT: Duration = Duration::from_millis(25);
/// How often a replica reads the calls of the others.
const EVERY: Duration = Duration::from_secs(1);
/// A shared count younger than this may lack calls that other replicas still have to put back.
const YOUNG: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_hours(1);
/// How often a call is retried if the shared count is replaced each time.
const TRIES: usize = 3;

/// The shared budget of one source.
#[derive(Debug)]
pub(super) struct RedisBudget {
    replica: Arc<RedisReplica>,
    /// The calls, the slots, the pause, the metadata of the count, and the demand of each replica.
    names: [String; 5],
    began: Instant,
    known: Mutex<CommonCount>,
    /// Locked during a synchronization.
    syncing: tokio::sync::Mutex<()>,
}

/// The last known state of the shared count.
#[derive(Debug, Default)]
struct CommonCount {
    /// The mark of the count; empty before the first synchronization.
    mark: String,
    window: SharedWindow,
    /// The demand of this replica, and that of the others.
    own: Needs,
    others: Needs,
}

/// The demand of replicas for a budget.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    /// Calls an hour for polls.
    demand: u32,
    /// Calls of the last hour for callers.
    callers: u32,
}

/// The budgets of this process, each for as long as its source exists.
#[derive(Debug, Default)]
pub(super) struct RedisBudgets(Mutex<Vec<Weak<RedisBudget>>>);

impl RedisBudgets {
    pub(super) fn add(&self, budget: &Arc<RedisBudget>) {
        self.lock().push(Arc::downgrade(budget));
    }

    fn all(&self) -> Vec<Arc<RedisBudget>> {
        let mut budgets = self.lock();
        budgets.retain(|budget| budget.strong_count() > 0);
        budgets.iter().filter_map(Weak::upgrade).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<RedisBudget>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Synchronises all budgets once a second, for ever.
pub(super) async fn keep_in_step(budgets: &RedisBudgets) {
    loop {
        join_all(budgets.all().iter().map(async |budget| budget.sync(None).await.ok())).await;
        tokio::time::sleep(EVERY).await;
    }
}

impl RedisBudget {
    pub(super) fn new(replica: Arc<RedisReplica>, source: &SourceName) -> Self {
        let names = replica.keys.budget(source);
        Self {
            replica,
            names,
            began: Instant::now(),
            known: Mutex::default(),
            syncing: tokio::sync::Mutex::default(),
        }
    }

    /// The time of the window, which starts an hour before the process: calls of others from that hour still count.
    fn now(&self) -> Duration {
        self.began.elapsed() + HOUR
    }

    fn known(&self) -> MutexGuard<'_, CommonCount> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the calls of all replicas, reports those that are not in the shared count, and restores what the count has
    /// lost.
    ///
    /// With `unlike`, only if the known count still has that mark.
    async fn sync(&self, unlike: Option<&str>) -> Result<(), Unavailable> {
        let _one = self.syncing.lock().await;
        if unlike.is_some_and(|mark| self.known().mark != mark) {
            return Ok(());
        }
        let outcome = self.sync_once().await;
        if outcome.is_err() {
            let now = self.now();
            self.known().window.fall_back(now);
        }
        outcome
    }

    async fn sync_once(&self) -> Result<(), Unavailable> {
        let [calls, _, _, meta, demands] = self.names.each_ref().map(String::as_str);
        let connection = &self.replica.connection;
        let sent = self.now();
        let (mark, sequence, unreported, sure, own) = {
            let known = self.known();
            let window = &known.window;
            let sure = window.sure(sent);
            (
                known.mark.clone(),
                window.sequence().unwrap_or(0).to_string(),
                window.unreported(),
                sure.to_string(),
                known.own,
            )
        };
        let fresh = format!("{:016x}", fastrand::u64(..));
        let [demand, callers] = [own.demand, own.callers].map(|calls| calls.to_string());
        let texts = [mark.as_str(), &sequence, &sure, &fresh, &self.replica.owner, &demand, &callers];
        let mut arguments: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
        arguments.push(MISSED_AFTER.to_vec());
        for call in &unreported {
            arguments.push(micros(sent.saturating_sub(*call)).into_bytes());
            // Its name: a call whose report succeeded without a reply to us is not counted twice.
            arguments.push(call.as_nanos().to_string().into_bytes());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let reply = connection
            .run::<(String, u64, u64, u64, u64, Vec<u32>)>(
                &connection.scripts.sync,
                &[calls, meta, demands],
                &arguments,
            )
            .await?;
        let (found, sequence, age_ms, demand, callers, slices) = reply;
        let restore = {
            let now = self.now();
            let mut known = self.known();
            let [demand, callers] = [demand, callers].map(|calls| u32::try_from(calls).unwrap_or(u32::MAX));
            known.others = Needs { demand, callers };
            let is_replaced = found != mark && !mark.is_empty();
            // Without the calls that are reported here: the count has those already.
            let earlier = is_replaced.then(|| known.window.newest_first(now));
            known.window.reported(&unreported);
            let restore = if found == mark {
                known.window.confirm(now, sequence, unreported.len());
                None
            } else if mark.is_empty() {
                let (pairs, _) = slices.as_chunks();
                let ago = |[seconds, count]: &[u32; 2]| (Duration::from_secs((*seconds).into()), *count);
                known.window.begin(now, sequence, &pairs.iter().map(ago).collect::<Vec<_>>());
                known.mark.clone_from(&found);
                None
            } else {
                earlier
            };
            match YOUNG.checked_sub(Duration::from_millis(age_ms)) {
                Some(still) => known.window.is_young(now, still),
                None => known.window.is_back(now),
            }
            restore
        };
        let Some(restore) = restore else { return Ok(()) };
        let now = self.now();
        let mut arguments: Vec<Vec<u8>> =
            vec![found.clone().into_bytes(), self.replica.owner.clone().into_bytes()];
        for calls in &restore {
            arguments.push(micros(now.saturating_sub(calls.at)).into_bytes());
            arguments.push(calls.count.to_string().into_bytes());
        }
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let (sequence, newer, put) = connection
            .run::<(u64, u32, u32)>(&connection.scripts.restore, &[calls, meta], &arguments)
            .await?;
        let now = self.now();
        let mut known = self.known();
        known.mark = found;
        known.window.begin(now, sequence, &[(Duration::ZERO, newer)]);
        known.window.fall_back(now);
        known.window.is_back(now);
        drop(known);
        tracing::warn!(calls = put, "shared call count lost; restored from this replica");
        Ok(())
    }

    /// Requests one call from the shared count: 0 and nothing | 1 and ms to wait | 2 and ms of the pause | 3 for no
    /// free slot | 4 for another count than the known one.
    async fn fetch_count(
        &self,
        limits: &LimiterSettings,
        slot: &str,
        mark: &str,
    ) -> Result<(i64, u64), Unavailable> {
        let [per_second, per_hour, concurrency] =
            [limits.per_second, limits.per_hour, limits.concurrency].map(|limit| limit.max(1).to_string());
        let arguments: [&[u8]; 6] = [
            per_second.as_bytes(),
            per_hour.as_bytes(),
            concurrency.as_bytes(),
            slot.as_bytes(),
            SLOT_MS,
            mark.as_bytes(),
        ];
        let connection = &self.replica.connection;
        let [calls, slots, pause, meta, _] = self.names.each_ref().map(String::as_str);
        let names = [calls, slots, pause, meta];
        let (code, value) =
            connection.run::<(i64, u64)>(&connection.scripts.take, &names, &arguments).await?;
        if code == 0 {
            let now = self.now();
            self.known().window.confirm(now, value, 0);
        }
        Ok((code, value))
    }

    async fn take_one(&self, limits: &LimiterSettings) -> SharedDecision {
        let slot = format!("{}{:016x}", self.replica.owner, fastrand::u64(..));
        for _ in 0..TRIES {
            let (at, mark) = {
                let (now, mut known) = (self.now(), self.known());
                let wait = known.window.wait(now, limits, self.replica.replicas());
                if !wait.is_zero() {
                    return SharedDecision::Wait(wait);
                }
                known.window.take(now);
                (now, known.mark.clone())
            };
            let fetched = self.fetch_count(limits, &slot, &mark).await;
            if !matches!(fetched, Ok((0, _))) {
                self.known().window.give_back(at);
            }
            match fetched {
                Ok((0, _)) => return SharedDecision::Go(Some(slot)),
                Ok((1, wait)) => return SharedDecision::Wait(Duration::from_millis(wait.max(1))),
                Ok((2, pause)) => return SharedDecision::Paused(Duration::from_millis(pause)),
                Ok((4, _)) => {
                    if self.sync(Some(&mark)).await.is_err() {
                        return self.take_local(limits);
                    }
                }
                Ok(_) => return SharedDecision::Wait(SLOT_WAIT),
                Err(_) => return self.take_local(limits),
            }
        }
        SharedDecision::Wait(SLOT_WAIT)
    }

    /// Takes a call from this replica's local budget, because the shared count is unavailable.
    fn take_local(&self, limits: &LimiterSettings) -> SharedDecision {
        stats::add(&self.replica.connection.counts.local_budget);
        let now = self.now();
        let mut known = self.known();
        known.window.fall_back(now);
        let wait = known.window.wait(now, limits, self.replica.replicas());
        if wait.is_zero() {
            known.window.take_local(now);
            return SharedDecision::Go(None);
        }
        SharedDecision::Wait(wait)
    }
}

impl SharedBudget for RedisBudget {
    fn take<'a>(&'a self, limits: &'a LimiterSettings) -> BoxFuture<'a, SharedDecision> {
        Box::pin(self.take_one(limits))
    }

    fn report(&self, demand: u32, callers: u32) {
        self.known().own = Needs { demand, callers };
    }

    fn used(&self) -> SharedUse {
        let (now, replicas, known) = (self.now(), self.replica.replicas(), self.known());
        SharedUse {
            calls: known.window.by_age(now, replicas),
            others_demand: known.others.demand,
            others_callers: known.others.callers,
        }
    }

    fn left(&self, limits: &LimiterSettings) -> u32 {
        self.known().window.left(self.now(), limits.per_hour)
    }

    fn give_back(&self, slot: String) {
        let [_, slots, _, _, _] = &self.names;
        self.replica.spawn_background(redis::cmd("ZREM").arg(slots).arg(slot).to_owned());
    }

    fn pause(&self, pause: Duration) {
        let [_, _, name, _, _] = &self.names;
        let millis = super::scripts::millis(pause);
        let mut command = redis::cmd("EVAL");
        command.arg(self.replica.connection.scripts.pause.code).arg(1).arg(name).arg(millis);
        self.replica.spawn_background(command);
    }
}

fn micros(span: Duration) -> String {
    span.as_micros().to_string()
}
