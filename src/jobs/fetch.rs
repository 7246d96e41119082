//! How an observation is obtained: one fetch per job at a time, under a lease, and one write path for its result. When
//! a job is polled is decided in `follow`.

mod fetcher;
mod ingest;
mod remote;
mod rollback;
mod single_flight;

pub(super) use fetcher::{Fetcher, NewFetches};
pub(super) use ingest::{FetchResult, Ingest};
pub(super) use remote::RemoteChanges;
pub(super) use single_flight::{FetchReceiver, LeaderGuard, SingleFlight};
