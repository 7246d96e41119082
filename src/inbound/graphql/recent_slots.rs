//! A table of values that were used last: each key has one slot, whose value the next key of the same slot replaces.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A fixed number of slots, each with a lock of its own.
pub(super) struct RecentSlots<T>(Box<[Mutex<Option<T>>]>);

impl<T> RecentSlots<T> {
    /// So many empty slots, at least one.
    pub(super) fn new(slots: usize) -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(slots.max(1)).collect())
    }

    /// The slot of a key. The caller checks whether its value is that of the key.
    ///
    /// Fibonacci hashing: the bits of the product from the 32nd on depend on all lower bits of the key.
    pub(super) fn slot(&self, key: u64) -> MutexGuard<'_, Option<T>> {
        let index = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let slot = &self.0[usize::try_from(index).unwrap_or_default() % self.0.len()];
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value of the slot of a key. What it replaces is dropped without the lock.
    pub(super) fn put(&self, key: u64, value: T) {
        let before = self.slot(key).replace(value);
        drop(before);
    }
}
