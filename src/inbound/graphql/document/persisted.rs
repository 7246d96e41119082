//! Documents with an id: those of the operator's manifest, which can be the only ones that are executed, and those that
//! clients sent before (Apollo's automatic persisted queries). Only resolves an id to a text: every limit applies to
//! the text as to any other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::generations::Generations;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// The prefix of an id that is a hash.
const SHA256_PREFIX: &str = "sha256:";
/// The size of the cache of automatic persisted queries, approximately, in bytes.
const AUTOMATIC_BYTES: usize = 4 * 1024 * 1024;
/// The size of an entry beside its text.
const ENTRY_BYTES: usize = 150;

/// The SHA-256 of a document's text.
pub(in crate::inbound::graphql) type DocumentHash = [u8; 32];

/// The document of a request: its text, its id, or both.
#[derive(Debug)]
pub(in crate::inbound::graphql) struct DocumentRequest {
    pub(in crate::inbound::graphql) text: Option<String>,
    /// From `documentId`, or from Apollo's `extensions.persistedQuery.sha256Hash`.
    pub(in crate::inbound::graphql) id: Option<String>,
}

/// The resolved text.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::inbound::graphql) struct ResolvedDocument {
    pub(in crate::inbound::graphql) text: String,
    /// The hash to register it under, once it has been validated.
    pub(in crate::inbound::graphql) learn: Option<DocumentHash>,
}

/// The documents with an id. The default contains none, and accepts every text.
#[derive(Default)]
pub struct PersistedDocuments {
    manifest: Option<Manifest>,
    only: bool,
    automatic: Option<Mutex<Generations<DocumentHash, Arc<str>>>>,
}

/// The operator's documents by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(HashMap<Box<str>, Box<str>>);

/// Why a manifest is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// It is not JSON.
    #[error("is not valid JSON from line {0} on")]
    NotJson(usize),
    /// It has another shape.
    #[error(
        "must be a JSON object of ids and documents, or a manifest of the format apollo-persisted-query-manifest"
    )]
    Shape,
    /// It contains no document.
    #[error("contains no documents")]
    Empty,
    /// An id in the form of a hash is not the hash of its document.
    #[error("has a document whose SHA-256 differs from its id \"{0}\"")]
    WrongHash(String),
}

impl Manifest {
    /// Parses a manifest: an object of ids and documents, as Relay's compiler writes it, or Apollo's form.
    ///
    /// # Errors
    /// Returns an error if it is neither, is empty, or has an id `sha256:…` that is not that of its document.
    pub fn parse(json: &str) -> Result<Self, BadManifest> {
        let read: Value = serde_json::from_str(json).map_err(|error| BadManifest::NotJson(error.line()))?;
        let mut documents = HashMap::new();
        let mut add = |id: &str, text: &str| {
            if let Some(hash) = id.strip_prefix(SHA256_PREFIX)
                && hash_of_hex(hash) != Some(hash_of(text))
            {
                return Err(BadManifest::WrongHash(id.chars().take(80).collect()));
            }
            documents.insert(bare(id).into(), text.into());
            Ok(())
        };
        if read["format"] == "apollo-persisted-query-manifest" && read["operations"].is_array() {
            for operation in read["operations"].as_array().into_iter().flatten() {
                let (Some(id), Some(text)) = (operation["id"].as_str(), operation["body"].as_str()) else {
                    return Err(BadManifest::Shape);
                };
                add(id, text)?;
            }
        } else {
            for (id, text) in read.as_object().ok_or(BadManifest::Shape)? {
                add(id, text.as_str().ok_or(BadManifest::Shape)?)?;
            }
        }
        if documents.is_empty() {
            return Err(BadManifest::Empty);
        }
        Ok(Self(documents))
    }

    /// Every id with its document, in no order.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(id, text)| (&**id, &**text))
    }
}

impl PersistedDocuments {
    /// The documents of a manifest, and no others with `only`; and those that clients register, with `automatic`.
    pub fn new(manifest: Option<Manifest>, only: bool, automatic: bool) -> Self {
        let automatic = automatic.then(|| Mutex::new(Generations::new(AUTOMATIC_BYTES)));
        Self { only: only && manifest.is_some(), manifest, automatic }
    }

    /// Every document of the manifest with its id, in no order.
    pub(in crate::inbound::graphql) fn listed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.manifest.iter().flat_map(Manifest::iter)
    }

    /// Resolves the text of a request.
    ///
    /// # Errors
    /// Returns an error if the id is unknown, the text is not one of those that are executed, or it does not match its
    /// hash.
    pub(in crate::inbound::graphql) fn resolve(
        &self,
        request_for: DocumentRequest,
    ) -> Result<ResolvedDocument, HttpRefusal> {
        let listed = |id: &str| self.manifest.as_ref()?.0.get(bare(id));
        match (request_for.text, request_for.id) {
            (Some(text), id) if self.only => match id.and_then(|id| listed(&id)) {
                Some(known) if **known == *text => Ok(ResolvedDocument { text, learn: None }),
                _ => Err(HttpRefusal::new(
                    RefusalKind::DocumentNotTrusted,
                    "only persisted documents are allowed; send the documentId of one in place of query",
                )),
            },
            (Some(text), Some(id)) if self.automatic.is_some() => {
                let hash = hash_of(&text);
                if hash_of_hex(bare(&id)) == Some(hash) {
                    return Ok(ResolvedDocument { text, learn: Some(hash) });
                }
                let message = "sha256Hash is not the SHA-256 of query; send the hash of query";
                Err(HttpRefusal::new(RefusalKind::Malformed, message))
            }
            (Some(text), _) => Ok(ResolvedDocument { text, learn: None }),
            (None, id) => {
                let id = id.unwrap_or_default();
                let text = listed(&id).map(ToString::to_string).or_else(|| self.learned(&id));
                text.map(|text| ResolvedDocument { text, learn: None }).ok_or_else(|| self.unknown())
            }
        }
    }

    /// Registers a text by its hash, as `resolve` requested, after the text was validated.
    pub(in crate::inbound::graphql) fn register(&self, hash: DocumentHash, text: &str) {
        if let Some(automatic) = &self.automatic {
            let bytes = text.len() + ENTRY_BYTES;
            automatic.lock().unwrap_or_else(PoisonError::into_inner).put(hash, text.into(), bytes);
        }
    }

    fn learned(&self, id: &str) -> Option<String> {
        let hash = hash_of_hex(bare(id))?;
        let automatic = self.automatic.as_ref().filter(|_| !self.only)?;
        let found = automatic.lock().unwrap_or_else(PoisonError::into_inner).get(&hash)?;
        Some(found.to_string())
    }

    /// Records that a document was used by its hash.
    pub(in crate::inbound::graphql) fn used(&self, hash: &DocumentHash) {
        if let Some(automatic) = &self.automatic {
            automatic.lock().unwrap_or_else(PoisonError::into_inner).get(hash);
        }
    }

    /// Clients of automatic persisted queries compare these messages, so they are identical to Apollo's.
    fn unknown(&self) -> HttpRefusal {
        if self.only {
            HttpRefusal::new(RefusalKind::DocumentNotTrusted, "no persisted document has this id")
        } else if self.manifest.is_some() || self.automatic.is_some() {
            HttpRefusal::new(RefusalKind::DocumentUnknown, "PersistedQueryNotFound")
        } else {
            HttpRefusal::new(RefusalKind::DocumentIdsOff, "PersistedQueryNotSupported")
        }
    }
}

impl fmt::Debug for PersistedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = self.manifest.as_ref().map(|manifest| manifest.0.len());
        f.debug_struct("PersistedDocuments")
            .field("listed", &listed)
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

fn bare(id: &str) -> &str {
    id.strip_prefix(SHA256_PREFIX).unwrap_or(id)
}

/// The hash of a text.
pub(in crate::inbound::graphql) fn hash_of(text: &str) -> DocumentHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

fn hash_of_hex(text: &str) -> Option<DocumentHash> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "{ hello }";

    fn hex(text: &str) -> String {
        hash_of(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    fn request_for(text: Option<&str>, id: Option<&str>) -> DocumentRequest {
        DocumentRequest { text: text.map(ToOwned::to_owned), id: id.map(ToOwned::to_owned) }
    }

    #[test]
    fn every_supported_manifest_format_is_parsed() {
        let apollo = r#"{ "format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{ "id": "ID", "name": "H", "type": "query", "body": "{ hello }" }] }"#;
        let hashed = format!(r#"{{ "sha256:{}": "{HELLO}" }}"#, hex(HELLO));
        for (json, ids) in [
            (r#"{ "ID": "{ hello }" }"#, vec!["ID"]),
            (apollo, vec!["ID"]),
            (
                hashed.as_str(),
                vec![hashed.split('"').nth(1).unwrap(), bare(hashed.split('"').nth(1).unwrap())],
            ),
        ] {
            let known = PersistedDocuments::new(Some(Manifest::parse(json).unwrap()), true, false);
            for id in ids {
                assert_eq!(known.resolve(request_for(None, Some(id))).unwrap().text, HELLO, "{json}");
            }
        }
        for (json, fault) in [
            ("{\n", BadManifest::NotJson(2)),
            ("[]", BadManifest::Shape),
            (r#"{ "ID": 7 }"#, BadManifest::Shape),
            (r#"{ "format": "apollo-persisted-query-manifest", "operations": [{}] }"#, BadManifest::Shape),
            ("{}", BadManifest::Empty),
            (r#"{ "sha256:00": "{ hello }" }"#, BadManifest::WrongHash("sha256:00".to_owned())),
        ] {
            assert_eq!(Manifest::parse(json), Err(fault), "{json}");
        }
    }

    /// The known documents, the text and the id of a request, and whether its text is to be registered
    type ManifestCase<'a> =
        (&'a str, &'a PersistedDocuments, Option<&'a str>, Option<&'a str>, Result<bool, RefusalKind>);

    #[test]
    fn document_ids_are_resolved_by_the_configured_mode() {
        let manifest = || Some(Manifest::parse(r#"{ "ID": "{ hello }" }"#).unwrap());
        let hash = hex("{ other }");
        let (text, other) = (Some(HELLO), Some("{ other }"));
        let off = PersistedDocuments::default();
        let only = PersistedDocuments::new(manifest(), true, true);
        let also = PersistedDocuments::new(manifest(), false, false);
        let automatic = PersistedDocuments::new(None, true, true);
        let cases: &[ManifestCase<'_>] = &[
            ("off", &off, text, None, Ok(false)),
            ("off", &off, other, Some(&hash), Ok(false)),
            ("off", &off, other, Some("wrong"), Ok(false)),
            ("off", &off, None, Some(&hash), Err(RefusalKind::DocumentIdsOff)),
            ("only", &only, None, Some("ID"), Ok(false)),
            ("only", &only, text, Some("ID"), Ok(false)),
            ("only", &only, other, Some("ID"), Err(RefusalKind::DocumentNotTrusted)),
            ("only", &only, text, None, Err(RefusalKind::DocumentNotTrusted)),
            ("only", &only, other, Some(&hash), Err(RefusalKind::DocumentNotTrusted)),
            ("only", &only, None, Some(&hash), Err(RefusalKind::DocumentNotTrusted)),
            ("also", &also, None, Some("ID"), Ok(false)),
            ("also", &also, other, None, Ok(false)),
            ("also", &also, None, Some(&hash), Err(RefusalKind::DocumentUnknown)),
            ("automatic", &automatic, other, None, Ok(false)),
            ("automatic", &automatic, None, Some(&hash), Err(RefusalKind::DocumentUnknown)),
            ("automatic", &automatic, other, Some(&hash), Ok(true)),
            ("automatic", &automatic, text, Some(&hash), Err(RefusalKind::Malformed)),
            ("automatic", &automatic, text, Some("x"), Err(RefusalKind::Malformed)),
        ];
        for (name, known, text, id, expected) in cases {
            let resolved = known.resolve(request_for(*text, *id)).map(|resolved| resolved.learn.is_some());
            assert_eq!(resolved.map_err(|refusal| refusal.kind()), *expected, "{name} {text:?} {id:?}");
        }
    }

    #[test]
    fn registered_documents_resolve_within_a_memory_bound() {
        let known = PersistedDocuments::new(None, false, true);
        known.register(hash_of("{ other }"), "{ other }");
        assert_eq!(known.resolve(request_for(None, Some(&hex("{ other }")))).unwrap().text, "{ other }");
        for number in 0..10_000 {
            let text = format!("{{ hello{number} {} }}", "x".repeat(2_000));
            known.register(hash_of(&text), &text);
        }
        let bytes = known.automatic.as_ref().unwrap().lock().unwrap().bytes();
        assert!(bytes <= AUTOMATIC_BYTES, "{bytes}");
    }
}
