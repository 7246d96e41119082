//! Chooses the jobs to poll when more are due than there is capacity for: clients are served in round robin.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

/// While polls are spaced, one poll in this many is for the owner that has waited longest; the others are for the items
/// that have been due longest. So every item is polled within 4/3 of the polls that all items together need, however
/// many owners there are.
const AGING_DIVISOR: usize = 4;
/// The maximum number of owners whose last service is remembered.
const OWNERS_MAX: usize = 1_000;

/// The round robin of spaced polls: remembers when each owner was last served.
#[derive(Debug)]
pub(super) struct RoundRobin<O> {
    /// Polls since the last one that was chosen by owner.
    since: usize,
    number: u64,
    served: HashMap<O, u64>,
}

impl<O> Default for RoundRobin<O> {
    fn default() -> Self {
        Self { since: 0, number: 0, served: HashMap::new() }
    }
}

impl<O: Clone + Eq + Hash> RoundRobin<O> {
    /// How many of the next `room` polls are for the items that have been due longest.
    pub(super) fn by_age(&mut self, room: usize) -> usize {
        let by_owner = (self.since + room) / AGING_DIVISOR;
        self.since = (self.since + room) % AGING_DIVISOR;
        room.saturating_sub(by_owner)
    }

    /// Chooses `room` items, each of the owner that has waited longest. `waiting` are the due items of each owner, the
    /// longest due first.
    pub(super) fn choose<'a, T: Ord + Copy>(
        &mut self,
        waiting: impl Iterator<Item = (&'a O, impl Iterator<Item = T>)>,
        room: usize,
    ) -> Vec<T>
    where
        O: 'a,
    {
        let served = |owner: &O| self.served.get(owner).copied().unwrap_or(0);
        let waiting: Vec<_> = waiting.map(|(owner, items)| (owner, served(owner), items)).collect();
        by_rank(waiting, room, |owner, _| self.serve(owner))
    }

    /// Records that an item of this owner is chosen. Returns the number of the service.
    pub(super) fn serve(&mut self, owner: &O) -> u64 {
        self.number += 1;
        if self.served.len() >= OWNERS_MAX && !self.served.contains_key(owner) {
            // Owners that were served longest ago count as never served, which is nearly true.
            let oldest = self.number.saturating_sub(OWNERS_MAX as u64 / 2);
            self.served.retain(|_, number| *number >= oldest);
        }
        self.served.insert(owner.clone(), self.number);
        self.number
    }
}

/// Chooses `room` items, each of the owner with the lowest rank: at the beginning the given one, and after each of its items
/// the one that `next` returns. Of owners of the same rank, the one whose item has been due longest is first.
pub(super) fn by_rank<O, T: Ord + Copy>(
    mut owners: Vec<(O, u64, impl Iterator<Item = T>)>,
    room: usize,
    mut next: impl FnMut(&O, u64) -> u64,
) -> Vec<T> {
    let mut first = BinaryHeap::with_capacity(owners.len());
    for (position, (_, rank, items)) in owners.iter_mut().enumerate() {
        first.extend(items.next().map(|item| Reverse((*rank, item, position))));
    }
    let mut chosen = Vec::with_capacity(room);
    while chosen.len() < room {
        let Some(Reverse((rank, item, position))) = first.pop() else { break };
        chosen.push(item);
        if let Some((owner, _, items)) = owners.get_mut(position) {
            let rank = next(owner, rank);
            first.extend(items.next().map(|item| Reverse((rank, item, position))));
        }
    }
    chosen
}
