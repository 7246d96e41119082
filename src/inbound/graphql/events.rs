//! The HTTP response that does not end: answers as they come, a sign of life where none come, and an end in order.
//! For both `sse` and `multipart`, which know the bytes. One timer a stream.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderName, HeaderValue, header};
use tokio::time::{Instant, Sleep, sleep_until};

use super::http::answers::{Answer, Answers};
use super::http::{Door, NoSeat, Prepared};
use super::{multipart, sse};
use crate::domain::principal::Principal;
use crate::inbound::error::{Kind, Refusal};
use crate::inbound::streams::{EndReason, Full, OperationSeat, Seat, Transport};

/// What proxies of the nginx family read: do not hold the response back.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Opens the response of a stream.
///
/// # Errors
/// 429, when the client has as many streams or operations as it may; 503, when the process drains; 401, when what it came
/// in with has just been taken back.
pub(super) fn open(
    door: &Door,
    transport: Transport,
    client: &Principal,
    prepared: Result<Prepared, Refusal>,
) -> Result<Response, Refusal> {
    let mut seat = door.streams().open(transport, Some(client)).map_err(refusal)?;
    door.seat(&mut seat, client).map_err(no_seat)?;
    let operation = seat.operation().map_err(refusal)?;
    let source = match prepared {
        Ok(prepared) => Source::Answers(door.run(prepared, transport)),
        Err(refusal) => Source::Refused(Some(Answer::refused(refusal))),
    };
    let quiet_until = Instant::now() + door.streams().settings().heartbeat;
    let timer = Box::pin(sleep_until(quiet_until.min(seat.ends().0)));
    let live = Live { source, seat, _operation: operation, timer, quiet_until };
    let events = Events { transport, door: door.clone(), opened: false, live: Some(live) };

    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    let content_type = match transport {
        Transport::Multipart => multipart::CONTENT_TYPE,
        Transport::Sse | Transport::WebSocket => sse::CONTENT_TYPE,
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// The refusal of a client that gets no seat.
pub(super) fn no_seat(why: NoSeat) -> Refusal {
    match why {
        NoSeat::Full(full) => refusal(full),
        NoSeat::Revoked => Refusal::unauthenticated("the credential has expired or was revoked"),
    }
}

/// The refusal of a stream that finds no room.
pub(super) fn refusal(full: Full) -> Refusal {
    let seconds = std::time::Duration::from_secs;
    match full {
        Full::Draining => Refusal::overloaded(seconds(1), "the gateway is shutting down; reconnect"),
        Full::Client => {
            let message = "stream or operation limit reached for this client \
                (max_streams_per_client, max_operations_per_client); close some streams";
            Refusal::new(Kind::TooManyRequests, message).retry_after(seconds(10))
        }
    }
}

/// The bytes of one stream.
struct Events {
    transport: Transport,
    door: Door,
    opened: bool,
    /// Gone at the end, so that whoever holds the response a little longer holds nothing else.
    live: Option<Live>,
}

struct Live {
    source: Source,
    seat: Seat,
    _operation: OperationSeat,
    timer: Pin<Box<Sleep>>,
    quiet_until: Instant,
}

enum Source {
    Answers(Answers),
    Refused(Option<Answer>),
}

/// What to do next.
enum Turn {
    Answer(Answer),
    Alive,
    End(EndReason),
}

impl Live {
    fn poll(&mut self, heartbeat: std::time::Duration, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Poll::Ready(reason) = self.seat.poll_told(cx) {
            return Poll::Ready(Turn::End(reason));
        }
        // before the answers: however many there are, none is given after the end
        let (ends, reason) = self.seat.ends();
        if ends <= Instant::now() {
            return Poll::Ready(Turn::End(reason));
        }
        let answer = match &mut self.source {
            Source::Answers(answers) => Pin::new(answers).poll_next(cx),
            Source::Refused(answer) => Poll::Ready(answer.take()),
        };
        match answer {
            Poll::Ready(Some(answer)) => {
                if matches!(answer, Answer::Refused(_)) {
                    self.source = Source::Refused(None);
                }
                self.quiet_until = Instant::now() + heartbeat;
                return Poll::Ready(Turn::Answer(answer));
            }
            Poll::Ready(None) => return Poll::Ready(Turn::End(EndReason::Completed)),
            Poll::Pending => {}
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if ends <= now {
                return Poll::Ready(Turn::End(reason));
            }
            let alive = self.quiet_until <= now;
            if alive {
                self.quiet_until = now + heartbeat;
            }
            self.timer.as_mut().reset(self.quiet_until.min(ends));
            if alive {
                return Poll::Ready(Turn::Alive);
            }
        }
        Poll::Pending
    }
}

impl Events {
    fn bytes(&self, turn: Turn) -> Option<Bytes> {
        let multipart = self.transport == Transport::Multipart;
        match turn {
            Turn::Answer(answer) if multipart => Some(multipart::next(&answer.into_response())),
            Turn::Answer(answer) => Some(sse::next(answer.into_response())),
            Turn::Alive if multipart => Some(Bytes::from_static(multipart::HEARTBEAT)),
            Turn::Alive => Some(Bytes::from_static(sse::COMMENT)),
            Turn::End(EndReason::Completed) if multipart => Some(Bytes::from_static(multipart::CLOSE)),
            Turn::End(EndReason::Completed) => Some(Bytes::from_static(sse::COMPLETE)),
            Turn::End(reason) if multipart => {
                let message = reason.close().map_or("the stream was closed; open it again", |(_, text)| text);
                Some(multipart::cut(message, &reason.word().to_ascii_uppercase()))
            }
            // without `complete` a client knows that there is more, and opens it again
            Turn::End(_) => None,
        }
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.opened {
            this.opened = true;
            let first = if this.transport == Transport::Multipart { multipart::OPEN } else { sse::COMMENT };
            return Poll::Ready(Some(Ok(Bytes::from_static(first))));
        }
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let heartbeat = this.door.streams().settings().heartbeat;
        let turn = std::task::ready!(live.poll(heartbeat, cx));
        if matches!(turn, Turn::Answer(Answer::Result(_))) {
            live.seat.told_update();
        }
        if let Turn::End(reason) = turn
            && let Some(live) = this.live.take()
        {
            live.seat.leave(reason);
        }
        Poll::Ready(this.bytes(turn).map(Ok))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("transport", &self.transport).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
