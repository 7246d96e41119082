//! The lease on each job, with a fencing token from the server's clock that grows with every change of owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::replica::RedisReplica;
use super::scripts::{epoch, millis};
use super::stats;
use super::unavailable::Unavailable;
use crate::domain::id::JobKey;
use crate::ports::BoxFuture;
use crate::ports::feed::{FeedEvent, NotificationFeed};
use crate::ports::leases::{Claim, FencingToken, LeaseManager, SkipIf};

/// Above this number of leases the expired ones are removed.
const HELD_MAX: usize = 4_096;

/// The fencing token of a fetch without a lease, because the server was unavailable. No lease has it.
const ALONE: u64 = 0;

/// The expiry of this process's leases by its own clock, for when the server is unavailable. Earlier than the server's
/// expiry, because it is counted from before the request.
#[derive(Debug, Default)]
struct LeaseValidity(Mutex<HashMap<JobKey, (u64, Instant)>>);

impl LeaseValidity {
    fn note(&self, key: &JobKey, epoch: u64, until: Instant) {
        let mut held = self.lock();
        if held.len() >= HELD_MAX {
            let now = Instant::now();
            held.retain(|_, (_, until)| *until > now);
        }
        held.insert(key.clone(), (epoch, until));
    }

    /// Whether a lease is still valid, as far as this process knows.
    fn lasts(&self, key: &JobKey, fencing_token: FencingToken) -> bool {
        let held = self.lock().get(key).copied();
        match fencing_token {
            // A write without a claim, such as a write-back, has no expiry.
            FencingToken::Alone => held.is_none_or(|(held, until)| held != ALONE || Instant::now() < until),
            FencingToken::Epoch(epoch) => {
                held.is_some_and(|(held, until)| held == epoch && Instant::now() < until)
            }
        }
    }

    /// Extends a fetch without a lease by the duration of a lease, unless it has expired.
    fn extend(&self, key: &JobKey, lease: Duration) {
        let now = Instant::now();
        if let Some((ALONE, until)) = self.lock().get_mut(key)
            && now < *until
        {
            *until = now + lease;
        }
    }

    /// Removes a lease that has ended.
    fn forget(&self, key: &JobKey, fencing_token: FencingToken) {
        let mut held = self.lock();
        let epoch = if let FencingToken::Epoch(epoch) = fencing_token { epoch } else { ALONE };
        if held.get(key).is_some_and(|(held, _)| *held == epoch) {
            held.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobKey, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The leases and the notifications of the shared store.
#[derive(Debug)]
pub struct RedisLeases {
    replica: Arc<RedisReplica>,
    /// How long a lease lasts that is not renewed.
    lease: Duration,
    validity: LeaseValidity,
}

impl RedisLeases {
    /// No leases yet; each will last for `lease` unless it is renewed.
    pub(super) fn new(replica: Arc<RedisReplica>, lease: Duration) -> Self {
        Self { replica, lease, validity: LeaseValidity::default() }
    }

    /// Removes a lease that has ended with a write.
    pub(super) fn forget(&self, key: &JobKey, fencing_token: FencingToken) {
        self.validity.forget(key, fencing_token);
    }

    /// Whether a lease has expired by this process's own clock; counts the write as rejected.
    pub(super) fn expired(&self, key: &JobKey, fencing_token: FencingToken) -> bool {
        let over = !self.validity.lasts(key, fencing_token);
        if over {
            self.validity.forget(key, fencing_token);
            self.count_refusal(key);
        }
        over
    }

    /// Counts a write that was rejected because its lease had expired.
    pub(super) fn count_refusal(&self, key: &JobKey) {
        stats::add(&self.replica.connection.counts.fence_refusals);
        tracing::debug!(job = %key, "lease lost before the write; the result is discarded");
    }

    async fn claim_one(&self, key: &JobKey, unless: SkipIf) -> Result<Claim, Unavailable> {
        let (mode, value) = match unless {
            SkipIf::KeptWithin(span) => ("w", millis(span)),
            SkipIf::KeptSince(point) => ("a", point.to_string()),
            SkipIf::Never => ("-", String::new()),
        };
        let lease = millis(self.lease);
        let arguments: [&[u8]; 4] =
            [self.replica.owner.as_bytes(), lease.as_bytes(), mode.as_bytes(), value.as_bytes()];
        let name = self.replica.keys.job(key);
        let requested_at = Instant::now();
        let (what, first, second): (i64, u64, u64) =
            self.replica.connection.run(&self.replica.connection.scripts.claim, &[&name], &arguments).await?;
        Ok(match what {
            0 => {
                if second == 1 {
                    stats::add(&self.replica.connection.counts.takeovers);
                }
                self.validity.note(key, first, requested_at + self.lease);
                Claim::Acquired(FencingToken::Epoch(first))
            }
            1 => Claim::HeldElsewhere { at_most: Duration::from_millis(first), seen: second },
            _ => Claim::Unneeded,
        })
    }

    async fn renew_one(&self, key: &JobKey, fencing_token: FencingToken) {
        if fencing_token == FencingToken::Alone {
            self.validity.extend(key, self.lease);
        }
        if let FencingToken::Epoch(number) = fencing_token {
            let (epoch, lease, requested_at) = (epoch(fencing_token), millis(self.lease), Instant::now());
            let arguments: [&[u8]; 3] = [self.replica.owner.as_bytes(), epoch.as_bytes(), lease.as_bytes()];
            let name = self.replica.keys.job(key);
            // A lease that is not renewed expires, and then every write with its token is rejected.
            if let Ok(1) = self
                .replica
                .connection
                .run::<i64>(&self.replica.connection.scripts.renew, &[&name], &arguments)
                .await
            {
                self.validity.note(key, number, requested_at + self.lease);
            }
        }
    }

    /// Releases a lease.
    pub(super) async fn release_one(&self, key: &JobKey, fencing_token: FencingToken) {
        self.validity.forget(key, fencing_token);
        if let FencingToken::Epoch(_) = fencing_token {
            let (epoch, channel, id) = (epoch(fencing_token), self.replica.keys.feed(), key.node_id());
            let arguments: [&[u8]; 4] =
                [self.replica.owner.as_bytes(), epoch.as_bytes(), channel.as_bytes(), id.as_bytes()];
            let name = self.replica.keys.job(key);
            // A lease that is not released expires.
            self.replica
                .connection
                .run::<i64>(&self.replica.connection.scripts.release, &[&name], &arguments)
                .await
                .ok();
        }
    }
}

impl LeaseManager for RedisLeases {
    fn claim<'a>(&'a self, keys: &'a [JobKey], unless: SkipIf) -> BoxFuture<'a, Vec<Claim>> {
        Box::pin(async move {
            let claims = keys.iter().map(async |key| {
                // Redis is unavailable: every replica fetches by itself, within its local budget.
                let claim = self.claim_one(key, unless).await;
                claim.unwrap_or_else(|_| {
                    self.validity.note(key, ALONE, Instant::now() + self.lease);
                    Claim::Acquired(FencingToken::Alone)
                })
            });
            join_all(claims).await
        })
    }

    fn renew_every(&self) -> Duration {
        self.lease / 3
    }

    fn renew<'a>(&'a self, held: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            join_all(held.iter().map(|(key, fencing_token)| self.renew_one(key, *fencing_token))).await;
        })
    }

    fn release<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, ()> {
        Box::pin(self.release_one(key, fencing_token))
    }
}

impl NotificationFeed for RedisLeases {
    fn next(&self) -> BoxFuture<'_, FeedEvent> {
        Box::pin(self.replica.notifications.next())
    }
}
