//! The running operations of one socket. Polls only those that were woken, and ends one by its id.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};

use crate::inbound::graphql::execution::answers::{AnswerStream, GraphqlAnswer};
use crate::inbound::streams::OperationGuard;

/// An event of an operation.
#[derive(Debug)]
pub(super) enum OperationMessage {
    /// An answer; the last one if it is a refusal.
    Answer(GraphqlAnswer),
    /// The operation is complete.
    Complete,
}

/// The operations of a socket, as one stream of events.
#[derive(Default)]
pub(super) struct SocketOperations {
    /// One of them, which is polled directly: most sockets have only one at a time, and need no more than its memory.
    direct: Option<SocketOperation>,
    /// The others.
    queued: Option<Box<QueuedOperations>>,
    /// Which of both is polled first: they alternate, so that neither waits for the other.
    queued_first: bool,
}

/// Operations that are polled when they are woken.
#[derive(Default)]
struct QueuedOperations {
    live: HashMap<Arc<str>, AbortHandle>,
    operations: SelectAll<Abortable<SocketOperation>>,
}

struct SocketOperation {
    id: Arc<str>,
    answers: AnswerStream,
    over: bool,
    _guard: OperationGuard,
}

impl SocketOperations {
    /// Whether an operation with this id is running.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.direct.as_ref().is_some_and(|direct| *direct.id == *id)
            || self.queued.as_ref().is_some_and(|queued| queued.live.contains_key(id))
    }

    /// The number of running operations.
    pub(super) fn len(&self) -> usize {
        usize::from(self.direct.is_some()) + self.queued.as_ref().map_or(0, |queued| queued.live.len())
    }

    /// Starts one. Its id must not be in use.
    pub(super) fn start(&mut self, id: &str, answers: AnswerStream, guard: OperationGuard) {
        let operation = SocketOperation { id: id.into(), answers, over: false, _guard: guard };
        if self.direct.is_none() {
            self.direct = Some(operation);
            return;
        }
        let queued = self.queued.get_or_insert_default();
        let (handle, registration) = AbortHandle::new_pair();
        queued.live.insert(Arc::clone(&operation.id), handle);
        queued.operations.push(Abortable::new(operation, registration));
    }

    /// Stops one, if it is running: it emits no more events.
    pub(super) fn stop(&mut self, id: &str) {
        if self.direct.as_ref().is_some_and(|direct| *direct.id == *id) {
            self.direct = None;
        } else if let Some(handle) = self.queued.as_mut().and_then(|queued| queued.live.remove(id)) {
            handle.abort();
        }
    }

    /// The next event of any of them. Pending while there is none; if none is left, the message that starts one wakes the
    /// task.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(Arc<str>, OperationMessage)> {
        self.queued_first = !self.queued_first;
        let polled = if self.queued_first {
            self.poll_queued(cx).or_else(|| self.poll_direct(cx))
        } else {
            self.poll_direct(cx).or_else(|| self.poll_queued(cx))
        };
        polled.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_direct(&mut self, cx: &mut Context<'_>) -> Option<(Arc<str>, OperationMessage)> {
        let Poll::Ready(polled) = Pin::new(self.direct.as_mut()?).poll_next(cx) else { return None };
        // over with its last event, so that its id can be used again
        if polled.as_ref().is_none_or(|(_, message)| message.is_last()) {
            self.direct = None;
        }
        polled
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Option<(Arc<str>, OperationMessage)> {
        let queued = self.queued.as_mut()?;
        let polled = Pin::new(&mut queued.operations).poll_next(cx);
        match polled {
            Poll::Ready(Some((id, message))) => {
                if message.is_last() {
                    queued.live.remove(&id);
                }
                Some((id, message))
            }
            Poll::Ready(None) => {
                self.queued = None;
                None
            }
            Poll::Pending => None,
        }
    }
}

impl OperationMessage {
    /// Whether the operation is over.
    const fn is_last(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.is_refusal(),
            Self::Complete => true,
        }
    }
}

impl Stream for SocketOperation {
    type Item = (Arc<str>, OperationMessage);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let answer = ready!(Pin::new(&mut self.answers).poll_next(cx));
        let message = answer.map_or(OperationMessage::Complete, OperationMessage::Answer);
        self.over = message.is_last();
        Poll::Ready(Some((Arc::clone(&self.id), message)))
    }
}
