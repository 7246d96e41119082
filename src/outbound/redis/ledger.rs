//! The tracked jobs that replicas share, each with its labels. Watched jobs are local to each replica.
//!
//! All of them are in one hash with a mark. A replica that finds a different mark than before detects that the hash was
//! lost, and puts back what it knew; what could not be written is written with the next heartbeat. So the replicas keep
//! the tracked jobs when Redis is emptied or unavailable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Cmd;

use super::record_mac::RecordMac;
use super::replica::RedisReplica;
use super::scripts::{epoch, millis};
use super::unavailable::Unavailable;
use crate::domain::id::{JobKey, SourceName};
use crate::domain::sweep::SweepRecord;
use crate::outbound::stores::record;
use crate::ports::BoxFuture;
use crate::ports::leases::FencingToken;
use crate::ports::ledger::{Labels, Ledger, LedgerContents};
use crate::ports::store::StoreError;

/// How long the sweeps of a source are remembered after the last one.
const SWEEP_KEPT: Duration = Duration::from_hours(7 * 24);

/// How long the number of jobs that a replica verifies counts after its last report.
const VERIFIED_COUNTS: Duration = Duration::from_mins(5);

/// The field of the mark. No job has a name without a source.
const MARK: &[u8] = b"\0";

/// The tracked jobs, as last read or written by this process.
#[derive(Debug, Default)]
struct LedgerMirror {
    /// The mark that was read last.
    mark: Option<String>,
    tracked: BTreeMap<JobKey, Labels>,
    /// The changes that are not written to Redis yet.
    pending: BTreeMap<JobKey, Option<Labels>>,
}

impl LedgerMirror {
    fn note(&mut self, key: JobKey, labels: Option<Labels>) {
        match labels {
            Some(labels) => {
                self.tracked.insert(key, labels);
            }
            None => {
                self.tracked.remove(&key);
            }
        }
    }
}

/// The tracked jobs that replicas share.
#[derive(Debug)]
pub struct RedisLedger {
    replica: Arc<RedisReplica>,
    record_mac: Arc<RecordMac>,
    mirror: Mutex<LedgerMirror>,
}

impl RedisLedger {
    pub(super) fn new(replica: Arc<RedisReplica>, record_mac: Arc<RecordMac>) -> Self {
        Self { replica, record_mac, mirror: Mutex::default() }
    }

    /// Writes the pending changes of tracked jobs to Redis; with `all`, Redis was emptied and all of them are written.
    pub(super) async fn write_back(&self, all: bool) {
        let waits = !self.mirror().pending.is_empty();
        if all {
            self.settle().await.ok();
        }
        if waits {
            self.flush().await.ok();
        }
    }

    /// Verifies the hash: if it was replaced, writes back the jobs of this process.
    async fn settle(&self) -> Result<(), Unavailable> {
        let (name, connection) = (self.replica.keys.tracked(), &self.replica.connection);
        let fresh = format!("{:016x}", fastrand::u64(..));
        connection.command::<i64>(redis::cmd("HSETNX").arg(&name).arg(MARK).arg(fresh)).await?;
        let mark: Option<String> = connection.command(redis::cmd("HGET").arg(&name).arg(MARK)).await?;
        let (lost, known) = {
            let mirror = self.mirror();
            (mirror.mark.is_some() && mirror.mark != mark, mirror.tracked.clone())
        };
        if lost && !known.is_empty() {
            tracing::info!(jobs = known.len(), "writing back tracked jobs missing in redis");
            for (key, labels) in &known {
                connection.command::<i64>(&self.setting("HSETNX", key, labels)?).await?;
            }
        }
        self.mirror().mark = mark;
        Ok(())
    }

    /// Writes the pending changes, the newest of each job. A change that cannot be written stays pending.
    async fn flush(&self) -> Result<(), Unavailable> {
        self.settle().await?;
        loop {
            let Some((key, labels)) = self.mirror().pending.pop_first() else { return Ok(()) };
            if let Err(away) = self.publish_tracked(&key, labels.as_ref()).await {
                // A change that was recorded meanwhile is newer.
                self.mirror().pending.entry(key).or_insert(labels);
                return Err(away);
            }
        }
    }

    async fn publish_tracked(&self, key: &JobKey, labels: Option<&Labels>) -> Result<(), Unavailable> {
        let command = match labels {
            Some(labels) => self.setting("HSET", key, labels)?,
            None => {
                redis::cmd("HDEL").arg(self.replica.keys.tracked()).arg(record::key_bytes(key)).to_owned()
            }
        };
        self.replica.connection.command::<i64>(&command).await?;
        self.replica.publish("t", key).await
    }

    fn setting(&self, command: &str, key: &JobKey, labels: &Labels) -> Result<Cmd, Unavailable> {
        let field = record::key_bytes(key);
        let labels = serde_json::to_vec(labels).map_err(|error| Unavailable::Failed(error.to_string()))?;
        let sealed = self.record_mac.seal(&field, &labels);
        Ok(redis::cmd(command).arg(self.replica.keys.tracked()).arg(&field).arg(sealed).to_owned())
    }

    fn mirror(&self) -> MutexGuard<'_, LedgerMirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_tracked(&self) -> Result<BTreeMap<JobKey, Labels>, Unavailable> {
        self.flush().await?;
        let all = redis::cmd("HGETALL").arg(self.replica.keys.tracked()).to_owned();
        let fields: Vec<(Vec<u8>, Vec<u8>)> = self.replica.connection.command(&all).await?;
        let read = fields.iter().filter_map(|(name, sealed)| {
            let labels = self.record_mac.open(name, sealed)?;
            Some((record::read_key(name)?, serde_json::from_slice(labels).ok()?))
        });
        let mut tracked: BTreeMap<JobKey, Labels> = read.collect();
        let mut mirror = self.mirror();
        for (key, labels) in &mirror.pending {
            match labels {
                Some(labels) => tracked.insert(key.clone(), labels.clone()),
                None => tracked.remove(key),
            };
        }
        mirror.tracked.clone_from(&tracked);
        drop(mirror);
        Ok(tracked)
    }
}

impl Ledger for RedisLedger {
    fn remembered(&self) -> BoxFuture<'_, Result<LedgerContents, StoreError>> {
        Box::pin(async move {
            let tracked = self.read_tracked().await.map_err(|away| store_error(&away))?;
            Ok(LedgerContents { tracked: tracked.into_iter().collect(), followed: Vec::new() })
        })
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            {
                let mut mirror = self.mirror();
                for (key, labels) in jobs {
                    mirror.note(key.clone(), labels.clone());
                    mirror.pending.insert(key, labels);
                }
            }
            self.flush().await.map_err(|away| store_error(&away))
        })
    }

    /// Watched jobs are not shared: a watcher reconnects to some replica, and subscribes again there.
    fn follow(&self, _: &JobKey, _: bool) {}

    fn sweep<'a>(&'a self, lease: &'a JobKey) -> BoxFuture<'a, Result<Option<SweepRecord>, StoreError>> {
        Box::pin(async move {
            let name = self.replica.keys.sweep(lease);
            let read: Result<Option<Vec<u8>>, _> =
                self.replica.connection.command(redis::cmd("GET").arg(&name)).await;
            let sealed = read.map_err(|away| store_error(&away))?;
            let body = sealed.as_ref().and_then(|sealed| self.record_mac.open(name.as_bytes(), sealed));
            Ok(body.and_then(record::read_sweep))
        })
    }

    fn note_sweep<'a>(
        &'a self,
        lease: &'a JobKey,
        sweep: &'a SweepRecord,
        fencing_token: FencingToken,
    ) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let (keys, connection) = (&self.replica.keys, &self.replica.connection);
            let names = [keys.job(lease), keys.sweep(lease)];
            let sealed = self.record_mac.seal(names[1].as_bytes(), &record::write_sweep(sweep));
            let (epoch, keep) = (epoch(fencing_token), millis(SWEEP_KEPT));
            let arguments: [&[u8]; 4] =
                [self.replica.owner.as_bytes(), epoch.as_bytes(), &sealed, keep.as_bytes()];
            let names = names.each_ref().map(String::as_str);
            let written = connection.run::<i64>(&connection.scripts.note_sweep, &names, &arguments).await;
            !matches!(written, Ok(0))
        })
    }

    fn share_verified<'a>(&'a self, source: &'a SourceName, jobs: u64) -> BoxFuture<'a, u64> {
        Box::pin(async move {
            let (name, connection) = (self.replica.keys.verified(source), &self.replica.connection);
            let (jobs_text, counts) = (jobs.to_string(), millis(VERIFIED_COUNTS));
            let arguments: [&[u8]; 3] =
                [self.replica.owner.as_bytes(), jobs_text.as_bytes(), counts.as_bytes()];
            let all = connection.run::<u64>(&connection.scripts.share_verified, &[&name], &arguments).await;
            all.unwrap_or(jobs).max(jobs)
        })
    }
}

fn store_error(away: &Unavailable) -> StoreError {
    StoreError(away.to_string())
}
