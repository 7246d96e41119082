//! One shared fetch per key: the first to ask leads, the others join, and nobody's leaving cancels it.
//!
//! A flight is a value that lands once, in a watch channel. The leader's [`LeaderGuard`] travels into a task of its own;
//! dropping it without landing (a panic) frees the key and tells the joiners that the flight is lost. Keys are
//! compared in full (`docs/adr/0004-fetch-is-its-own-task.md`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type OpenFetch<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The flights under way.
#[derive(Debug)]
pub(super) struct SingleFlight<K, V> {
    open: OpenFetch<K, V>,
}

/// A seat on a flight: resolves when it lands.
#[derive(Debug)]
pub(super) struct FetchReceiver<V>(watch::Receiver<Option<V>>);

/// The duty to land a flight. Dropping it unlanded loses the flight.
#[derive(Debug)]
pub(super) struct LeaderGuard<K: Eq + Hash, V> {
    key: K,
    sender: watch::Sender<Option<V>>,
    open: OpenFetch<K, V>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { open: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Takes a seat. Whoever gets a ticket with it leads, and must see to it that the flight lands.
    pub(super) fn join(&self, key: &K) -> (FetchReceiver<V>, Option<LeaderGuard<K, V>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.entry(key.clone()) {
            Entry::Occupied(entry) => (FetchReceiver(entry.get().clone()), None),
            Entry::Vacant(slot) => {
                let (sender, receiver) = watch::channel(None);
                slot.insert(receiver.clone());
                let leader = LeaderGuard { key: key.clone(), sender, open: Arc::clone(&self.open) };
                (FetchReceiver(receiver), Some(leader))
            }
        }
    }

    /// How many flights are under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.open.lock().unwrap().len()
    }
}

impl<V: Clone + Send + Sync> FetchReceiver<V> {
    /// Waits for the landing; `None` when the flight is lost. Cancel safe: leaving a seat disturbs nobody.
    pub(super) async fn await_result(mut self) -> Option<V> {
        let received = self.0.wait_for(Option::is_some).await.ok()?;
        received.clone()
    }
}

impl<K: Eq + Hash, V> LeaderGuard<K, V> {
    /// The key this flight is for.
    pub(super) const fn key(&self) -> &K {
        &self.key
    }

    /// Lands the flight: everyone seated gets the value, and the next to ask starts anew.
    pub(super) fn complete(self, value: V) {
        self.sender.send_replace(Some(value));
    }
}

impl<K: Eq + Hash, V> Drop for LeaderGuard<K, V> {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
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
        assert_eq!(second.await_result().await, Some(7), "a leader who left still lands");
        assert_eq!(single_flight.under_way(), 0);
    }

    #[tokio::test]
    async fn dropped_leader_guard_fails_joiners_and_frees_the_key() {
        let single_flight = SingleFlight::<&str, u32>::default();
        let (receiver, leader) = single_flight.join(&"a");
        drop(leader);
        assert_eq!(receiver.await_result().await, None);
        assert!(single_flight.join(&"a").1.is_some(), "the next to ask leads again");
    }
}
