//! Leases for fetching jobs, among replicas that share a store. One replica at a time holds the lease of a job, for the
//! duration of one fetch. Its fencing token is checked where the result is written.

use std::fmt::Debug;
use std::time::Duration;

use super::BoxFuture;
use crate::domain::id::JobKey;

/// The fencing token of a lease. It is passed along with every result of the fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencingToken {
    /// No lease manager granted it: this process is the only one, or the lease manager is unavailable. Writes are
    /// compared by their own times.
    Alone,
    /// The epoch of the lease. A write succeeds only while this lease is valid.
    Epoch(u64),
}

/// The condition under which a lease is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipIf {
    /// An observation of the job was stored within this time.
    KeptWithin(Duration),
    /// An observation of the job was stored since this point of its history.
    KeptSince(u64),
    /// The lease is always needed.
    Never,
}

/// The result of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The lease is held until it is released or expires.
    Acquired(FencingToken),
    /// Another replica holds it, for at most this long unless it renews it. Contains the point of the job's history.
    HeldElsewhere {
        /// The remaining time of the lease.
        at_most: Duration,
        /// The point in the job's history.
        seen: u64,
    },
    /// The lease is not needed: the observation has been stored.
    Unneeded,
}

/// Grants leases. When it is unavailable, it grants every lease under [`FencingToken::Alone`]: an extra fetch is the
/// lesser evil.
pub trait LeaseManager: Debug + Send + Sync {
    /// Claims the leases of some jobs: same order, same length. Never waits for another replica.
    fn claim<'a>(&'a self, keys: &'a [JobKey], unless: SkipIf) -> BoxFuture<'a, Vec<Claim>>;

    /// The interval in which a held lease is to be renewed.
    fn renew_every(&self) -> Duration;

    /// Renews leases. A lost lease stays lost, and the write under it fails.
    fn renew<'a>(&'a self, held: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()>;

    /// Releases a lease under which nothing was written. A write releases its lease itself.
    fn release<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, ()>;
}

/// For a process that does not share its store: every claim is granted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalLeases;

impl LeaseManager for LocalLeases {
    fn claim<'a>(&'a self, keys: &'a [JobKey], _: SkipIf) -> BoxFuture<'a, Vec<Claim>> {
        Box::pin(std::future::ready(vec![Claim::Acquired(FencingToken::Alone); keys.len()]))
    }

    fn renew_every(&self) -> Duration {
        Duration::MAX
    }

    fn renew<'a>(&'a self, _: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn release<'a>(&'a self, _: &'a JobKey, _: FencingToken) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
