//! One connection's bytes under deadlines: an idle one, one whose head comes slowly, and one that takes nothing of what is
//! sent to it end in an error. What a request's body may take is the layers' business.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How patient a connection is with its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between two requests.
    pub idle: Duration,
    /// From the first byte of a head to its last, and from the start of a connection to its first byte.
    pub header: Duration,
    /// While the peer takes nothing.
    pub write: Duration,
}

/// Whether a request is under way, as the number of changes: even is no, odd is yes.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<AtomicU64>);

impl Turns {
    /// A head is complete.
    pub(super) fn begin(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the turn when this body has been sent, or is dropped.
    pub(super) fn end_with(&self, body: Body) -> Body {
        Body::new(Answer { body, turns: self.clone() })
    }

    /// Whether a request is under way.
    pub(super) fn under_way(&self) -> bool {
        !self.now().is_multiple_of(2)
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The body of a response, whose end is the end of a turn.
struct Answer {
    body: Body,
    turns: Turns,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.turns.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection under deadlines.
pub(super) struct Wire<IO> {
    io: IO,
    patience: Patience,
    turns: Turns,
    /// The turn that the reading deadline was set for.
    seen: u64,
    /// Whether the first byte of a head is there.
    begun: bool,
    read_by: Option<Instant>,
    write_by: Option<Instant>,
    reading: Alarm,
    writing: Alarm,
}

impl<IO> Wire<IO> {
    pub(super) fn new(io: IO, patience: Patience, turns: Turns) -> Self {
        Self {
            io,
            patience,
            seen: turns.now(),
            turns,
            begun: false,
            read_by: Some(Instant::now() + patience.header),
            write_by: None,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    /// Sets the reading deadline anew where a turn has begun or ended.
    fn notice(&mut self) {
        let turn = self.turns.now();
        if turn != self.seen {
            self.seen = turn;
            self.begun = false;
            self.read_by = turn.is_multiple_of(2).then(|| Instant::now() + self.patience.idle);
        }
    }

    /// Notes what became of a write: a peer that takes something has all its time again.
    fn wrote<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_by = None;
            return polled;
        }
        let by = *self.write_by.get_or_insert_with(|| Instant::now() + self.patience.write);
        ready!(self.writing.poll(by, cx));
        Poll::Ready(Err(late("the peer took nothing of what was sent")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.notice();
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.io).poll_read(cx, buf) {
            if this.read_by.is_some() && !this.begun && buf.filled().len() > before {
                this.begun = true;
                this.read_by = Some(Instant::now() + this.patience.header);
            }
            return Poll::Ready(read);
        }
        let Some(by) = this.read_by else { return Poll::Pending };
        ready!(this.reading.poll(by, cx));
        let what = if this.begun { "the head did not come in time" } else { "nothing came in time" };
        Poll::Ready(Err(late(what)))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        // hyper reads again only when it is woken, and between two requests nothing else would wake it
        self.notice();
        if let Some(by) = self.read_by {
            // if it has rung, the next read says so
            let _rung = self.reading.poll(by, cx);
        }
        self.wrote(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.wrote(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> fmt::Debug for Wire<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// A timer that is made when it is first needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const PATIENCE: Patience = Patience {
        idle: Duration::from_mins(1),
        header: Duration::from_secs(10),
        write: Duration::from_secs(20),
    };

    fn wire() -> (Wire<DuplexStream>, DuplexStream, Turns) {
        let (near, far) = tokio::io::duplex(100);
        let turns = Turns::default();
        (Wire::new(near, PATIENCE, turns.clone()), far, turns)
    }

    /// The second in which reading gives up, while a byte comes each second if the peer trickles.
    async fn gives_up(wire: &mut Wire<DuplexStream>, far: &mut DuplexStream, trickles: bool) -> u64 {
        let began = Instant::now();
        loop {
            if trickles {
                far.write_all(b"x").await.unwrap();
            }
            let read = tokio::time::timeout(Duration::from_secs(1), async {
                loop {
                    wire.read_u8().await?;
                }
            });
            let read: Result<io::Result<()>, _> = read.await;
            if let Ok(Err(error)) = read {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return began.elapsed().as_secs();
            }
            if began.elapsed() > Duration::from_secs(200) {
                return u64::MAX;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_and_idleness_has_its_own() {
        for (trickles, expected) in [(false, 10), (true, 10)] {
            let (mut wire, mut far, _) = wire();
            assert_eq!(
                gives_up(&mut wire, &mut far, trickles).await,
                expected,
                "a new connection: {trickles}"
            );
        }
        for (trickles, expected) in [(false, 60), (true, 10)] {
            let (mut wire, mut far, turns) = wire();
            turns.begin();
            assert_eq!(gives_up(&mut wire, &mut far, false).await, u64::MAX, "a request is under way");
            drop(turns.end_with(Body::empty()));
            assert_eq!(gives_up(&mut wire, &mut far, trickles).await, expected, "between two: {trickles}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut hung, _far, _) = wire();
        let began = Instant::now();
        let error = hung.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PATIENCE.write));

        let (mut wire, mut far, _) = wire();
        let slow = async {
            let mut taken = [0; 100];
            for _ in 0..20 {
                tokio::time::sleep(PATIENCE.write.checked_sub(Duration::from_secs(1)).unwrap()).await;
                far.read_exact(&mut taken).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(wire.write_all(&[0; 2000]), slow);
        written.unwrap();
    }
}
