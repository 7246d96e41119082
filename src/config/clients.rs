//! `clients`: callers that authenticate with a key, and the sources that each may read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

mod grants;

use super::validation::ValidationErrors;
use crate::domain::id::SourceName;
use crate::domain::principal::{Grant, Scope};
pub(super) use grants::KnownSources;
use grants::RawGrant;

/// A caller that authenticates with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientConfig {
    /// The name in logs and spans: 1 to 63 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// SHA-256 of each key of the client; two during a key rotation.
    #[serde(serialize_with = "as_hex")]
    pub key_sha256: Vec<[u8; 32]>,
    /// The sources that it may read, each with its scope.
    #[serde(serialize_with = "grants::as_written")]
    pub sources: BTreeMap<SourceName, Scope>,
}

impl ClientConfig {
    /// What the client may read.
    pub fn grant(&self) -> Grant {
        Grant::Sources(Arc::new(self.sources.clone()))
    }

    /// A hash in the form of the file: 64 hexadecimal digits.
    pub fn hex(hash: &[u8; 32]) -> String {
        hash.iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
    }

    /// Whether a text is a valid client name.
    pub fn is_name(text: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=63).contains(&text.len()) && text.bytes().all(fits)
    }
}

/// A client: a caller that authenticates with a key.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Client", extend("required" = ["name", "key_sha256", "sources"]))]
pub(super) struct RawClient {
    /// The name in logs and spans: 1 to 63 letters, digits, `-`, `_` or `.`.
    #[schemars(required)]
    name: Option<String>,
    /// SHA-256 of the client's key as 64 hexadecimal digits, or a list of them during a key rotation.
    #[schemars(required)]
    key_sha256: Option<Hashes>,
    /// Names of the sources that the client may read, or a mapping of source names to restrictions.
    #[schemars(required)]
    sources: Option<RawGrant>,
}

/// Checks all clients together: names and keys must not repeat.
pub(super) fn accept(
    raw: Vec<RawClient>,
    known: &KnownSources,
    faults: &mut ValidationErrors,
) -> Vec<ClientConfig> {
    let mut names = BTreeMap::new();
    let mut keys = BTreeMap::new();
    let mut clients = Vec::new();
    for (index, client) in raw.into_iter().enumerate() {
        let path = format!("clients[{index}]");
        if let Some(name) = &client.name {
            let path = format!("{path}.name");
            if !ClientConfig::is_name(name) {
                faults.add(path, "must be 1 to 63 letters, digits, -, _ or .");
            } else if let Some(first) = names.insert(name.clone(), index) {
                faults.add(path, format!("is also the name of clients[{first}]: names must be unique"));
            }
        }
        for hash in client.key_sha256.iter().flat_map(|hashes| &hashes.0) {
            if let Some(first) = keys.insert(*hash, index) {
                let message =
                    format!("is also a key of clients[{first}]: create a new one with `jobgate key new`");
                faults.add(format!("{path}.key_sha256"), message);
            }
        }
        clients.extend(client.accept(&path, known, faults));
    }
    clients
}

impl RawClient {
    fn accept(self, path: &str, known: &KnownSources, faults: &mut ValidationErrors) -> Option<ClientConfig> {
        if self.name.is_none() {
            faults.add(format!("{path}.name"), "is missing: set a name for the logs");
        }
        if self.key_sha256.is_none() {
            let message = "is missing: run `jobgate key new NAME` and copy the hash it prints";
            faults.add(format!("{path}.key_sha256"), message);
        }
        let path = format!("{path}.sources");
        let sources = match self.sources {
            Some(grant) => grant.accept(&path, known, faults),
            None => BTreeMap::new(),
        };
        if sources.is_empty() {
            faults.add(path, "is missing: list at least one source that the client may read");
        }
        Some(ClientConfig { name: self.name?, key_sha256: self.key_sha256?.0, sources })
    }
}

/// One hash or a list of them.
struct Hashes(Vec<[u8; 32]>);

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let list = value.as_array().map_or_else(|| std::slice::from_ref(&value), Vec::as_slice);
        let hashes = list.iter().map(hash).collect::<Option<Vec<_>>>().filter(|hashes| !hashes.is_empty());
        hashes.map(Self).ok_or_else(|| {
            D::Error::custom(
                "must be the SHA-256 of a key as 64 hexadecimal digits in quotes, or a list of them, as `jobgate key new` prints it; never the key itself",
            )
        })
    }
}

impl JsonSchema for Hashes {
    fn schema_name() -> Cow<'static, str> {
        "Hashes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let hash = json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" });
        json_schema!({ "anyOf": [hash, { "type": "array", "minItems": 1, "items": hash }] })
    }
}

fn hash(value: &Value) -> Option<[u8; 32]> {
    let text =
        value.as_str().filter(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

fn as_hex<S: Serializer>(hashes: &[[u8; 32]], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hashes.iter().map(ClientConfig::hex))
}
