//! The operations under way on one socket. Polls only those that have something to say, and ends one by its id.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};

use crate::inbound::graphql::http::answers::{Answer, Answers};
use crate::inbound::streams::OperationSeat;

/// What an operation says.
#[derive(Debug)]
pub(super) enum Said {
    /// An answer; the last one if it is a refusal.
    Answer(Answer),
    /// That it is at its end.
    Complete,
}

/// The operations of a socket, as one stream of what they say.
#[derive(Default)]
pub(super) struct Operations {
    live: HashMap<Arc<str>, AbortHandle>,
    streams: SelectAll<Abortable<Operation>>,
}

struct Operation {
    id: Arc<str>,
    answers: Answers,
    over: bool,
    _seat: OperationSeat,
}

impl Operations {
    /// Whether an operation with this id is under way.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.live.contains_key(id)
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Starts one. Its id must not be held.
    pub(super) fn start(&mut self, id: &str, answers: Answers, seat: OperationSeat) {
        let id: Arc<str> = id.into();
        let (handle, registration) = AbortHandle::new_pair();
        let operation = Operation { id: Arc::clone(&id), answers, over: false, _seat: seat };
        self.streams.push(Abortable::new(operation, registration));
        self.live.insert(id, handle);
    }

    /// Ends one, if it is there: nothing more is heard of it.
    pub(super) fn stop(&mut self, id: &str) {
        if let Some(handle) = self.live.remove(id) {
            handle.abort();
        }
    }

    /// What one of them says next. Pending for ever while there is none. Cancel safe.
    pub(super) async fn next(&mut self) -> (Arc<str>, Said) {
        std::future::poll_fn(|cx| {
            let Poll::Ready(Some((id, said))) = Pin::new(&mut self.streams).poll_next(cx) else {
                // none is left; the next wake-up comes with the message that starts one
                return Poll::Pending;
            };
            if matches!(said, Said::Complete | Said::Answer(Answer::Refused(_))) {
                self.live.remove(&id);
            }
            Poll::Ready((id, said))
        })
        .await
    }
}

impl Stream for Operation {
    type Item = (Arc<str>, Said);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let answer = ready!(Pin::new(&mut self.answers).poll_next(cx));
        self.over = !matches!(answer, Some(Answer::Result(_)));
        let said = answer.map_or(Said::Complete, Said::Answer);
        Poll::Ready(Some((Arc::clone(&self.id), said)))
    }
}
