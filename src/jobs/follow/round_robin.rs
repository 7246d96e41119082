//! Chooses the jobs to poll when more are due than there is capacity for: clients are served in round robin.

use std::collections::{HashMap, VecDeque};
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
    /// Chooses `room` of the `due` items, which are sorted with the longest due first.
    pub(super) fn choose<T>(&mut self, due: Vec<T>, room: usize, owner: impl Fn(&T) -> O) -> Vec<T> {
        if due.len() <= room {
            return due;
        }
        let picks = (self.since + room) / AGING_DIVISOR;
        self.since = (self.since + room) % AGING_DIVISOR;
        let mut rest = due;
        let mut chosen = Vec::with_capacity(room);
        let later = rest.split_off(room.saturating_sub(picks).min(rest.len()));
        for item in rest {
            self.serve(owner(&item));
            chosen.push(item);
        }
        let mut queues: Vec<(O, VecDeque<T>)> = Vec::new();
        let mut positions: HashMap<O, usize> = HashMap::new();
        for item in later {
            let owner = owner(&item);
            let position = *positions.entry(owner.clone()).or_insert_with(|| {
                queues.push((owner, VecDeque::new()));
                queues.len() - 1
            });
            if let Some((_, queue)) = queues.get_mut(position) {
                queue.push_back(item);
            }
        }
        while chosen.len() < room {
            let served = |owner: &O| self.served.get(owner).copied().unwrap_or(0);
            let waiting = queues.iter_mut().filter(|(_, queue)| !queue.is_empty());
            let Some((owner, queue)) = waiting.min_by_key(|(owner, _)| served(owner)) else { break };
            chosen.extend(queue.pop_front());
            let owner = owner.clone();
            self.serve(owner);
        }
        chosen
    }

    fn serve(&mut self, owner: O) {
        self.number += 1;
        if self.served.len() >= OWNERS_MAX && !self.served.contains_key(&owner) {
            // Owners that were served longest ago count as never served, which is nearly true.
            let oldest = self.number.saturating_sub(OWNERS_MAX as u64 / 2);
            self.served.retain(|_, number| *number >= oldest);
        }
        self.served.insert(owner, self.number);
    }
}

/// Chooses `room` of the `due` items, which are sorted with the longest due first, in round robin over the owners, each
/// with its first item first.
pub(super) fn round_robin<T, O: Clone + Eq + Hash>(
    due: Vec<T>,
    room: usize,
    owner: impl Fn(&T) -> O,
) -> Vec<T> {
    if due.len() <= room {
        return due;
    }
    let mut queues: Vec<VecDeque<T>> = Vec::new();
    let mut positions: HashMap<O, usize> = HashMap::new();
    for item in due {
        let position = *positions.entry(owner(&item)).or_insert_with(|| {
            queues.push(VecDeque::new());
            queues.len() - 1
        });
        if let Some(queue) = queues.get_mut(position) {
            queue.push_back(item);
        }
    }
    let mut chosen = Vec::with_capacity(room);
    while chosen.len() < room && !queues.is_empty() {
        queues.retain_mut(|queue| {
            if chosen.len() < room {
                chosen.extend(queue.pop_front());
            }
            !queue.is_empty()
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Makes `polls` polls, `room` at once, of items that are due again as soon as they were polled. Returns for each
    /// item the most polls between two of its own.
    fn longest_waits(owners: &[u32], room: usize, polls: usize) -> Vec<usize> {
        let mut picks = RoundRobin::default();
        let mut due: Vec<usize> = (0..owners.len()).collect();
        let (mut last, mut longest) = (vec![0; owners.len()], vec![0; owners.len()]);
        for poll in 1..=polls / room {
            let chosen = picks.choose(due.clone(), room, |item| owners[*item]);
            due.retain(|item| !chosen.contains(item));
            for item in chosen {
                longest[item] = longest[item].max(poll - last[item]);
                last[item] = poll;
                due.push(item);
            }
        }
        last.iter().zip(longest).map(|(last, longest)| longest.max(polls / room - last)).collect()
    }

    #[test]
    fn large_client_does_not_starve_a_small_client() {
        let owners: Vec<u32> = std::iter::repeat_n(0, 300).chain([1, 2]).collect();
        let waits = longest_waits(&owners, 1, 3_000);
        assert!(waits[300..].iter().all(|wait| *wait <= 12), "{:?}", &waits[300..]);
        assert!(waits.iter().all(|wait| *wait <= 302 * 4 / 3 + 2), "{:?}", waits.iter().max());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn no_job_waits_longer_than_four_thirds_of_a_round(
            owners in proptest::collection::vec(0_u32..40, 20..120), room in 1_usize..15
        ) {
            let rounds = owners.len().div_ceil(room);
            let waits = longest_waits(&owners, room, 8 * owners.len());
            prop_assert!(waits.iter().all(|wait| *wait <= (rounds * 4).div_ceil(3) + 2), "{waits:?} at {room}");
        }
    }

    #[test]
    fn round_robin_takes_one_job_per_client_before_a_second() {
        let due: Vec<(char, u32)> =
            (0..1_000).map(|number| ('a', number)).chain([('b', 0), ('c', 0)]).collect();
        let chosen = round_robin(due.clone(), 4, |(owner, _)| *owner);
        assert_eq!(chosen, [('a', 0), ('b', 0), ('c', 0), ('a', 1)]);
        assert_eq!(round_robin(due.clone(), 2_000, |(owner, _)| *owner), due, "all are chosen if all fit");
        assert_eq!(round_robin(due, 0, |(owner, _)| *owner), []);
    }
}
