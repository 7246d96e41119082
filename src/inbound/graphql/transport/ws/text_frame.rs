//! One text message as a WebSocket frame (RFC 6455, section 5.2), written past the library, whose write buffer would keep
//! its size for as long as the socket is open. The payload is written from the bytes that subscribers share.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// A message that is written in three parts. The stream of the connection joins those of a short one
/// (`server/listeners/timeout_stream.rs`).
#[derive(Debug)]
pub(super) struct TextFrame<'a> {
    head: Vec<u8>,
    payload: &'a str,
    tail: &'static str,
    /// The bytes of all parts that were written.
    written: usize,
}

impl<'a> TextFrame<'a> {
    /// The message `opening`, `payload` and `tail`, one after the other.
    pub(super) fn new(opening: &str, payload: &'a str, tail: &'static str) -> Self {
        let length = opening.len() + payload.len() + tail.len();
        let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
        let mut head = Vec::with_capacity(header.len(length as u64) + opening.len());
        // writing to a vector cannot fail
        header.format(length as u64, &mut head).ok();
        head.extend_from_slice(opening.as_bytes());
        Self { head, payload, tail, written: 0 }
    }

    fn parts(&self) -> [&[u8]; 3] {
        let mut skipped = self.written;
        [&*self.head, self.payload.as_bytes(), self.tail.as_bytes()].map(|part| {
            let behind = part.get(skipped..).unwrap_or_default();
            skipped = skipped.saturating_sub(part.len());
            behind
        })
    }

    /// The bytes that are not written yet.
    pub(super) fn rest(&self) -> Vec<u8> {
        self.parts().concat()
    }

    /// Writes the rest, as far as the socket takes it.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let parts = self.parts();
            if parts.iter().all(|part| part.is_empty()) {
                return Pin::new(socket).poll_flush(cx);
            }
            // a socket that writes one part at a time takes the first that is not empty
            let written = Pin::new(&mut *socket).poll_write_vectored(cx, &parts.map(IoSlice::new));
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::StreamExt as _;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn frame_is_read_as_one_text_message_of_any_length() {
        for length in [0, 1, 100, 122, 123, 124, 125, 126, 127, 300, 65_530, 65_535, 65_536, 100_000] {
            let payload = "ü".repeat(length / 2) + &"x".repeat(length % 2);
            // smaller than most messages, so that they are written in several steps
            let (mut near, far) = tokio::io::duplex(64);
            let write = async {
                let mut frame = TextFrame::new("{\"p\":", &payload, "}");
                poll_fn(|cx| frame.poll_write(&mut near, cx)).await.unwrap();
                assert!(frame.rest().is_empty());
            };
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            let (received, ()) = tokio::join!(client.next(), write);
            assert_eq!(received.unwrap().unwrap(), Message::text(format!("{{\"p\":{payload}}}")), "{length}");
        }
    }

    #[tokio::test]
    async fn rest_of_an_interrupted_frame_completes_it() {
        for (length, room) in [1, 3, 8, 100, 507]
            .map(|room| (500, room))
            .into_iter()
            .chain([1, 9, 100, 9_000].map(|room| (9_000, room)))
        {
            let payload = "x".repeat(length);
            let (mut near, far) = tokio::io::duplex(room);
            let mut frame = TextFrame::new("{\"p\":", &payload, "}");
            let whole = frame.rest().len();
            assert!(futures_util::poll!(poll_fn(|cx| frame.poll_write(&mut near, cx))).is_pending());
            let rest = frame.rest();
            assert_eq!(rest.len() + room, whole);
            let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
            let complete = async { tokio::io::AsyncWriteExt::write_all(&mut near, &rest).await.unwrap() };
            let (received, ()) = tokio::join!(client.next(), complete);
            assert_eq!(received.unwrap().unwrap(), Message::text(format!("{{\"p\":{payload}}}")), "{room}");
        }
    }
}
