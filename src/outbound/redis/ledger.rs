//! The tracked jobs that replicas share, each with its labels. Who watches is each replica's own business.

use super::link::Away;
use super::store::RedisStore;
use crate::domain::id::JobKey;
use crate::outbound::stores::record;
use crate::ports::BoxFuture;
use crate::ports::ledger::{Labels, Ledger, Remembered};
use crate::ports::store::StoreError;

impl Ledger for RedisStore {
    fn remembered(&self) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        Box::pin(async move {
            let all = redis::cmd("HGETALL").arg(self.shared.keys.tracked()).to_owned();
            let fields: Vec<(Vec<u8>, Vec<u8>)> =
                self.shared.link.ask(&all).await.map_err(|away| store_error(&away))?;
            let mut tracked: Vec<(JobKey, Labels)> = fields
                .iter()
                .filter_map(|(name, sealed)| {
                    let labels = self.sealer.open(name, sealed)?;
                    Some((record::read_key(name)?, serde_json::from_slice(labels).ok()?))
                })
                .collect();
            tracked.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            Ok(Remembered { tracked, followed: Vec::new() })
        })
    }

    fn track(&self, jobs: Vec<(JobKey, Option<Labels>)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let name = self.shared.keys.tracked();
            for (key, labels) in jobs {
                let field = record::key_bytes(&key);
                let command = match labels {
                    Some(labels) => {
                        let labels =
                            serde_json::to_vec(&labels).map_err(|error| StoreError(error.to_string()))?;
                        let sealed = self.sealer.seal(&field, &labels);
                        redis::cmd("HSET").arg(&name).arg(&field).arg(sealed).to_owned()
                    }
                    None => redis::cmd("HDEL").arg(&name).arg(&field).to_owned(),
                };
                self.shared.link.ask::<i64>(&command).await.map_err(|away| store_error(&away))?;
                self.shared.tell("t", &key).await.map_err(|away| store_error(&away))?;
            }
            Ok(())
        })
    }

    /// What is watched here is not followed elsewhere: a watcher comes back to some replica, and begins again there.
    fn follow(&self, _: &JobKey, _: bool) {}
}

fn store_error(away: &Away) -> StoreError {
    StoreError(away.to_string())
}
