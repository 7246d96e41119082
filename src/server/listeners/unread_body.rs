//! Handles the unread rest of a request's body when its response is ready. It is read to its end if that is soon done,
//! so that the connection can be reused; else the response has `Connection: close`. Otherwise the connection would be
//! reset before the response is delivered, and a proxy would report 502 instead.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// The most bytes of one body that are read to reuse its connection, including those that the handler read.
const MOST_BYTES: u64 = 1024 * 1024;
/// How long a response waits for the end of the body. A proxy that buffers has sent all of it by then.
const WAIT: Duration = Duration::from_secs(1);

/// Receives the body of a connection's request when its handler drops it. A clone shares it; a connection has one
/// request at a time.
#[derive(Debug)]
pub(super) struct UnreadBody<B>(Arc<Mutex<Option<UnreadState<B>>>>);

#[derive(Debug)]
struct UnreadState<B> {
    body: B,
    read: u64,
    /// The client waits for `100 Continue`, which reading would send.
    waits: bool,
}

impl<B> Clone for UnreadBody<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Default for UnreadBody<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B> UnreadBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    /// The body of a request for its handler.
    pub(super) fn lend(&self, headers: &HeaderMap, body: B) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        let waits = headers.contains_key(header::EXPECT);
        Body::new(LentBody { unread: Some(UnreadState { body, read: 0, waits }), home: self.clone() })
    }

    /// Reads the unread rest, if `worth`. Returns whether the connection can be reused.
    pub(super) async fn drain(&self, worth: bool) -> bool {
        let unread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(UnreadState { mut body, mut read, waits }) = unread else { return true };
        if !worth || waits || read.saturating_add(body.size_hint().lower()) > MOST_BYTES {
            return false;
        }
        let end = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                read = read.saturating_add(frame.data_ref().map_or(0, |data| data.len() as u64));
                if read > MOST_BYTES {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(WAIT, end).await.unwrap_or(false)
    }
}

/// A body that is lent to a handler.
struct LentBody<B> {
    /// None once it is at its end.
    unread: Option<UnreadState<B>>,
    home: UnreadBody<B>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for LentBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(unread) = &mut self.unread else { return Poll::Ready(None) };
        unread.waits = false;
        let polled = Pin::new(&mut unread.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let more = frame.data_ref().map_or(0, Bytes::len);
                unread.read = unread.read.saturating_add(more as u64);
                if unread.body.is_end_stream() {
                    self.unread = None;
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.unread = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.unread.as_ref().is_none_or(|unread| unread.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.unread.as_ref().map_or_else(|| SizeHint::with_exact(0), |unread| unread.body.size_hint())
    }
}

impl<B> Drop for LentBody<B> {
    fn drop(&mut self) {
        if let Some(unread) = self.unread.take() {
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
        }
    }
}
