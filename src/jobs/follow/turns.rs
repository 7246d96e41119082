//! Whose job is looked at when more is due than there is room for: clients take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

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
