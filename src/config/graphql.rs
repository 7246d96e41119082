//! `graphql`: limits on documents, and which documents are accepted. All limits are checked before any resolver runs.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Count, words};

/// Limits on documents, and which documents are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphqlConfig {
    /// Whether introspection is allowed: `auto` (only when listening on loopback), `on` or `off`.
    pub introspection: IntrospectionConfig,
    /// Documents that a client can send by id. With `only`, no other document is executed. Null: there are none, and every
    /// document is accepted.
    pub trusted_documents: Option<TrustedDocuments>,
    /// Whether a client may send the hash of a document that it sent before (Apollo's automatic persisted queries): `auto`
    /// (yes) or `off` (no).
    pub persisted_queries: PersistedQueries,
    /// Maximum cost of an operation. One unit is one possible upstream call.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_cost: usize,
    /// Maximum number of values in the answer to an operation: fields and list items, multiplied by duplicates, pages,
    /// aliases and levels.
    #[serde(with = "Count::<1, 100_000_000>")]
    pub max_answer_cost: usize,
}

words! {
    /// Whether introspection is allowed.
    pub enum IntrospectionConfig {
        /// Yes when listening on loopback only, otherwise no.
        Auto = "auto",
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    } else "must be auto, on or off"
}

/// Documents that a client can send by id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedDocuments {
    /// Path of the manifest: a JSON object of ids and documents (as Relay writes it) or Apollo's persisted query manifest.
    pub manifest: PathBuf,
    /// Whether other documents are refused. If false, other documents can still be sent as text.
    #[serde(default = "yes")]
    pub only: bool,
}

const fn yes() -> bool {
    true
}

words! {
    /// Whether a client may send the hash of a document that it sent before.
    pub enum PersistedQueries {
        /// Yes.
        Auto = "auto",
        /// No.
        Off = "off",
    } else "must be auto or off"
}
