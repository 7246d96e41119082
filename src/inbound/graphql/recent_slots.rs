//! A table of values that were used last: each key has a pair of slots, which hold the last two values of its keys.

use std::sync::{Mutex, PoisonError};

/// A fixed number of pairs of slots, each with a lock of its own.
pub(super) struct RecentSlots<T>(Box<[Mutex<SlotPair<T>>]>);

/// The values that were put last, the newest first.
type SlotPair<T> = [Option<T>; 2];

impl<T> RecentSlots<T> {
    /// So many empty slots, at least two.
    pub(super) fn new(slots: usize) -> Self {
        let pair = || Mutex::new([None, None]);
        Self(std::iter::repeat_with(pair).take(slots.div_ceil(2).max(1)).collect())
    }

    /// What `read` returns for a value of the slots of a key: `None` for the value of another key.
    pub(super) fn find<R>(&self, key: u64, read: impl Fn(&T) -> Option<R>) -> Option<R> {
        let pair = self.pair(key).lock().unwrap_or_else(PoisonError::into_inner);
        pair.iter().flatten().find_map(read)
    }

    /// Puts a value into the slots of a key, in place of the older one. What it replaces is dropped without the lock.
    pub(super) fn put(&self, key: u64, value: T) {
        let before = {
            let mut pair = self.pair(key).lock().unwrap_or_else(PoisonError::into_inner);
            pair.swap(0, 1);
            pair[0].replace(value)
        };
        drop(before);
    }

    /// Fibonacci hashing: the upper bits of the product depend on all bits of the key, and are scaled to the length.
    fn pair(&self, key: u64) -> &Mutex<SlotPair<T>> {
        let upper = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = (upper * self.0.len() as u64) >> 32;
        &self.0[usize::try_from(index).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(expected: u64) -> impl Fn(&u64) -> Option<u64> {
        move |value| (*value == expected).then_some(*value)
    }

    #[test]
    fn last_two_values_of_a_pair_are_kept() {
        let slots = RecentSlots::new(2);
        for value in 1..=3 {
            slots.put(value, value);
        }
        assert_eq!([1, 2, 3].map(|value| slots.find(value, is(value))), [None, Some(2), Some(3)]);
    }

    #[test]
    fn keys_at_equal_distances_are_spread_over_all_slots() {
        for distance in [1, 16, 320, 512, 4096] {
            let slots = RecentSlots::new(8192);
            let keys = (0..1000).map(|number| 0x7f3a_5c00_0000 + number * distance);
            keys.clone().for_each(|key| slots.put(key, key));
            let kept = keys.filter(|key| slots.find(*key, is(*key)).is_some()).count();
            assert!(kept > 980, "{kept} of 1000 at a distance of {distance}");
        }
    }
}
