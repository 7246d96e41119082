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
    live: HashMap<Arc<str>, AbortHandle>,
    /// One of them, which is polled directly: most sockets have only one at a time.
    direct: Option<Abortable<SocketOperation>>,
    /// The others.
    queued: SelectAll<Abortable<SocketOperation>>,
    /// Which of both is polled first: they alternate, so that neither waits for the other.
    queued_first: bool,
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
        self.live.contains_key(id)
    }

    /// The number of running operations.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Starts one. Its id must not be in use.
    pub(super) fn start(&mut self, id: &str, answers: AnswerStream, guard: OperationGuard) {
        let id: Arc<str> = id.into();
        let (handle, registration) = AbortHandle::new_pair();
        let operation = SocketOperation { id: Arc::clone(&id), answers, over: false, _guard: guard };
        let operation = Abortable::new(operation, registration);
        if self.direct.is_none() {
            self.direct = Some(operation);
        } else {
            self.queued.push(operation);
        }
        self.live.insert(id, handle);
    }

    /// Stops one, if it is running: it emits no more events.
    pub(super) fn stop(&mut self, id: &str) {
        if let Some(handle) = self.live.remove(id) {
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
        let Some((id, message)) = polled else { return Poll::Pending };
        if message.is_last() {
            self.live.remove(&id);
        }
        Poll::Ready((id, message))
    }

    fn poll_direct(&mut self, cx: &mut Context<'_>) -> Option<(Arc<str>, OperationMessage)> {
        match Pin::new(self.direct.as_mut()?).poll_next(cx) {
            Poll::Ready(Some(event)) => Some(event),
            Poll::Ready(None) => {
                self.direct = None;
                None
            }
            Poll::Pending => None,
        }
    }

    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Option<(Arc<str>, OperationMessage)> {
        if self.queued.is_empty() {
            return None;
        }
        match Pin::new(&mut self.queued).poll_next(cx) {
            Poll::Ready(event) => event,
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
