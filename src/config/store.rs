//! `store`: where jobs are kept. How long, and how much of them in memory, stands under `cache`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::tier::{RawRedis, RedisConfig};
use super::values::{GIB, MIB, Size, words};

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreConfig {
    /// The kind of store.
    pub kind: StoreKind,
    /// The folder of the file. Of the embedded store.
    pub path: PathBuf,
    /// The size of the file beyond which the oldest jobs go. Of the embedded store.
    #[serde(with = "Size::<{ 8 * MIB }, { 16 * 1024 * GIB }>")]
    pub max_bytes: usize,
    /// How much of the rows of finished queries it keeps. Of the embedded store.
    pub rows: StoredRows,
    /// The server that replicas share. Of the Redis store.
    pub redis: RedisConfig,
}

/// Where jobs are kept.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// The kind of store: `embedded`, a file of this process alone that survives it; `redis`, which replicas share; or
    /// `memory`, which is lost with the process.
    kind: StoreKind,
    /// The folder of the file; made if it is not there. Of the embedded store.
    path: PathBuf,
    /// The size of the file beyond which the oldest jobs go. Of the embedded store.
    #[serde(with = "Size::<{ 8 * MIB }, { 16 * 1024 * GIB }>")]
    max_bytes: usize,
    rows: StoredRows,
    redis: RawRedis,
}

/// How much of the rows of finished queries is kept as long as their jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredRows {
    /// The most of one job, in whole stretches of a thousand rows from the first on; 0B keeps none.
    #[serde(with = "Size::<0, GIB>")]
    pub per_job: usize,
    /// The most of all jobs; those that were kept first go.
    #[serde(with = "Size::<MIB, { 16 * 1024 * GIB }>")]
    pub max_bytes: usize,
}

words! {
    /// A kind of store.
    pub enum StoreKind {
        /// In a file that survives the process, and in memory before it.
        Embedded = "embedded",
        /// In a Redis or Valkey that replicas share, and in memory before it.
        Redis = "redis",
        /// In this process; lost when it ends.
        Memory = "memory",
    } else "must be embedded, redis or memory"
}

impl RawStore {
    pub(super) fn accept(self, faults: &mut Faults) -> StoreConfig {
        let Self { kind, path, max_bytes, rows, redis } = self;
        if path.as_os_str().is_empty() {
            faults.add("store.path", "must be a folder, such as ./data");
        }
        if rows.max_bytes < rows.per_job {
            faults.add("store.rows.max_bytes", "must not be less than store.rows.per_job");
        }
        StoreConfig { kind, path, max_bytes, rows, redis: redis.accept(kind, faults) }
    }
}
