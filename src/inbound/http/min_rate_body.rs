//! A body with a minimum rate: a slower one ends in an error, whichever route reads it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The time in which any rate is accepted.
const GRACE: Duration = Duration::from_secs(2);

/// The limits of a body's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRate {
    /// The timeout of the whole body.
    pub within: Duration,
    /// The minimum bytes a second, after the first two seconds.
    pub bytes_per_second: u32,
}

impl Default for BodyRate {
    fn default() -> Self {
        Self { within: Duration::from_secs(15), bytes_per_second: 1024 }
    }
}

/// The body was slower than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body was sent too slowly")]
pub(in crate::inbound) struct BodyTooSlow;

/// A body with a minimum rate. The time starts when it is waited for: most bodies arrive at once.
pub(in crate::inbound) struct MinRateBody {
    body: Body,
    pace: BodyRate,
    began: Option<Instant>,
    /// The bytes received so far.
    bytes: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinRateBody {
    pub(in crate::inbound) fn new(body: Body, pace: BodyRate) -> Self {
        Self { body, pace, began: None, bytes: 0, timer: None }
    }

    fn deadline(&self, began: Instant, bytes: usize) -> Instant {
        let pace = u64::from(self.pace.bytes_per_second.max(1));
        let earned = Duration::from_millis((bytes as u64).saturating_mul(1000) / pace);
        began + GRACE.saturating_add(earned).min(self.pace.within)
    }
}

impl HttpBody for MinRateBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            let more = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) | None => 0,
            };
            this.bytes = this.bytes.saturating_add(more);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let began = *this.began.get_or_insert_with(Instant::now);
        let deadline = this.deadline(began, this.bytes);
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyTooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for MinRateBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MinRateBody").field("pace", &self.pace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    /// A body of `chunks` times `size` bytes, one each `every` milliseconds.
    fn trickle(chunks: usize, size: usize, every: u64) -> Body {
        let chunks = stream::iter(0..chunks).then(move |_| async move {
            tokio::time::sleep(Duration::from_millis(every)).await;
            Ok::<_, std::convert::Infallible>(vec![b'x'; size])
        });
        Body::from_stream(chunks)
    }

    #[tokio::test(start_paused = true)]
    async fn body_below_the_minimum_rate_is_aborted() {
        let pace = BodyRate { within: Duration::from_secs(10), bytes_per_second: 100 };
        for (chunks, size, every, ended_after) in [
            (1, 1, 1_900, None),
            (50, 20, 190, None),
            (9, 5_000, 1_000, None),
            // 10 bytes a second: two seconds of grace, and a tenth more for each second
            (50, 10, 1_000, Some(2_200)),
            (1, 1, 60_000, Some(2_000)),
            // fast enough, and far too long
            (1_000, 1_000, 1_000, Some(10_000)),
        ] {
            let began = Instant::now();
            let read = MinRateBody::new(trickle(chunks, size, every), pace).collect().await;
            let took = u64::try_from(began.elapsed().as_millis()).unwrap();
            match ended_after {
                None => assert_eq!(read.unwrap().to_bytes().len(), chunks * size),
                Some(expected) => {
                    assert!(read.unwrap_err().is::<BodyTooSlow>());
                    assert!(took.abs_diff(expected) <= 10, "{chunks}×{size} each {every}: {took}");
                }
            }
        }
    }
}
