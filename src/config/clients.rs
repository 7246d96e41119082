//! `clients`: who may ask, recognised by the hash of a key, and which sources they may read.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::fault::Faults;
use super::read::nearest;
use crate::domain::id::SourceName;

/// A program or person that may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientConfig {
    /// The name in logs and spans: 1 to 63 of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// SHA-256 of each key that is the client's; two while a key is being changed.
    #[serde(serialize_with = "as_hex")]
    pub key_sha256: Vec<[u8; 32]>,
    /// The sources it may read.
    #[serde(serialize_with = "as_names")]
    pub sources: BTreeSet<SourceName>,
}

impl ClientConfig {
    /// A hash in the form of the file: 64 hexadecimal digits.
    pub fn hex(hash: &[u8; 32]) -> String {
        hash.iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
    }

    /// Says whether a text can be a client's name.
    pub fn is_name(text: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=63).contains(&text.len()) && text.bytes().all(fits)
    }
}

/// A client: a program or person that may ask.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Client", extend("required" = ["name", "key_sha256", "sources"]))]
pub(super) struct RawClient {
    /// The name in logs and spans: 1 to 63 of letters, digits, `-`, `_` and `.`.
    #[schemars(required)]
    name: Option<String>,
    /// SHA-256 of the client's key as 64 hexadecimal digits, or a list of them while a key is being changed.
    #[schemars(required)]
    key_sha256: Option<Hashes>,
    /// The names of the sources it may read.
    #[schemars(required)]
    sources: Option<Vec<String>>,
}

/// Checks all clients together: names and keys must not repeat.
pub(super) fn accept(
    raw: Vec<RawClient>,
    known: &BTreeSet<String>,
    faults: &mut Faults,
) -> Vec<ClientConfig> {
    let mut names = BTreeMap::new();
    let mut keys = BTreeMap::new();
    let mut clients = Vec::new();
    for (index, client) in raw.into_iter().enumerate() {
        let path = format!("clients[{index}]");
        if let Some(name) = &client.name {
            let path = format!("{path}.name");
            if !ClientConfig::is_name(name) {
                faults.add(path, "must be 1 to 63 of letters, digits, - _ and .");
            } else if let Some(first) = names.insert(name.clone(), index) {
                faults.add(path, format!("is also the name of clients[{first}]: give each client its own"));
            }
        }
        for hash in client.key_sha256.iter().flat_map(|hashes| &hashes.0) {
            if let Some(first) = keys.insert(*hash, index) {
                let message =
                    format!("repeats a key of clients[{first}]: make a new one with `jobgate key new`");
                faults.add(format!("{path}.key_sha256"), message);
            }
        }
        clients.extend(client.accept(&path, known, faults));
    }
    clients
}

impl RawClient {
    fn accept(self, path: &str, known: &BTreeSet<String>, faults: &mut Faults) -> Option<ClientConfig> {
        if self.name.is_none() {
            faults.add(format!("{path}.name"), "is missing: give the client a name for the logs");
        }
        if self.key_sha256.is_none() {
            let message = "is missing: run `jobgate key new NAME` and copy the hash it prints";
            faults.add(format!("{path}.key_sha256"), message);
        }
        let listed = self.sources.unwrap_or_default();
        if listed.is_empty() {
            faults.add(format!("{path}.sources"), "is missing: name at least one source the client may read");
        }
        let mut sources = BTreeSet::new();
        for (index, name) in listed.iter().enumerate() {
            if known.contains(name) {
                sources.extend(SourceName::parse(name));
                continue;
            }
            let message = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("names a source that is not configured; did you mean {near}?"),
                None => "names a source that is not configured".to_owned(),
            };
            faults.add(format!("{path}.sources[{index}]"), message);
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

fn as_names<S: Serializer>(names: &BTreeSet<SourceName>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(SourceName::as_str))
}
