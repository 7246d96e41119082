//! Adds timeouts to the bytes of one connection: an idle one, one whose head arrives slowly, and one that accepts no
//! data end in an error. The timeout of a request's body is in the layers. A connection that is closed while its peer
//! still sends is read for a short time, since a reset would overtake the response.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The timeouts of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionTimeouts {
    /// Between two requests.
    pub idle: Duration,
    /// From the first byte of a head to its last, and from the start of a connection to its first byte.
    pub header: Duration,
    /// While the peer accepts no data.
    pub write: Duration,
}

/// How long a closed connection is read while its peer still sends, and how much.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(2);
const LINGERING_BYTES: usize = 16 * 1024 * 1024;

/// Buffers that are together not longer are written as one: a copy takes less time than a list of buffers in the system.
const ONE_PART: usize = 2048;

/// The header names of an upgrade's response as RFC 6455 spells them. A client with a case-sensitive comparison needs
/// this spelling.
const SPELLED: [&[u8]; 2] = [b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Accept"];

/// The state of a connection's requests, which its service reports to the stream below.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestActivity(Arc<ActivityState>);

#[derive(Debug, Default)]
struct ActivityState {
    /// Whether a request is running, as the number of changes: even is no, odd is yes.
    changes: AtomicU64,
    /// The response is sent before its request was read.
    lingers: AtomicBool,
    /// The response upgrades the connection, from its head on.
    upgrades: AtomicBool,
}

impl RequestActivity {
    /// A head is complete.
    pub(super) fn begin(&self) {
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the request when this body has been sent, or is dropped.
    pub(super) fn end_with(&self, body: Body) -> TrackedResponseBody {
        TrackedResponseBody { body, activity: Some(self.clone()) }
    }

    /// The peer may still send when the connection is closed.
    pub(super) fn lingering_close(&self) {
        self.0.lingers.store(true, Ordering::Relaxed);
    }

    /// The connection is upgraded to another protocol: its request does not end with this body.
    pub(super) fn upgrade(&self, body: Body) -> TrackedResponseBody {
        self.0.upgrades.store(true, Ordering::Relaxed);
        TrackedResponseBody { body, activity: None }
    }

    /// Whether a request is running.
    pub(super) fn under_way(&self) -> bool {
        !self.now().is_multiple_of(2)
    }

    fn now(&self) -> u64 {
        self.0.changes.load(Ordering::Relaxed)
    }
}

/// The body of a response, whose end is the end of its request.
pub(super) struct TrackedResponseBody {
    body: Body,
    activity: Option<RequestActivity>,
}

impl HttpBody for TrackedResponseBody {
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

impl Drop for TrackedResponseBody {
    fn drop(&mut self) {
        if let Some(activity) = &self.activity {
            activity.0.changes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Until when something must be read.
#[derive(Clone, Copy)]
enum ReadDeadline {
    Never,
    At(Instant),
    /// This long after the stream waits for the first time: most heads arrive at once, and their time is not needed.
    After(Duration),
}

impl ReadDeadline {
    /// Called when the stream waits.
    fn at(&mut self) -> Option<Instant> {
        if let Self::After(wait) = *self {
            *self = Self::At(Instant::now() + wait);
        }
        if let Self::At(at) = *self { Some(at) } else { None }
    }
}

/// A connection with timeouts.
pub(super) struct TimeoutStream<IO> {
    io: IO,
    timeouts: ConnectionTimeouts,
    /// The maximum size of a head.
    head_max: usize,
    activity: RequestActivity,
    /// The number of changes for which the read deadline was set.
    seen: u64,
    /// The connection was upgraded: there are no further requests to look for.
    is_upgraded: bool,
    /// The bytes of a head so far.
    head: usize,
    /// When the sending side was closed, and the bytes read since.
    lingering: Option<(Instant, usize)>,
    read_by: ReadDeadline,
    write_by: Option<Instant>,
    reading: LazyTimer,
    writing: LazyTimer,
}

impl<IO> TimeoutStream<IO> {
    pub(super) fn new(
        io: IO,
        timeouts: ConnectionTimeouts,
        head_max: usize,
        activity: RequestActivity,
    ) -> Self {
        Self {
            io,
            timeouts,
            head_max,
            seen: activity.now(),
            activity,
            is_upgraded: false,
            head: 0,
            lingering: None,
            read_by: ReadDeadline::At(Instant::now() + timeouts.header),
            write_by: None,
            reading: LazyTimer::default(),
            writing: LazyTimer::default(),
        }
    }

    /// Resets the read deadline when a request has begun or ended, and returns whether one has.
    fn notice(&mut self) -> bool {
        if self.is_upgraded {
            return false;
        }
        let sequence = self.activity.now();
        if sequence == self.seen {
            return false;
        }
        self.seen = sequence;
        self.head = 0;
        let idle = sequence.is_multiple_of(2);
        self.read_by = if idle { ReadDeadline::After(self.timeouts.idle) } else { ReadDeadline::Never };
        true
    }

    /// Records that the peer accepted data. The rest of an answer is sent after its request has ended: the connection is not
    /// idle before.
    fn sent(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if polled.is_ready()
            && self.head == 0
            && let ReadDeadline::At(_) = self.read_by
        {
            self.read_by = ReadDeadline::After(self.timeouts.idle);
        }
        self.wrote(polled, cx)
    }

    /// Records the result of a write: if the peer accepted data, its deadline starts again.
    fn wrote<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_by = None;
            return polled;
        }
        let by = *self.write_by.get_or_insert_with(|| Instant::now() + self.timeouts.write);
        ready!(self.writing.poll(by, cx));
        Poll::Ready(Err(late("the peer took nothing of what was sent")))
    }
}

impl<IO: AsyncRead + Unpin> TimeoutStream<IO> {
    /// Reads and discards what the peer sends after the sending side was closed.
    fn poll_lingering_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (since, mut read) = *self.lingering.get_or_insert_with(|| (Instant::now(), 0));
        let mut scratch = [0; 4096];
        loop {
            let mut part = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut part) {
                Poll::Ready(Ok(())) if !part.filled().is_empty() && read < LINGERING_BYTES => {
                    read += part.filled().len();
                    self.lingering = Some((since, read));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        // an incomplete head, an unread body, or bytes after it: there may be more of them
        if self.head > 0 || read > 0 || self.activity.0.lingers.load(Ordering::Relaxed) {
            ready!(self.reading.poll(since + LINGERING_TIMEOUT, cx));
        }
        Poll::Ready(())
    }
}

impl<IO: AsyncWrite + Unpin> TimeoutStream<IO> {
    /// Sends the head of an upgrade with its header names as RFC 6455 spells them.
    fn write_spelled(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
        let mut head = head.to_vec();
        for name in SPELLED {
            let found = head.windows(name.len()).position(|part| part.eq_ignore_ascii_case(name));
            if let Some(place) = found.and_then(|at| head.get_mut(at..at + name.len())) {
                place.copy_from_slice(name);
            }
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, &head));
        if written.as_ref().is_ok_and(|written| *written == head.len()) {
            // the request of the upgrade has begun, and does not end
            self.notice();
            self.is_upgraded = true;
        }
        Poll::Ready(written)
    }

    /// Whether the next bytes are the head of an upgrade.
    fn upgrades(&self) -> bool {
        !self.is_upgraded && self.activity.0.upgrades.load(Ordering::Relaxed)
    }
}

/// Joins some buffers, if they are short.
fn joined<'a>(bufs: &[io::IoSlice<'_>], parts: &'a mut [u8; ONE_PART]) -> Option<&'a [u8]> {
    let mut end = 0;
    for buf in bufs {
        let start = end;
        end += buf.len();
        parts.get_mut(start..end)?.copy_from_slice(buf);
    }
    parts.get(..end)
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<IO: AsyncRead + Unpin> AsyncRead for TimeoutStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.notice();
        if let ReadDeadline::Never = this.read_by {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        let room = this.head_max.saturating_sub(this.head).max(1);
        let polled = if buf.remaining() <= room {
            Pin::new(&mut this.io).poll_read(cx, buf)
        } else {
            // hyper accepts a longer head if it arrives all at once
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            let polled = Pin::new(&mut this.io).poll_read(cx, &mut part);
            let more = part.filled().len();
            buf.advance(more);
            polled
        };
        let more = buf.filled().len() - before;
        if let Poll::Ready(read) = polled {
            if this.head == 0 && more > 0 {
                this.read_by = ReadDeadline::After(this.timeouts.header);
            }
            this.head += more;
            return Poll::Ready(read);
        }
        let Some(by) = this.read_by.at() else { return Poll::Pending };
        ready!(this.reading.poll(by, cx));
        let what = if this.head > 0 { "the head did not come in time" } else { "nothing came in time" };
        Poll::Ready(Err(late(what)))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimeoutStream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = if self.upgrades() {
            self.write_spelled(cx, buf)
        } else {
            Pin::new(&mut self.io).poll_write(cx, buf)
        };
        self.sent(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        // hyper reads again only when it is woken, and between two requests nothing else would wake it
        if self.notice()
            && let this = &mut *self
            && let Some(by) = this.read_by.at()
        {
            // if it has fired, the next read returns the error
            let _rung = this.reading.poll(by, cx);
        }
        self.wrote(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            self.notice();
            let polled = Pin::new(&mut self.io).poll_shutdown(cx);
            ready!(self.wrote(polled, cx))?;
        }
        self.poll_lingering_close(cx).map(Ok)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.upgrades() {
            let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
            return self.poll_write(cx, first);
        }
        let mut parts = [0; ONE_PART];
        let polled = match joined(bufs, &mut parts) {
            Some(whole) => Pin::new(&mut self.io).poll_write(cx, whole),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        };
        self.sent(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO> fmt::Debug for TimeoutStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutStream").field("timeouts", &self.timeouts).finish_non_exhaustive()
    }
}

/// A timer that is created when it is first needed. A later deadline is set only when the earlier one has passed: each
/// request has one, and to move a timer takes longer than to compare two times.
#[derive(Default)]
struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() < at {
            timer.as_mut().reset(at);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests;
