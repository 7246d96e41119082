//! The queue of the limiter and its order. Not here: how long a call waits, and whether it may be made.
//!
//! Calls with a waiting client precede background calls. Clients are served round robin, one call each; within a
//! client, and in the background, first come, first served.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::ports::upstream::FetchTrigger;

/// The waiting calls. Ids are unique and grow, so each line is sorted by id.
#[derive(Debug, Default)]
pub(super) struct CallQueue {
    next_id: u64,
    /// One line a client, never empty; the first line is served next.
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
    /// Joins the line of the client. A client without a line gets the last one of the round.
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

    /// How many of the waiting calls are served before this one: in each round before its own, one of every line that
    /// is long enough; in its own round, one of every such line that is ahead.
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

    /// Leaves the queue without a call: those behind it in the same line move up, and the line keeps its position.
    pub(super) fn quit(&mut self, trigger: &FetchTrigger, id: u64) {
        let Some(position) = self.next_waiter(trigger) else {
            return remove(&mut self.background, id);
        };
        remove(&mut self.clients[position].waiters, id);
        if self.clients[position].waiters.is_empty() {
            self.clients.remove(position);
        }
    }

    /// Removes a call that is made now: the client's line moves to the end of the round.
    pub(super) fn go(&mut self, trigger: &FetchTrigger, id: u64) {
        if let Some(line) = self.next_waiter(trigger).and_then(|position| self.clients.remove(position)) {
            self.clients.push_back(line);
        }
        self.quit(trigger, id);
    }

    /// Wakes the first call. When it is made or rejected it leaves the queue, which wakes the next one: so a pause
    /// empties the whole queue.
    pub(super) fn wake_first(&self) {
        let waiting = self.clients.front().and_then(|line| line.waiters.front());
        if let Some(first) = waiting.or_else(|| self.background.front()) {
            first.notify.notify_one();
        }
    }

    /// The position of the client's line in the round, if any of its calls wait. Background calls have none.
    fn next_waiter(&self, trigger: &FetchTrigger) -> Option<usize> {
        self.clients.iter().position(|line| line.trigger == *trigger)
    }
}

/// The number of calls ahead of this one in a line.
fn before(line: &VecDeque<Waiter>, id: u64) -> usize {
    line.partition_point(|waiter| waiter.id < id)
}

fn remove(line: &mut VecDeque<Waiter>, id: u64) {
    if let Ok(index) = line.binary_search_by_key(&id, |waiter| waiter.id) {
        line.remove(index);
    }
}
