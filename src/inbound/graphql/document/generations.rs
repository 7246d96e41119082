//! A cache that is bounded by the bytes of its entries, in two generations.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use foldhash::quality::RandomState;

/// Two generations of entries. A used entry moves to the young one; when that is full the old one is dropped as a
/// whole. So no operation is linear, and entries that are used repeatedly stay.
pub(super) struct Generations<K, V> {
    young: HashMap<K, (V, usize), RandomState>,
    young_bytes: usize,
    old: HashMap<K, (V, usize), RandomState>,
    max_bytes: usize,
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    /// Empty, with a limit of about `max_bytes`.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { young: HashMap::default(), young_bytes: 0, old: HashMap::default(), max_bytes }
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

    /// Caches an entry of this many bytes in place of one of the same key. One that is too large is not cached. Drops the
    /// old generation when the young one is full, at most every `max_bytes / 2`.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize) {
        if bytes > self.max_bytes / 2 {
            return;
        }
        if let Some((_, before)) = self.young.remove(&key) {
            self.young_bytes -= before;
        }
        self.push(key, value, bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A known request whose document was dropped is replaced by the same request with its new document.
    #[test]
    fn later_entry_of_a_key_replaces_the_earlier_one() {
        let mut held = Generations::new(100);
        held.put("key", 1, 30);
        held.put("key", 2, 20);
        assert_eq!((held.get("key"), held.bytes()), (Some(2), 20));
    }
}
