//! Whose turn it is to look at a job, among replicas that share a store. One replica at a time has the turn of a job, for
//! the time of one look; the fence it gets is checked where what it learned is written.

use std::fmt::Debug;
use std::time::Duration;

use super::BoxFuture;
use crate::domain::id::JobKey;

/// What a turn was given under. It goes along with whatever is learned in that turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencingToken {
    /// Nobody gave it: this process is alone, or nobody can be asked. What is written is compared by its own times.
    Alone,
    /// The epoch of the turn. It is written only while this turn lasts.
    Epoch(u64),
}

/// What makes a turn unnecessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipIf {
    /// Something was kept of the job within this time.
    KeptWithin(Duration),
    /// Something was kept of the job since this point of its history.
    KeptSince(u64),
    /// Nothing does.
    Never,
}

/// What became of a wish for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours until it is given back, or not renewed.
    Acquired(FencingToken),
    /// Another replica has it, for at most this long unless it renews it. Carries the point of the job's history.
    HeldElsewhere {
        /// How long the turn lasts by now.
        at_most: Duration,
        /// The point in the job's history.
        seen: u64,
    },
    /// It is not needed: what was to be learned has been kept.
    Unneeded,
}

/// Gives turns. One that cannot be asked gives every turn under [`FencingToken::Alone`]: an extra look is the lesser evil.
pub trait LeaseManager: Debug + Send + Sync {
    /// Wishes for the turns of some jobs: same order, same length. Never waits for another replica.
    fn claim<'a>(&'a self, keys: &'a [JobKey], unless: SkipIf) -> BoxFuture<'a, Vec<Claim>>;

    /// How often a turn is to be renewed that lasts.
    fn renew_every(&self) -> Duration;

    /// Renews turns. One that is lost stays lost, which shows where it is written.
    fn renew<'a>(&'a self, held: &'a [(JobKey, FencingToken)]) -> BoxFuture<'a, ()>;

    /// Gives back a turn in which nothing was written. Writing ends a turn by itself.
    fn release<'a>(&'a self, key: &'a JobKey, fencing_token: FencingToken) -> BoxFuture<'a, ()>;
}

/// For a process that shares its store with nobody: every turn is its own.
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
