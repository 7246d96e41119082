//! `store`: where jobs are kept. The `cache` section defines how long, and how much of them in memory.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shared_store::{RawRedis, RedisConfig};
use super::validation::ValidationErrors;
use super::values::{GIB, MIB, Size, words};

/// The job store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreConfig {
    /// The kind of store.
    pub kind: StoreKind,
    /// The folder of the file of the embedded store.
    pub path: PathBuf,
    /// Maximum size of the file of the embedded store, in bytes. The oldest jobs are removed first.
    #[serde(with = "Size::<{ 8 * MIB }, { 16 * 1024 * GIB }>")]
    pub max_bytes: usize,
    /// How many result rows the embedded store keeps.
    pub rows: StoredRows,
    /// The Redis that replicas share.
    pub redis: RedisConfig,
}

/// The job store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// The kind of store: `embedded` (a file of one process, kept over restarts), `redis` (shared by replicas) or `memory`
    /// (lost with the process).
    kind: StoreKind,
    /// Folder of the file of the embedded store. It is created if it does not exist.
    path: PathBuf,
    /// Maximum size of the file of the embedded store, in bytes. The oldest jobs are removed first.
    #[serde(with = "Size::<{ 8 * MIB }, { 16 * 1024 * GIB }>")]
    max_bytes: usize,
    rows: StoredRows,
    redis: RawRedis,
}

/// How many result rows of terminal jobs the embedded store keeps, as long as the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredRows {
    /// Maximum size of the kept rows of one job, in bytes. Rows are kept from the first one on, in blocks of 1000. `0B`: no
    /// rows are kept.
    #[serde(with = "Size::<0, GIB>")]
    pub per_job: usize,
    /// Maximum size of the rows of all jobs, in bytes. The oldest rows are removed first.
    #[serde(with = "Size::<MIB, { 16 * 1024 * GIB }>")]
    pub max_bytes: usize,
}

words! {
    /// A kind of store.
    pub enum StoreKind {
        /// A file that is kept over restarts, with a cache in memory.
        Embedded = "embedded",
        /// A Redis or Valkey that replicas share, with a cache in memory.
        Redis = "redis",
        /// Memory only; lost with the process.
        Memory = "memory",
    } else "must be embedded, redis or memory"
}

impl RawStore {
    pub(super) fn accept(self, faults: &mut ValidationErrors) -> StoreConfig {
        let Self { kind, path, max_bytes, rows, redis } = self;
        if path.as_os_str().is_empty() {
            faults.add("store.path", "must be a folder, such as ./data");
        }
        if rows.max_bytes < rows.per_job {
            faults.add("store.rows.max_bytes", "must not be less than store.rows.per_job");
        }
        StoreConfig { kind, path, max_bytes, rows, redis: redis.accept(kind == StoreKind::Redis, faults) }
    }
}
