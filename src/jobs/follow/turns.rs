//! Whose job is looked at when more is due than there is room for: clients take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// One look in so many goes to the owner who waited longest for one, while looks are spaced; the others to what is due longest.
/// So every thing is looked at within 4/3 of the looks that all together need, however many owners there are.
const TURN_EVERY: usize = 4;
/// The most owners whose last turn is remembered.
const OWNERS_MAX: usize = 1_000;

/// Whose turn it is while looks are spaced: remembers who had one when.
#[derive(Debug)]
pub(super) struct Turns<O> {
    /// Looks since the last turn.
    since: usize,
    number: u64,
    served: HashMap<O, u64>,
}

impl<O> Default for Turns<O> {
    fn default() -> Self {
        Self { since: 0, number: 0, served: HashMap::new() }
    }
}

impl<O: Clone + Eq + Hash> Turns<O> {
    /// Chooses `room` of the `due` things, which stand longest-due first.
    pub(super) fn choose<T>(&mut self, due: Vec<T>, room: usize, owner: impl Fn(&T) -> O) -> Vec<T> {
        if due.len() <= room {
            return due;
        }
        let turns = (self.since + room) / TURN_EVERY;
        self.since = (self.since + room) % TURN_EVERY;
        let mut rest = due;
        let mut chosen = Vec::with_capacity(room);
        let later = rest.split_off(room.saturating_sub(turns).min(rest.len()));
        for thing in rest {
            self.serve(owner(&thing));
            chosen.push(thing);
        }
        let mut queues: Vec<(O, VecDeque<T>)> = Vec::new();
        let mut places: HashMap<O, usize> = HashMap::new();
        for thing in later {
            let owner = owner(&thing);
            let place = *places.entry(owner.clone()).or_insert_with(|| {
                queues.push((owner, VecDeque::new()));
                queues.len() - 1
            });
            if let Some((_, queue)) = queues.get_mut(place) {
                queue.push_back(thing);
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
            // those served longest ago count as never served, which they nearly are
            let oldest = self.number.saturating_sub(OWNERS_MAX as u64 / 2);
            self.served.retain(|_, number| *number >= oldest);
        }
        self.served.insert(owner, self.number);
    }
}

/// Chooses `room` of the `due` things, which stand longest-due first; owners take turns, each with its first one first.
pub(super) fn take_turns<T, O: Clone + Eq + Hash>(
    due: Vec<T>,
    room: usize,
    owner: impl Fn(&T) -> O,
) -> Vec<T> {
    if due.len() <= room {
        return due;
    }
    let mut queues: Vec<VecDeque<T>> = Vec::new();
    let mut places: HashMap<O, usize> = HashMap::new();
    for thing in due {
        let place = *places.entry(owner(&thing)).or_insert_with(|| {
            queues.push(VecDeque::new());
            queues.len() - 1
        });
        if let Some(queue) = queues.get_mut(place) {
            queue.push_back(thing);
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

    /// Makes so many looks, `room` at once, at things that are due again as soon as they were looked at. Returns for each thing the most
    /// looks between two of its own.
    fn longest_waits(owners: &[u32], room: usize, looks: usize) -> Vec<usize> {
        let mut turns = Turns::default();
        let mut due: Vec<usize> = (0..owners.len()).collect();
        let (mut last, mut longest) = (vec![0; owners.len()], vec![0; owners.len()]);
        for look in 1..=looks / room {
            let chosen = turns.choose(due.clone(), room, |thing| owners[*thing]);
            due.retain(|thing| !chosen.contains(thing));
            for thing in chosen {
                longest[thing] = longest[thing].max(look - last[thing]);
                last[thing] = look;
                due.push(thing);
            }
        }
        last.iter().zip(longest).map(|(last, longest)| longest.max(looks / room - last)).collect()
    }

    #[test]
    fn a_small_client_has_its_turns_beside_a_large_one() {
        let owners: Vec<u32> = std::iter::repeat_n(0, 300).chain([1, 2]).collect();
        let waits = longest_waits(&owners, 1, 3_000);
        assert!(waits[300..].iter().all(|wait| *wait <= 12), "{:?}", &waits[300..]);
        assert!(waits.iter().all(|wait| *wait <= 302 * 4 / 3 + 2), "{:?}", waits.iter().max());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        #[test]
        fn nobody_waits_longer_than_four_thirds_of_a_round(
            owners in proptest::collection::vec(0_u32..40, 20..120), room in 1_usize..15
        ) {
            let rounds = owners.len().div_ceil(room);
            let waits = longest_waits(&owners, room, 8 * owners.len());
            prop_assert!(waits.iter().all(|wait| *wait <= (rounds * 4).div_ceil(3) + 2), "{waits:?} at {room}");
        }
    }

    #[test]
    fn one_job_of_a_small_client_goes_before_the_second_of_a_large_one() {
        let due: Vec<(char, u32)> =
            (0..1_000).map(|number| ('a', number)).chain([('b', 0), ('c', 0)]).collect();
        let chosen = take_turns(due.clone(), 4, |(owner, _)| *owner);
        assert_eq!(chosen, [('a', 0), ('b', 0), ('c', 0), ('a', 1)]);
        assert_eq!(take_turns(due.clone(), 2_000, |(owner, _)| *owner), due, "with room for all, all go");
        assert_eq!(take_turns(due, 0, |(owner, _)| *owner), []);
    }
}
