//! `graphql`: what a document may look like, and which documents may be sent. All limits are checked before any resolver
//! runs.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Count, words};

/// What a document may look like.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphqlConfig {
    /// Whether callers may ask for the schema itself: `auto` (when listening on loopback only), `on` or `off`.
    pub introspection: Introspection,
    /// Documents that are known by an id, so that a client sends the id alone; and with `only`, that no others are executed.
    pub trusted_documents: Option<TrustedDocuments>,
    /// Whether a client may send the hash of a document in the place of one that it sent before (Apollo's automatic
    /// persisted queries): `auto` or `off`.
    pub persisted_queries: PersistedQueries,
    /// Most lexical tokens in a document.
    #[serde(with = "Count::<10, 1_000_000>")]
    pub max_tokens: usize,
    /// Deepest nesting of selections. Introspection by common tools needs 12.
    #[serde(with = "Count::<1, 100>")]
    pub max_depth: usize,
    /// Most aliases in an operation, fragments unfolded.
    #[serde(with = "Count::<0, 10_000>")]
    pub max_aliases: usize,
    /// Most fields at the top of an operation.
    #[serde(with = "Count::<1, 1_000>")]
    pub max_root_fields: usize,
    /// Most directives in an operation.
    #[serde(with = "Count::<0, 10_000>")]
    pub max_directives: usize,
    /// Highest cost of an operation, where one unit is one call that an upstream could get.
    #[serde(with = "Count::<1, 1_000_000>")]
    pub max_cost: usize,
    /// Most values that the answer to an operation may hold: fields and list items, multiplied by duplicates, pages, aliases
    /// and levels.
    #[serde(with = "Count::<1, 100_000_000>")]
    pub max_answer_cost: usize,
}

words! {
    /// Whether callers may ask for the schema itself.
    pub enum Introspection {
        /// Yes when listening on loopback only, else no.
        Auto = "auto",
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    } else "must be auto, on or off"
}

/// Documents that are known by an id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustedDocuments {
    /// Path of the manifest: a JSON object of ids and documents (as Relay writes it), or Apollo's persisted query manifest.
    pub manifest: PathBuf,
    /// Whether no other document is executed; if not, others may still be sent as text. The default is that none is.
    #[serde(default = "yes")]
    pub only: bool,
}

const fn yes() -> bool {
    true
}

words! {
    /// Whether a client may send a hash in the place of a document that it sent before.
    pub enum PersistedQueries {
        /// Yes.
        Auto = "auto",
        /// No.
        Off = "off",
    } else "must be auto or off"
}
