//! The jobs that replicas share, behind this process's memory cache. A terminal job in memory is returned from there;
//! any other is read again, because another replica may have a newer one. What cannot be shared now is kept here and
//! written later, so an answer never reverts to an older one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;

use super::leases::RedisLeases;
use super::ledger::RedisLedger;
use super::records::{JobRecords, RedisRecord};
use super::replica::RedisReplica;
use super::scripts::WriteOutcome;
use super::unavailable::Unavailable;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::stores::memory::{MemoryStore, Retention, fits};
use crate::outbound::stores::record;
use crate::ports::BoxFuture;
use crate::ports::leases::FencingToken;
use crate::ports::store::{JobStore, ListFilter, StoreError, StoreHealth, StoreOutcome};
use crate::telemetry::meters::{self, CacheTier};
use crate::telemetry::throttle::Throttle;

/// How often a write is retried when another replica changed the record meanwhile.
const TRIES: usize = 4;
/// The most unpersisted terminal jobs; the oldest are found again when Redis is read.
const UNWRITTEN_MAX: usize = 100_000;
/// The least number of names that are read from the index at once.
const PAGE: usize = 100;
/// The most records that are read from Redis at once: more could take longer than a command may.
const READ_AT_ONCE: usize = 500;
/// Terminal jobs that are written back concurrently.
const AT_ONCE: usize = 64;

/// The jobs that replicas share.
#[derive(Debug)]
pub struct RedisStore {
    memory: MemoryStore,
    replica: Arc<RedisReplica>,
    records: Arc<JobRecords>,
    leases: Arc<RedisLeases>,
    ledger: Arc<RedisLedger>,
    max_record: usize,
    /// Terminal jobs that this process published and Redis does not have.
    unwritten: Mutex<BTreeMap<JobKey, Observation>>,
    dropped: AtomicU64,
    too_large: Throttle,
}

/// What the store writes to besides its memory.
pub(super) struct StoreParts {
    pub(super) replica: Arc<RedisReplica>,
    pub(super) records: Arc<JobRecords>,
    pub(super) leases: Arc<RedisLeases>,
    pub(super) ledger: Arc<RedisLedger>,
}

/// The result of comparing a terminal job with the record in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reconciled {
    /// Both are equal, or the record in Redis cannot be compared.
    Same,
    /// Redis has the local observation now.
    Pushed,
    /// This process has the observation of Redis now.
    Pulled,
}

impl RedisStore {
    pub(super) fn new(parts: StoreParts, max_record: usize, retention: Retention) -> Self {
        let StoreParts { replica, records, leases, ledger } = parts;
        Self {
            memory: MemoryStore::new(retention),
            replica,
            records,
            leases,
            ledger,
            max_record,
            unwritten: Mutex::default(),
            dropped: AtomicU64::new(0),
            too_large: Throttle::default(),
        }
    }

    /// The newest of the local and the shared observation; it is cached in memory.
    async fn newest(
        &self,
        key: &JobKey,
        memory: Option<Observation>,
        record: RedisRecord,
    ) -> Option<Observation> {
        if record.missing && memory.is_none() {
            self.memory.note_missing(key).await;
        }
        match (memory, record.held) {
            (memory, Some(held)) if memory.as_ref().is_none_or(|memory| held.supersedes(memory)) => {
                match self.memory.keep(held.clone()).await {
                    StoreOutcome::Older(newer) => Some(newer),
                    StoreOutcome::New(replaced) => Some(held.replacing(replaced.as_ref())),
                }
            }
            (Some(memory), held) => {
                if held.as_ref() != Some(&memory) && !record.strange {
                    self.write_later(&memory);
                }
                Some(memory)
            }
            (None, _) => None,
        }
    }

    /// Records a terminal job that must be written to Redis.
    fn write_later(&self, held: &Observation) {
        if !held.job.is_terminal() {
            return;
        }
        let mut unwritten = self.unwritten();
        if unwritten.len() >= UNWRITTEN_MAX && !unwritten.contains_key(&held.job.key) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        unwritten.insert(held.job.key.clone(), held.clone());
    }

    fn unwritten(&self) -> MutexGuard<'_, BTreeMap<JobKey, Observation>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every terminal job in this process, and the unpersisted ones that did not fit into memory.
    pub(super) fn ended(&self) -> Vec<Observation> {
        let mut ended = self.memory.ended();
        ended.extend(self.unwritten().values().cloned());
        ended
    }

    /// Compares a local terminal job with the record in Redis, and stores the one that supersedes the other in both.
    pub(super) async fn reconcile(&self, held: &Observation) -> Result<Reconciled, Unavailable> {
        let key = &held.job.key;
        let RedisRecord { held: remote, strange, .. } = self.records.read(key, Some(held)).await?;
        match remote {
            _ if strange => Ok(Reconciled::Same),
            Some(remote) if remote.job.same_report(&held.job) && remote.rollbacks == held.rollbacks => {
                Ok(Reconciled::Same)
            }
            Some(remote) if remote.supersedes(held) => {
                self.unwritten().remove(key);
                self.memory.keep(remote).await;
                Ok(Reconciled::Pulled)
            }
            Some(_) | None => {
                self.share(held.clone(), FencingToken::Alone).await?;
                Ok(Reconciled::Pushed)
            }
        }
    }

    /// Writes the terminal jobs that Redis does not have. Cancel safe: a job is unwritten until it is written.
    pub(super) async fn write_back(&self) {
        let waiting: Vec<Observation> = self.unwritten().values().cloned().collect();
        if waiting.is_empty() {
            return;
        }
        tracing::info!(jobs = waiting.len(), "writing back jobs missing in redis");
        for some in waiting.chunks(AT_ONCE) {
            let written = some.iter().map(|held| self.share(held.clone(), FencingToken::Alone));
            for (held, written) in some.iter().zip(join_all(written).await) {
                let mut unwritten = self.unwritten();
                // One that was added meanwhile is newer, and stays.
                if written.is_ok() && unwritten.get(&held.job.key) == Some(held) {
                    unwritten.remove(&held.job.key);
                }
            }
        }
    }

    /// Compares with the record in Redis, and writes the newer one. `None` if the lease had expired.
    async fn share(
        &self,
        new: Observation,
        fencing_token: FencingToken,
    ) -> Result<Option<StoreOutcome>, Unavailable> {
        let key = new.job.key.clone();
        for _ in 0..TRIES {
            let memory = self
                .memory
                .get(std::slice::from_ref(&key))
                .await
                .ok()
                .and_then(|mut memory| memory.pop().flatten());
            let RedisRecord { point, held: remote, missing: _, strange } =
                self.records.read(&key, memory.as_ref()).await?;
            if remote.as_ref() == Some(&new) && fencing_token == FencingToken::Alone {
                // Another replica wrote it back before.
                return Ok(Some(self.hold(new, remote).await));
            }
            // While Redis was unavailable, both may have recorded transitions that the other lacks.
            let held = match (memory, remote.clone()) {
                (Some(memory), Some(remote)) if remote.supersedes(&memory) => {
                    Some(remote.with_history_of(&memory))
                }
                (Some(memory), Some(remote)) => Some(memory.with_history_of(&remote)),
                (memory, remote) => memory.or(remote),
            };
            if let Some(held) = held.as_ref().filter(|held| **held != new && !new.supersedes(held)) {
                self.leases.release_one(&key, fencing_token).await;
                let record = RedisRecord { point, held: remote, missing: false, strange };
                let newest = self.newest(&key, Some(held.clone()), record).await;
                return Ok(Some(StoreOutcome::Older(newest.unwrap_or_else(|| held.clone()))));
            }
            let new = new.clone().replacing(held.as_ref());
            let body = self.records.sealed(&new);
            if strange {
                // Newer replicas know more of this job than this version could write: their record stays.
                self.leases.release_one(&key, fencing_token).await;
                return Ok(Some(self.hold(new, held).await));
            }
            if body.len() > self.max_record {
                if let Some(suppressed) = self.too_large.admit() {
                    tracing::warn!(job = %key, bytes = body.len(), suppressed, "record too large for the shared store; not shared");
                }
                self.leases.release_one(&key, fencing_token).await;
                return Ok(Some(self.hold(new, held).await));
            }
            // What the others read there counts too: it may be older than the local observation.
            let differs = |held: &Observation| !held.job.same_report(&new.job);
            let changed = held.as_ref().is_none_or(differs) || remote.as_ref().is_none_or(differs);
            if changed {
                self.records.index(&record::key_bytes(&key)).await?;
            }
            match self.records.write(point, &body, &new, fencing_token, changed).await? {
                WriteOutcome::Done => return Ok(Some(self.hold(new, held).await)),
                WriteOutcome::LeaseLost => {
                    self.leases.count_refusal(&key);
                    return Ok(None);
                }
                WriteOutcome::Overtaken => {}
            }
        }
        Err(Unavailable::Slow)
    }

    /// Caches the shared observation, and returns what it replaced.
    async fn hold(&self, new: Observation, replaced: Option<Observation>) -> StoreOutcome {
        match self.memory.keep(new.clone()).await {
            StoreOutcome::Older(newer) if newer != new => StoreOutcome::Older(newer),
            StoreOutcome::Older(_) | StoreOutcome::New(_) => StoreOutcome::New(replaced),
        }
    }

    /// Caches an observation that cannot be shared now.
    async fn hold_locally(&self, new: Observation) -> StoreOutcome {
        let kept = self.memory.keep(new.clone()).await;
        if let StoreOutcome::New(replaced) = &kept {
            self.write_later(&new.replacing(replaced.as_ref()));
        }
        kept
    }

    /// A page of the jobs in Redis.
    async fn list_shared(
        &self,
        filter: &ListFilter,
        after: Option<&JobKey>,
        limit: usize,
    ) -> Result<Vec<Observation>, Unavailable> {
        let mut from =
            after.map_or_else(|| b"-".to_vec(), |key| [b"(", &record::key_bytes(key)[..]].concat());
        let mut page = Vec::new();
        loop {
            let size = limit.clamp(PAGE, READ_AT_ONCE);
            let names = self.records.indexed(&from, size).await?;
            let keys: Vec<JobKey> = names.iter().filter_map(|name| record::read_key(name)).collect();
            let of_source = |key: &&JobKey| filter.sources.is_empty() || filter.sources.contains(&key.source);
            let wanted: Vec<JobKey> = keys.iter().filter(of_source).cloned().collect();
            let held = self.get(&wanted).await.unwrap_or_default();
            for (key, held) in wanted.iter().zip(held) {
                match held {
                    Some(held) if fits(filter, &held) => page.push(held),
                    Some(_) => {}
                    // A record of a newer version exists all the same.
                    None if self.records.is_kept(key).await? => {}
                    None => self.records.unindex(key).await?,
                }
            }
            let Some(last) = names.last().filter(|_| names.len() == size && page.len() < limit) else {
                page.truncate(limit);
                return Ok(page);
            };
            from = [b"(", &last[..]].concat();
        }
    }
}

impl JobStore for RedisStore {
    fn get<'a>(&'a self, keys: &'a [JobKey]) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            let memory = self.memory.find(keys).await;
            let answers = keys.iter().zip(memory).map(async |(key, memory)| match memory {
                Some(memory) if memory.job.is_terminal() => (Some(memory), CacheTier::Memory),
                memory => match self.records.read(key, memory.as_ref()).await {
                    Ok(record) => (self.newest(key, memory, record).await, CacheTier::Store),
                    Err(_) => (memory, CacheTier::Memory),
                },
            });
            let answers = join_all(answers).await.into_iter().map(|(held, tier)| {
                meters::cache_reads(if held.is_some() { tier } else { CacheTier::None }, 1);
                held
            });
            Ok(answers.collect())
        })
    }

    fn held(&self, key: &JobKey) -> Option<Observation> {
        self.memory.find_now(key).filter(|held| held.job.is_terminal())
    }

    fn keep(&self, new: Observation) -> BoxFuture<'_, StoreOutcome> {
        Box::pin(async move {
            let kept = self.keep_under(new.clone(), FencingToken::Alone).await;
            kept.unwrap_or(StoreOutcome::Older(new))
        })
    }

    fn note_missing<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.note_missing_under(key, FencingToken::Alone).await;
        })
    }

    fn missing_for<'a>(&'a self, key: &'a JobKey) -> BoxFuture<'a, Result<Option<Duration>, StoreError>> {
        // What the other replicas know of it was recorded when the job was read, which comes first.
        self.memory.missing_for(key)
    }

    fn list<'a>(
        &'a self,
        filter: &'a ListFilter,
        after: Option<&'a JobKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Observation>, StoreError>> {
        Box::pin(async move {
            match self.list_shared(filter, after, limit).await {
                Ok(page) => Ok(page),
                Err(_) => self.memory.list(filter, after, limit).await,
            }
        })
    }

    fn keep_under(
        &self,
        new: Observation,
        fencing_token: FencingToken,
    ) -> BoxFuture<'_, Option<StoreOutcome>> {
        Box::pin(async move {
            let key = new.job.key.clone();
            if fencing_token == FencingToken::Alone && self.leases.expired(&key, fencing_token) {
                return None;
            }
            let shared = self.share(new.clone(), fencing_token).await;
            // Redis cannot verify the lease. An expired one is known locally.
            if shared.is_err() && self.leases.expired(&key, fencing_token) {
                return None;
            }
            self.leases.forget(&key, fencing_token);
            match shared {
                Ok(kept) => kept,
                Err(_) => Some(self.hold_locally(new).await),
            }
        })
    }

    fn note_missing_under<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            if fencing_token == FencingToken::Alone && self.leases.expired(key, fencing_token) {
                return false;
            }
            let outcome = self.records.write_missing(key, fencing_token).await;
            if outcome.is_err() && self.leases.expired(key, fencing_token) {
                return false;
            }
            self.leases.forget(key, fencing_token);
            if matches!(outcome, Ok(WriteOutcome::LeaseLost)) {
                self.leases.count_refusal(key);
                return false;
            }
            self.memory.note_missing(key).await;
            true
        })
    }

    fn refresh<'a>(
        &'a self,
        keys: &'a [JobKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Observation>>, StoreError>> {
        Box::pin(async move {
            let memory = self.memory.find(keys).await;
            let answers = keys.iter().zip(memory).map(async |(key, memory)| {
                match self.records.read(key, memory.as_ref()).await {
                    // The record of the others is newer, and cannot be read: a fetch is necessary.
                    Ok(RedisRecord { strange: true, .. }) => memory.filter(|memory| memory.job.is_terminal()),
                    Ok(record) => self.newest(key, memory, record).await,
                    Err(_) => memory,
                }
            });
            Ok(join_all(answers).await)
        })
    }

    fn health(&self) -> StoreHealth {
        let unwritten = self.unwritten().len() as u64;
        StoreHealth {
            degraded: self.replica.connection.is_open(),
            unwritten,
            dropped: self.dropped.load(Ordering::Relaxed),
            damaged: self.records.damaged(),
            memory: self.memory.count(),
            shared_store: Some(self.replica.health()),
            ..StoreHealth::default()
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.ledger.write_back(false).await;
            self.write_back().await;
            self.replica.finish_background().await;
        })
    }
}
