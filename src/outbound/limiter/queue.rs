//! Who waits at the gate, and in which order. Not here: how long, and whether anyone may go at all.
//!
//! Whoever has someone waiting goes before the background. Askers take turns, one call each; within an asker, and in
//! the background, first come, first served.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::ports::upstream::FetchTrigger;

/// Those who wait. An id is given once and grows, so each line is sorted by it.
#[derive(Debug, Default)]
pub(super) struct CallQueue {
    next_id: u64,
    /// One line an asker, never empty; the first one's turn is next.
    clients: VecDeque<ClientQueue>,
    background: VecDeque<Waiter>,
}

#[derive(Debug)]
struct ClientQueue {
    trigger: FetchTrigger,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    notify: Arc<Notify>,
}

impl CallQueue {
    /// Takes a place behind the asker's others. An asker who has none yet has the last turn of the round.
    pub(super) fn join(&mut self, trigger: &FetchTrigger, notify: Arc<Notify>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let waiter = Waiter { id, notify };
        match (trigger, self.next_waiter(trigger)) {
            (FetchTrigger::Background, _) => self.background.push_back(waiter),
            (FetchTrigger::Operator | FetchTrigger::Client(_), Some(position)) => {
                self.clients[position].waiters.push_back(waiter);
            }
            (FetchTrigger::Operator | FetchTrigger::Client(_), None) => {
                self.clients
                    .push_back(ClientQueue { trigger: trigger.clone(), waiters: VecDeque::from([waiter]) });
            }
        }
        id
    }

    /// How many of those waiting now go before this place: in each round before its own, one of every line that is
    /// long enough; in its own, one of every such line whose turn is earlier.
    pub(super) fn ahead(&self, trigger: &FetchTrigger, id: u64) -> usize {
        let Some(position) = self.next_waiter(trigger) else {
            let waiting: usize = self.clients.iter().map(|line| line.waiters.len()).sum();
            return waiting + before(&self.background, id);
        };
        let round = before(&self.clients[position].waiters, id);
        let others = self.clients.iter().enumerate().filter(|(index, _)| *index != position);
        let theirs =
            others.map(|(index, line)| line.waiters.len().min(round + usize::from(index < position)));
        round + theirs.sum::<usize>()
    }

    /// Gives up a place: whoever is behind it in the same line moves up, and the line's turn stays.
    pub(super) fn quit(&mut self, trigger: &FetchTrigger, id: u64) {
        let Some(position) = self.next_waiter(trigger) else {
            return remove(&mut self.background, id);
        };
        remove(&mut self.clients[position].waiters, id);
        if self.clients[position].waiters.is_empty() {
            self.clients.remove(position);
        }
    }

    /// Takes the call of this place out, because it goes: the asker's next turn comes after everyone else's.
    pub(super) fn go(&mut self, trigger: &FetchTrigger, id: u64) {
        if let Some(line) = self.next_waiter(trigger).and_then(|position| self.clients.remove(position)) {
            self.clients.push_back(line);
        }
        self.quit(trigger, id);
    }

    /// Lets the first one look. Whoever then goes or is refused leaves the queue, which wakes the next: so a pause
    /// empties the whole queue.
    pub(super) fn wake_first(&self) {
        let waiting = self.clients.front().and_then(|line| line.waiters.front());
        if let Some(first) = waiting.or_else(|| self.background.front()) {
            first.notify.notify_one();
        }
    }

    /// Which turn in the round is the asker's, if any call of theirs waits. The background has none.
    fn next_waiter(&self, trigger: &FetchTrigger) -> Option<usize> {
        self.clients.iter().position(|line| line.trigger == *trigger)
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
