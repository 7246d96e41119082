//! The records of jobs in Redis, with their index and the recent changes: one command or script each. What a difference
//! between a record and this process means is decided in `store`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::record_mac::{RecordMac, VerifiedRecord};
use super::replica::RedisReplica;
use super::scripts::{WriteOutcome, epoch, millis};
use super::unavailable::Unavailable;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::stores::memory::Retention;
use crate::outbound::stores::record;
use crate::ports::leases::FencingToken;
use crate::telemetry::throttle::Throttle;

/// The state of a job in Redis.
#[derive(Debug, Default)]
pub(super) struct RedisRecord {
    /// The version of the record.
    pub(super) point: u64,
    /// The record.
    pub(super) held: Option<Observation>,
    /// Whether the upstream knew no such job.
    pub(super) missing: bool,
    /// Whether it is valid and of a newer version: a miss here, and not overwritten.
    pub(super) strange: bool,
}

/// The records of jobs.
#[derive(Debug)]
pub(super) struct JobRecords {
    replica: Arc<RedisReplica>,
    record_mac: Arc<RecordMac>,
    retention: Retention,
    damaged: AtomicU64,
    failing: Throttle,
    newer: Throttle,
}

impl JobRecords {
    pub(super) fn new(replica: Arc<RedisReplica>, record_mac: Arc<RecordMac>, retention: Retention) -> Self {
        Self {
            replica,
            record_mac,
            retention,
            damaged: AtomicU64::new(0),
            failing: Throttle::default(),
            newer: Throttle::default(),
        }
    }

    /// The sealed bytes of a job's record.
    pub(super) fn sealed(&self, new: &Observation) -> Vec<u8> {
        let key = &new.job.key;
        let written = record::write(&record::key_bytes(key), new, &self.replica.server_clock.frame());
        self.record_mac.seal(self.replica.keys.job(key).as_bytes(), &written)
    }

    /// Reads the record of Redis, given what this process has.
    pub(super) async fn read(
        &self,
        key: &JobKey,
        memory: Option<&Observation>,
    ) -> Result<RedisRecord, Unavailable> {
        let name = self.replica.keys.job(key);
        let fields = redis::cmd("HMGET").arg(&name).arg("r").arg("n").arg("m").to_owned();
        let (bytes, point, missing): (Option<Vec<u8>>, Option<u64>, Option<u64>) =
            self.replica.connection.command(&fields).await?;
        let (held, strange) = match bytes.map(|bytes| self.open(key, &name, &bytes)) {
            Some(VerifiedRecord::Whole(held)) => (Some(self.replica.server_clock.read(held, memory)), false),
            Some(VerifiedRecord::Strange) => (None, true),
            Some(VerifiedRecord::Damaged(_)) | None => (None, false),
        };
        let missing = missing.is_some() && held.is_none() && !strange;
        Ok(RedisRecord { point: point.unwrap_or(0), missing, held, strange })
    }

    /// Opens a record. An invalid one is a miss, counted and never returned; so is one of a newer version, which is not
    /// an error.
    fn open(&self, key: &JobKey, name: &str, bytes: &[u8]) -> VerifiedRecord {
        let opened = self.record_mac.open_record(key, name, bytes, &self.replica.server_clock.frame());
        match &opened {
            VerifiedRecord::Whole(_) => {}
            VerifiedRecord::Strange => {
                if let Some(suppressed) = self.newer.admit() {
                    tracing::warn!(job = %key, suppressed, "record in redis written by a newer version; ignored");
                }
            }
            VerifiedRecord::Damaged(why) => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                if let Some(suppressed) = self.failing.admit() {
                    tracing::error!(job = %key, reason = why, suppressed, "record in redis unreadable; ignored");
                }
            }
        }
        opened
    }

    /// Writes a record, if the lease is still valid and the stored record is still that of version `point`.
    pub(super) async fn write(
        &self,
        point: u64,
        body: &[u8],
        new: &Observation,
        fencing_token: FencingToken,
        changed: bool,
    ) -> Result<WriteOutcome, Unavailable> {
        let keep = if new.job.is_terminal() { self.retention.finished } else { self.retention.unfinished };
        let (point, keep) = (point.to_string(), millis(keep));
        let epoch = epoch(fencing_token);
        let (key, name) = (&new.job.key, self.replica.keys.job(&new.job.key));
        let (owner, channel, id) = (&self.replica.owner, self.replica.keys.feed(), key.node_id());
        let what: &[u8] = if changed { b"c" } else { b"r" };
        let arguments: [&[u8]; 8] = [
            owner.as_bytes(),
            epoch.as_bytes(),
            point.as_bytes(),
            body,
            keep.as_bytes(),
            channel.as_bytes(),
            what,
            id.as_bytes(),
        ];
        let connection = &self.replica.connection;
        let code = connection.run(&connection.scripts.keep, &[&name], &arguments).await?;
        WriteOutcome::of(code)
    }

    /// Records that the upstream knows no such job, if the lease is still valid.
    pub(super) async fn write_missing(
        &self,
        key: &JobKey,
        fencing_token: FencingToken,
    ) -> Result<WriteOutcome, Unavailable> {
        let (keep, epoch) = (millis(self.retention.missing), epoch(fencing_token));
        let (channel, id) = (self.replica.keys.feed(), key.node_id());
        let arguments: [&[u8]; 5] = [
            self.replica.owner.as_bytes(),
            epoch.as_bytes(),
            keep.as_bytes(),
            channel.as_bytes(),
            id.as_bytes(),
        ];
        let connection = &self.replica.connection;
        let name = self.replica.keys.job(key);
        let code = connection.run(&connection.scripts.missing, &[&name], &arguments).await?;
        WriteOutcome::of(code)
    }

    /// Whether there is a record, readable or not.
    pub(super) async fn is_kept(&self, key: &JobKey) -> Result<bool, Unavailable> {
        let there = redis::cmd("HEXISTS").arg(self.replica.keys.job(key)).arg("r").to_owned();
        self.replica.connection.command(&there).await
    }

    /// Adds a job to the index and the recent changes. Done before the record is written: a name without a record is
    /// harmless.
    pub(super) async fn index(&self, bytes: &[u8]) -> Result<(), Unavailable> {
        let now = self.replica.server_clock.server_ms().to_string();
        let index = redis::cmd("ZADD").arg(self.replica.keys.index()).arg(0).arg(bytes).to_owned();
        let recent = redis::cmd("ZADD").arg(self.replica.keys.recent()).arg(now).arg(bytes).to_owned();
        let (index, recent) = tokio::join!(
            self.replica.connection.command::<i64>(&index),
            self.replica.connection.command::<i64>(&recent)
        );
        index.and(recent).map(drop)
    }

    /// The jobs that changed within the last `within`, by the server's clock; removes much older ones.
    pub(super) async fn changed_within(&self, within: Duration) -> Result<Vec<JobKey>, Unavailable> {
        let since = self
            .replica
            .server_clock
            .server_ms()
            .saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
        let recent = self.replica.keys.recent();
        let forget = redis::cmd("ZREMRANGEBYSCORE")
            .arg(&recent)
            .arg("-inf")
            .arg(since.saturating_sub(3_600_000))
            .to_owned();
        self.replica.connection.command::<i64>(&forget).await?;
        let range = redis::cmd("ZRANGEBYSCORE").arg(&recent).arg(since).arg("+inf").to_owned();
        let names: Vec<Vec<u8>> = self.replica.connection.command(&range).await?;
        Ok(names.iter().filter_map(|name| record::read_key(name)).collect())
    }

    /// Up to `size` jobs of the index from this bound on, in their order: the bytes of their names.
    pub(super) async fn indexed(&self, from: &[u8], size: usize) -> Result<Vec<Vec<u8>>, Unavailable> {
        let range = redis::cmd("ZRANGEBYLEX")
            .arg(self.replica.keys.index())
            .arg(from)
            .arg("+")
            .arg("LIMIT")
            .arg(0)
            .arg(size)
            .to_owned();
        self.replica.connection.command(&range).await
    }

    /// Removes a job without a record from the index.
    pub(super) async fn unindex(&self, key: &JobKey) -> Result<(), Unavailable> {
        let gone = redis::cmd("ZREM").arg(self.replica.keys.index()).arg(record::key_bytes(key)).to_owned();
        self.replica.connection.command::<i64>(&gone).await.map(drop)
    }

    /// The records that were unreadable.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}
