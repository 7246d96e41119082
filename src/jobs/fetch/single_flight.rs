//! One shared fetch per key: the first caller leads, the others join, and a caller that leaves does not cancel it.
//!
//! A single flight completes once, through a watch channel. The leader's [`LeaderGuard`] is moved into a task of its
//! own. Dropping it without a result (a panic) frees the key and reports to the joiners that the fetch is lost. Keys
//! are compared in full (`docs/adr/0004-fetch-is-its-own-task.md`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The single flights in progress.
#[derive(Debug)]
pub(in crate::jobs) struct SingleFlight<K, V>(Arc<Flights<K, V>>);

#[derive(Debug)]
struct Flights<K, V> {
    open: Mutex<HashMap<K, watch::Receiver<Option<V>>>>,
    /// How many flights were completed. One for all keys: every lookup of a cached job reads it.
    completed: AtomicU64,
}

/// The receiver of a single flight; resolves when it completes.
#[derive(Debug)]
pub(in crate::jobs) struct FetchReceiver<V>(watch::Receiver<Option<V>>);

/// The obligation to complete a single flight. Dropping it without a result loses the flight.
#[derive(Debug)]
pub(in crate::jobs) struct LeaderGuard<K: Eq + Hash, V> {
    key: K,
    sender: watch::Sender<Option<V>>,
    flights: Arc<Flights<K, V>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self(Arc::new(Flights { open: Mutex::default(), completed: AtomicU64::default() }))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Joins a flight. A caller that gets a leader guard leads it and must complete it.
    pub(in crate::jobs) fn join(&self, key: &K) -> (FetchReceiver<V>, Option<LeaderGuard<K, V>>) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.entry(key.clone()) {
            Entry::Occupied(entry) => (FetchReceiver(entry.get().clone()), None),
            Entry::Vacant(slot) => {
                let (sender, receiver) = watch::channel(None);
                slot.insert(receiver.clone());
                let leader = LeaderGuard { key: key.clone(), sender, flights: Arc::clone(&self.0) };
                (FetchReceiver(receiver), Some(leader))
            }
        }
    }

    /// The number of completed flights, of any key. A caller that read it before the cache, and leads a flight with another
    /// number, may have missed the result of a flight in between.
    pub(in crate::jobs) fn completed(&self) -> u64 {
        self.0.completed.load(Ordering::Acquire)
    }

    /// The number of flights in progress.
    #[cfg(test)]
    pub(in crate::jobs) fn under_way(&self) -> usize {
        self.0.open.lock().unwrap().len()
    }
}

impl<V: Clone + Send + Sync> FetchReceiver<V> {
    /// Waits for the result; `None` when the flight is lost. Cancel safe: dropping a receiver affects no other caller.
    pub(in crate::jobs) async fn await_result(mut self) -> Option<V> {
        let received = self.0.wait_for(Option::is_some).await.ok()?;
        received.clone()
    }
}

impl<K: Eq + Hash, V> LeaderGuard<K, V> {
    /// The key of this flight.
    pub(in crate::jobs) const fn key(&self) -> &K {
        &self.key
    }

    /// Completes the flight: every receiver gets the value, and the next caller starts a new flight.
    pub(in crate::jobs) fn complete(self, value: V) {
        // Before the key is free: the leader of the next flight sees it.
        self.flights.completed.fetch_add(1, Ordering::Release);
        self.sender.send_replace(Some(value));
    }
}

impl<K: Eq + Hash, V> Drop for LeaderGuard<K, V> {
    fn drop(&mut self) {
        self.flights.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn joiners_receive_the_value_of_the_leader() {
        let single_flight = SingleFlight::<&str, u32>::default();
        let (first, leader) = single_flight.join(&"a");
        let (second, none) = single_flight.join(&"a");
        assert!(none.is_none());
        drop(first);
        leader.unwrap().complete(7);
        assert_eq!(second.await_result().await, Some(7), "the flight completes though its leader left");
        assert_eq!(single_flight.under_way(), 0);
    }

    #[tokio::test]
    async fn dropped_leader_guard_fails_its_joiners() {
        let single_flight = SingleFlight::<&str, u32>::default();
        let (receiver, leader) = single_flight.join(&"a");
        drop(leader);
        assert_eq!(receiver.await_result().await, None);
    }

    #[tokio::test]
    async fn dropped_leader_guard_frees_its_key() {
        let single_flight = SingleFlight::<&str, u32>::default();
        drop(single_flight.join(&"a"));
        assert!(single_flight.join(&"a").1.is_some(), "the next caller leads again");
    }
}
