//! Who waits at the gate, and in which order. Not here: how long, and whether anyone may go at all.
//!
//! Whoever has someone waiting goes before the background. Askers take turns, one call each; within an asker, and in
//! the background, first come, first served.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::ports::upstream::Asker;

/// Those who wait. An id is given once and grows, so each line is sorted by it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    next_id: u64,
    /// One line an asker, never empty; the first one's turn is next.
    turns: VecDeque<Line>,
    background: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Line {
    asker: Asker,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    notify: Arc<Notify>,
}

impl Queue {
    /// Takes a place behind the asker's others. An asker who has none yet has the last turn of the round.
    pub(super) fn join(&mut self, asker: &Asker, notify: Arc<Notify>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let waiter = Waiter { id, notify };
        match (asker, self.turn(asker)) {
            (Asker::Background, _) => self.background.push_back(waiter),
            (Asker::Operator | Asker::Client(_), Some(turn)) => self.turns[turn].waiters.push_back(waiter),
            (Asker::Operator | Asker::Client(_), None) => {
                self.turns.push_back(Line { asker: asker.clone(), waiters: VecDeque::from([waiter]) });
            }
        }
        id
    }

    /// How many of those waiting now go before this place: in each round before its own, one of every line that is
    /// long enough; in its own, one of every such line whose turn is earlier.
    pub(super) fn ahead(&self, asker: &Asker, id: u64) -> usize {
        let Some(turn) = self.turn(asker) else {
            let waiting: usize = self.turns.iter().map(|line| line.waiters.len()).sum();
            return waiting + before(&self.background, id);
        };
        let round = before(&self.turns[turn].waiters, id);
        let others = self.turns.iter().enumerate().filter(|(index, _)| *index != turn);
        let theirs = others.map(|(index, line)| line.waiters.len().min(round + usize::from(index < turn)));
        round + theirs.sum::<usize>()
    }

    /// Gives up a place: whoever is behind it in the same line moves up, and the line's turn stays.
    pub(super) fn quit(&mut self, asker: &Asker, id: u64) {
        let Some(turn) = self.turn(asker) else {
            return remove(&mut self.background, id);
        };
        remove(&mut self.turns[turn].waiters, id);
        if self.turns[turn].waiters.is_empty() {
            self.turns.remove(turn);
        }
    }

    /// Takes the call of this place out, because it goes: the asker's next turn comes after everyone else's.
    pub(super) fn go(&mut self, asker: &Asker, id: u64) {
        if let Some(line) = self.turn(asker).and_then(|turn| self.turns.remove(turn)) {
            self.turns.push_back(line);
        }
        self.quit(asker, id);
    }

    /// Lets the first one look. Whoever then goes or is refused leaves the queue, which wakes the next: so a pause
    /// empties the whole queue.
    pub(super) fn wake_first(&self) {
        let waiting = self.turns.front().and_then(|line| line.waiters.front());
        if let Some(first) = waiting.or_else(|| self.background.front()) {
            first.notify.notify_one();
        }
    }

    /// Which turn in the round is the asker's, if any call of theirs waits. The background has none.
    fn turn(&self, asker: &Asker) -> Option<usize> {
        self.turns.iter().position(|line| line.asker == *asker)
    }
}

/// How many stand before this place in a line.
fn before(line: &VecDeque<Waiter>, id: u64) -> usize {
    line.partition_point(|waiter| waiter.id < id)
}

fn remove(line: &mut VecDeque<Waiter>, id: u64) {
    if let Ok(index) = line.binary_search_by_key(&id, |waiter| waiter.id) {
        line.remove(index);
    }
}
