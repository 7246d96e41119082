//! The lists of shared jobs: the index that lists read, and the recent changes.

use std::time::Duration;

use super::RedisStore;
use crate::domain::id::JobKey;
use crate::domain::observation::Observation;
use crate::outbound::redis::connection::Unavailable;
use crate::outbound::stores::memory::fits;
use crate::outbound::stores::record;
use crate::ports::store::{JobStore as _, ListFilter};

/// The least number of names that are read from the index at once.
const PAGE: usize = 100;

impl RedisStore {
    /// Whether there is a record, readable or not.
    async fn is_kept(&self, key: &JobKey) -> Result<bool, Unavailable> {
        let there = redis::cmd("HEXISTS").arg(self.shared.keys.job(key)).arg("r").to_owned();
        self.shared.connection.command(&there).await
    }

    /// Adds a job to the index and the recent changes. Done before the record is written: a name without a record is
    /// harmless.
    pub(super) async fn index(&self, bytes: &[u8]) -> Result<(), Unavailable> {
        let now = self.shared.server_clock.server_ms().to_string();
        let index = redis::cmd("ZADD").arg(self.shared.keys.index()).arg(0).arg(bytes).to_owned();
        let recent = redis::cmd("ZADD").arg(self.shared.keys.recent()).arg(now).arg(bytes).to_owned();
        let (index, recent) = tokio::join!(
            self.shared.connection.command::<i64>(&index),
            self.shared.connection.command::<i64>(&recent)
        );
        index.and(recent).map(drop)
    }

    /// The jobs that changed within the last `within`, by the server's clock; removes much older ones.
    pub(in crate::outbound::redis) async fn changed_within(
        &self,
        within: Duration,
    ) -> Result<Vec<JobKey>, Unavailable> {
        let since = self
            .shared
            .server_clock
            .server_ms()
            .saturating_sub(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
        let recent = self.shared.keys.recent();
        let forget = redis::cmd("ZREMRANGEBYSCORE")
            .arg(&recent)
            .arg("-inf")
            .arg(since.saturating_sub(3_600_000))
            .to_owned();
        self.shared.connection.command::<i64>(&forget).await?;
        let range = redis::cmd("ZRANGEBYSCORE").arg(&recent).arg(since).arg("+inf").to_owned();
        let names: Vec<Vec<u8>> = self.shared.connection.command(&range).await?;
        Ok(names.iter().filter_map(|name| record::read_key(name)).collect())
    }

    pub(super) async fn list_shared(
        &self,
        filter: &ListFilter,
        after: Option<&JobKey>,
        limit: usize,
    ) -> Result<Vec<Observation>, Unavailable> {
        let index = self.shared.keys.index();
        let mut from =
            after.map_or_else(|| b"-".to_vec(), |key| [b"(", &record::key_bytes(key)[..]].concat());
        let mut page = Vec::new();
        loop {
            let size = limit.max(PAGE);
            let range = redis::cmd("ZRANGEBYLEX")
                .arg(&index)
                .arg(&from)
                .arg("+")
                .arg("LIMIT")
                .arg(0)
                .arg(size)
                .to_owned();
            let names: Vec<Vec<u8>> = self.shared.connection.command(&range).await?;
            let keys: Vec<JobKey> = names.iter().filter_map(|name| record::read_key(name)).collect();
            let of_source = |key: &&JobKey| filter.sources.is_empty() || filter.sources.contains(&key.source);
            let wanted: Vec<JobKey> = keys.iter().filter(of_source).cloned().collect();
            let held = self.get(&wanted).await.unwrap_or_default();
            for (key, held) in wanted.iter().zip(held) {
                match held {
                    Some(held) if fits(filter, &held) => page.push(held),
                    Some(_) => {}
                    // A record of a newer version exists all the same.
                    None if self.is_kept(key).await? => {}
                    None => {
                        let gone = redis::cmd("ZREM").arg(&index).arg(record::key_bytes(key)).to_owned();
                        self.shared.connection.command::<i64>(&gone).await?;
                    }
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
