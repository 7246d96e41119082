//! Documents that were parsed, passed the limits and were found valid, so that each is parsed once.
//! Keyed by their whole text, compared in full; bounded by an estimate of their bytes; no entry outlives its use.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::parser::types::ExecutableDocument;

/// What a token's share of a parsed document takes, roughly: a field with its positions is some 400 bytes
/// for two or three tokens.
const BYTES_A_TOKEN: usize = 200;

/// Two generations of documents. What is used moves to the young one; when that is full the old one is
/// dropped whole. So no use is linear, and what is asked again and again stays.
pub struct Documents {
    held: Mutex<Held>,
    max_bytes: usize,
}

#[derive(Default)]
struct Held {
    young: HashMap<Arc<str>, Kept>,
    young_bytes: usize,
    old: HashMap<Arc<str>, Kept>,
}

struct Kept {
    document: Arc<ExecutableDocument>,
    bytes: usize,
}

impl Documents {
    /// An empty store that holds at most about `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { held: Mutex::default(), max_bytes }
    }

    /// Gives the document of a text, if it is held.
    pub fn get(&self, text: &str) -> Option<Arc<ExecutableDocument>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = held.young.get(text) {
            return Some(Arc::clone(&kept.document));
        }
        let (text, kept) = held.old.remove_entry(text)?;
        let document = Arc::clone(&kept.document);
        self.put(&mut held, text, kept);
        Some(document)
    }

    /// Keeps a document with its text and its number of tokens. One too large for the store is not kept.
    pub fn keep(&self, text: &str, tokens: usize, document: Arc<ExecutableDocument>) {
        let bytes = text.len().saturating_add(tokens.saturating_mul(BYTES_A_TOKEN));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes <= self.max_bytes / 2 && !held.young.contains_key(text) {
            self.put(&mut held, text.into(), Kept { document, bytes });
        }
    }

    fn put(&self, held: &mut Held, text: Arc<str>, kept: Kept) {
        if held.young_bytes + kept.bytes > self.max_bytes / 2 {
            held.old = mem::take(&mut held.young);
            held.young_bytes = 0;
        }
        held.young_bytes += kept.bytes;
        held.young.insert(text, kept);
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn what_is_asked_again_stays_and_the_rest_is_bounded() {
        let documents = Documents::new(40_000);
        let keep = |text: &str| documents.keep(text, 10, Arc::new(parse_query(text).unwrap()));
        keep("{ wanted }");
        for index in 0..1000 {
            keep(&format!("{{ other{index} }}"));
            assert!(documents.get("{ wanted }").is_some(), "{index}");
        }
        assert!(documents.get("{ other3 }").is_none());
        let held = documents.held.lock().unwrap();
        let bytes: usize = held.young.values().chain(held.old.values()).map(|kept| kept.bytes).sum();
        assert!(bytes <= documents.max_bytes, "{bytes}");
    }

    #[test]
    fn a_document_larger_than_the_store_is_not_kept() {
        let documents = Documents::new(1000);
        documents.keep("{ a }", 3, Arc::new(parse_query("{ a }").unwrap()));
        assert!(documents.get("{ a }").is_none());
    }
}
