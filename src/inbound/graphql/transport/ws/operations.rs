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
    streams: SelectAll<Abortable<SocketOperation>>,
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
        self.streams.push(Abortable::new(operation, registration));
        self.live.insert(id, handle);
    }

    /// Stops one, if it is running: it emits no more events.
    pub(super) fn stop(&mut self, id: &str) {
        if let Some(handle) = self.live.remove(id) {
            handle.abort();
        }
    }

    /// The next event of any of them. Pending while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> (Arc<str>, OperationMessage) {
        std::future::poll_fn(|cx| {
            let Poll::Ready(Some((id, message))) = Pin::new(&mut self.streams).poll_next(cx) else {
                // none is left; the message that starts one wakes the task
                return Poll::Pending;
            };
            if matches!(
                message,
                OperationMessage::Complete | OperationMessage::Answer(GraphqlAnswer::Refused(_))
            ) {
                self.live.remove(&id);
            }
            Poll::Ready((id, message))
        })
        .await
    }
}

impl Stream for SocketOperation {
    type Item = (Arc<str>, OperationMessage);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let answer = ready!(Pin::new(&mut self.answers).poll_next(cx));
        self.over = !matches!(answer, Some(GraphqlAnswer::Result(_)));
        let message = answer.map_or(OperationMessage::Complete, OperationMessage::Answer);
        Poll::Ready(Some((Arc::clone(&self.id), message)))
    }
}
