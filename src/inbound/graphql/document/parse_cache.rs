//! Caches documents that were parsed, passed the limits and are valid, so that each is parsed once. Keyed by their
//! whole text, compared in full; bounded by an estimate of their bytes; unused entries are evicted.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::inbound::graphql::plan::document::ParsedDocument;

/// Two generations of entries. A used entry moves to the young one; when that is full the old one is dropped as a
/// whole. So no operation is linear, and entries that are used repeatedly stay.
pub(super) struct Generations<K, V> {
    young: HashMap<K, (V, usize)>,
    young_bytes: usize,
    old: HashMap<K, (V, usize)>,
    max_bytes: usize,
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    /// Empty, with a limit of about `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { young: HashMap::new(), young_bytes: 0, old: HashMap::new(), max_bytes }
    }

    /// Returns an entry, if it is cached.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, bytes)) = self.old.remove_entry(key)?;
        self.push(key, value.clone(), bytes);
        Some(value)
    }

    /// Caches an entry of this many bytes. One that is too large is not cached.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize) {
        if bytes <= self.max_bytes / 2 && !self.young.contains_key(&key) {
            self.push(key, value, bytes);
        }
    }

    fn push(&mut self, key: K, value: V, bytes: usize) {
        if self.young_bytes + bytes > self.max_bytes / 2 {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, (value, bytes));
    }

    /// The estimated bytes of the entries.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.young.values().chain(self.old.values()).map(|(_, bytes)| bytes).sum()
    }
}

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

    /// Caches a document with its text and its number of tokens. One that is too large is not cached.
    pub(super) fn keep(&self, text: &str, tokens: usize, document: Arc<ParsedDocument>) {
        let bytes = ParsedDocument::bytes(text.len(), tokens);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(text.into(), document, bytes);
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
            documents.keep(
                text,
                10,
                Arc::new(ParsedDocument::new(parse_query(text).unwrap(), text.len(), 10)),
            );
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
        documents.keep("{ a }", 3, Arc::new(ParsedDocument::new(parse_query("{ a }").unwrap(), 5, 3)));
        assert!(documents.get("{ a }").is_none());
    }
}
