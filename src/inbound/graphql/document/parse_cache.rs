//! Caches documents that were parsed, passed the limits and are valid, so that each is parsed once. Keyed by their
//! whole text, compared in full; bounded by an estimate of their bytes; unused entries are evicted.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::generations::Generations;
use crate::inbound::graphql::plan::document::ParsedDocument;

/// Parsed documents by their text.
pub(super) struct ParseCache(Mutex<Generations<Arc<str>, Arc<ParsedDocument>>>);

impl ParseCache {
    /// An empty cache with a limit of about `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(Mutex::new(Generations::new(max_bytes)))
    }

    /// Returns the document of a text, if it is cached.
    pub(super) fn get(&self, text: &str) -> Option<Arc<ParsedDocument>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(text)
    }

    /// Caches a document with its number of tokens. One that is too large is not cached.
    pub(super) fn keep(&self, tokens: usize, document: Arc<ParsedDocument>) {
        let text = Arc::clone(document.text());
        let bytes = ParsedDocument::bytes(text.len(), tokens);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(text, document, bytes);
    }
}

impl fmt::Debug for ParseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParseCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn recently_used_document_stays_in_the_bounded_cache() {
        let documents = ParseCache::new(120_000);
        let keep = |text: &str| {
            documents.keep(10, Arc::new(ParsedDocument::new(parse_query(text).unwrap(), text, 10)));
        };
        keep("{ wanted }");
        for index in 0..1000 {
            keep(&format!("{{ other{index} }}"));
            assert!(documents.get("{ wanted }").is_some(), "{index}");
        }
        assert!(documents.get("{ other3 }").is_none());
        let bytes = documents.0.lock().unwrap().bytes();
        assert!(bytes <= 120_000, "{bytes}");
    }

    #[test]
    fn document_larger_than_the_cache_is_not_cached() {
        let documents = ParseCache::new(1000);
        documents.keep(3, Arc::new(ParsedDocument::new(parse_query("{ a }").unwrap(), "{ a }", 3)));
        assert!(documents.get("{ a }").is_none());
    }
}
