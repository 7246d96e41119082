//! `store`: where jobs are kept. This version keeps them in memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::words;

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The kind of store: `memory`, which is lost when the process ends.
    pub kind: StoreKind,
}

words! {
    /// A kind of store.
    pub enum StoreKind {
        /// In this process; lost when it ends.
        Memory = "memory",
    } else "this version keeps jobs in memory only: write memory, or leave it out"
}
