//! One shared fetch per key: the first to ask leads, the others join, and nobody's leaving cancels it.
//!
//! A flight is a value that lands once, in a watch channel. The leader's [`Ticket`] travels into a task of its own;
//! dropping it without landing (a panic) frees the key and tells the joiners that the flight is lost. Keys are
//! compared in full (`docs/adr/0004-fetch-is-its-own-task.md`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

type Open<K, V> = Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>;

/// The flights under way.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    open: Open<K, V>,
}

/// A seat on a flight: resolves when it lands.
#[derive(Debug)]
pub(super) struct Seat<V>(watch::Receiver<Option<V>>);

/// The duty to land a flight. Dropping it unlanded loses the flight.
#[derive(Debug)]
pub(super) struct Ticket<K: Eq + Hash, V> {
    key: K,
    landing: watch::Sender<Option<V>>,
    open: Open<K, V>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { open: Arc::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    /// Takes a seat. Whoever gets a ticket with it leads, and must see to it that the flight lands.
    pub(super) fn board(&self, key: &K) -> (Seat<V>, Option<Ticket<K, V>>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.entry(key.clone()) {
            Entry::Occupied(flight) => (Seat(flight.get().clone()), None),
            Entry::Vacant(slot) => {
                let (landing, seat) = watch::channel(None);
                slot.insert(seat.clone());
                let ticket = Ticket { key: key.clone(), landing, open: Arc::clone(&self.open) };
                (Seat(seat), Some(ticket))
            }
        }
    }

    /// How many flights are under way.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.open.lock().unwrap().len()
    }
}

impl<V: Clone + Send + Sync> Seat<V> {
    /// Waits for the landing; `None` when the flight is lost. Cancel safe: leaving a seat disturbs nobody.
    pub(super) async fn landed(mut self) -> Option<V> {
        let landed = self.0.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }
}

impl<K: Eq + Hash, V> Ticket<K, V> {
    /// The key this flight is for.
    pub(super) const fn key(&self) -> &K {
        &self.key
    }

    /// Lands the flight: everyone seated gets the value, and the next to ask starts anew.
    pub(super) fn land(self, value: V) {
        self.landing.send_replace(Some(value));
    }
}

impl<K: Eq + Hash, V> Drop for Ticket<K, V> {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_leads_and_the_others_get_the_same_value() {
        let flights = Flights::<&str, u32>::default();
        let (first, ticket) = flights.board(&"a");
        let (second, none) = flights.board(&"a");
        assert!(none.is_none());
        drop(first);
        ticket.unwrap().land(7);
        assert_eq!(second.landed().await, Some(7), "a leader who left still lands");
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_lost_flight_is_told_and_frees_its_key() {
        let flights = Flights::<&str, u32>::default();
        let (seat, ticket) = flights.board(&"a");
        drop(ticket);
        assert_eq!(seat.landed().await, None);
        assert!(flights.board(&"a").1.is_some(), "the next to ask leads again");
    }
}
