//! `store`: where jobs are kept. How long, and how much of them in memory, stands under `cache`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::values::{GIB, MIB, Size, words};

/// Where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// The kind of store: `embedded`, a file of this process alone that survives it, or `memory`, which is lost with it.
    pub kind: StoreKind,
    /// The folder of the file; made if it is not there. Of the embedded store.
    pub path: PathBuf,
    /// The size of the file beyond which the oldest jobs go. Of the embedded store.
    #[serde(with = "Size::<{ 8 * MIB }, { 16 * 1024 * GIB }>")]
    pub max_bytes: usize,
}

words! {
    /// A kind of store.
    pub enum StoreKind {
        /// In a file that survives the process, and in memory before it.
        Embedded = "embedded",
        /// In this process; lost when it ends.
        Memory = "memory",
    } else "must be embedded or memory: this version has no store that replicas share"
}

impl StoreConfig {
    pub(super) fn check(&self, faults: &mut Faults) {
        if self.path.as_os_str().is_empty() {
            faults.add("store.path", "must be a folder, such as ./data");
        }
    }
}
