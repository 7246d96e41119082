//! The streaming HTTP response: answers as they come, a keep-alive when there are none, and an orderly end. For both
//! `sse` and `multipart`, which define the bytes. One timer a stream.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::{Instant, Sleep, sleep_until};

use super::stream_refusal::{admission_refusal, limit_refusal};
use super::{multipart, sse};
use crate::domain::principal::Principal;
use crate::inbound::graphql::document::admission::PreparedOperation;
use crate::inbound::graphql::execution::answers::{AnswerStream, GraphqlAnswer};
use crate::inbound::graphql::execution::endpoint::GraphqlEndpoint;
use crate::inbound::graphql::schema::subscription::LastEventId;
use crate::inbound::http::error::HttpRefusal;
use crate::inbound::streams::{EndReason, OperationGuard, StreamGuard, Transport};

/// Makes proxies of the nginx family send the response without buffering.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The id of the last event that the client received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Opens the response of a stream.
///
/// # Errors
/// 429, when the client has reached its limit of streams or operations; 503, when the process drains; 401, when its
/// credential has just been revoked.
pub(super) fn open(
    endpoint: &GraphqlEndpoint,
    transport: Transport,
    client: &Principal,
    prepared: Result<PreparedOperation, HttpRefusal>,
    headers: &HeaderMap,
) -> Result<Response, HttpRefusal> {
    let mut guard = endpoint.streams().open(transport, Some(client)).map_err(limit_refusal)?;
    endpoint.admit_stream(&mut guard, client).map_err(admission_refusal)?;
    let operation = guard.operation().map_err(limit_refusal)?;
    let source = match prepared {
        Ok(mut prepared) => {
            prepared.last_event_id = last_event_id(transport, headers);
            EventSource::Answers(endpoint.run(prepared, transport))
        }
        Err(refusal) => EventSource::Refused(Some(GraphqlAnswer::refused(refusal))),
    };
    let quiet_until = Instant::now() + endpoint.streams().settings().heartbeat;
    let timer = Box::pin(sleep_until(quiet_until.min(guard.ends().0)));
    let live = LiveStream { source, guard, _operation: operation, timer, quiet_until };
    let events = StreamBody { transport, endpoint: endpoint.clone(), opened: false, live: Some(live) };

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

/// The id of the last event that a client of SSE received. Browsers send it when they reconnect.
fn last_event_id(transport: Transport, headers: &HeaderMap) -> Option<LastEventId> {
    let id = headers.get(LAST_EVENT_ID).filter(|_| transport == Transport::Sse)?;
    // any other text is no cursor, and is reported as such
    let id = id.to_str().unwrap_or("not a cursor");
    Some(id).filter(|id| !id.is_empty()).map(|id| LastEventId(id.into()))
}

/// The bytes of one stream.
struct StreamBody {
    transport: Transport,
    endpoint: GraphqlEndpoint,
    opened: bool,
    /// Dropped at the end, so that a response that is held longer holds nothing else.
    live: Option<LiveStream>,
}

struct LiveStream {
    source: EventSource,
    guard: StreamGuard,
    _operation: OperationGuard,
    timer: Pin<Box<Sleep>>,
    quiet_until: Instant,
}

enum EventSource {
    Answers(AnswerStream),
    Refused(Option<GraphqlAnswer>),
}

/// The next step.
enum NextEvent {
    Answer(GraphqlAnswer),
    Alive,
    End(EndReason),
}

impl LiveStream {
    fn poll(&mut self, heartbeat: std::time::Duration, cx: &mut Context<'_>) -> Poll<NextEvent> {
        if let Poll::Ready(reason) = self.guard.poll_ended(cx) {
            return Poll::Ready(NextEvent::End(reason));
        }
        // before the answers: however many there are, none is sent after the end
        let (ends, reason) = self.guard.ends();
        if ends <= Instant::now() {
            return Poll::Ready(NextEvent::End(reason));
        }
        let answer = match &mut self.source {
            EventSource::Answers(answers) => Pin::new(answers).poll_next(cx),
            EventSource::Refused(answer) => Poll::Ready(answer.take()),
        };
        match answer {
            Poll::Ready(Some(answer)) => {
                if answer.is_refusal() {
                    self.source = EventSource::Refused(None);
                }
                self.quiet_until = Instant::now() + heartbeat;
                return Poll::Ready(NextEvent::Answer(answer));
            }
            Poll::Ready(None) => return Poll::Ready(NextEvent::End(EndReason::Completed)),
            Poll::Pending => {}
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if ends <= now {
                return Poll::Ready(NextEvent::End(reason));
            }
            let alive = self.quiet_until <= now;
            if alive {
                self.quiet_until = now + heartbeat;
            }
            self.timer.as_mut().reset(self.quiet_until.min(ends));
            if alive {
                return Poll::Ready(NextEvent::Alive);
            }
        }
        Poll::Pending
    }
}

impl StreamBody {
    fn bytes(&self, event: NextEvent) -> Option<Bytes> {
        let multipart = self.transport == Transport::Multipart;
        match event {
            NextEvent::Answer(GraphqlAnswer::Update(update)) if multipart => {
                Some(update.part(|json| multipart::next(json.as_bytes())))
            }
            NextEvent::Answer(GraphqlAnswer::Update(update)) => {
                let cursor = update.cursor().map(|cursor| cursor.to_string());
                Some(update.event(|json| sse::next(json.as_bytes().to_vec(), cursor.as_deref())))
            }
            NextEvent::Answer(answer) if multipart => Some(multipart::next(&answer.into_response())),
            NextEvent::Answer(answer) => Some(sse::next(answer.into_response(), None)),
            NextEvent::Alive if multipart => Some(Bytes::from_static(multipart::HEARTBEAT)),
            NextEvent::Alive => Some(Bytes::from_static(sse::COMMENT)),
            NextEvent::End(EndReason::Completed) if multipart => Some(Bytes::from_static(multipart::CLOSE)),
            NextEvent::End(EndReason::Completed) => Some(Bytes::from_static(sse::COMPLETE)),
            NextEvent::End(reason) if multipart => {
                let message = reason.close().map_or("the stream was closed; open it again", |(_, text)| text);
                Some(multipart::cut(message, &reason.word().to_ascii_uppercase()))
            }
            // without `complete` the operation is not complete for a client, which opens it again
            NextEvent::End(_) => None,
        }
    }
}

impl Stream for StreamBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.opened {
            this.opened = true;
            let first = if this.transport == Transport::Multipart { multipart::OPEN } else { sse::COMMENT };
            return Poll::Ready(Some(Ok(Bytes::from_static(first))));
        }
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let heartbeat = this.endpoint.streams().settings().heartbeat;
        let event = std::task::ready!(live.poll(heartbeat, cx));
        if matches!(&event, NextEvent::Answer(answer) if !answer.is_refusal()) {
            live.guard.update_delivered();
        }
        if let NextEvent::End(reason) = event
            && let Some(live) = this.live.take()
        {
            live.guard.leave(reason);
        }
        Poll::Ready(this.bytes(event).map(Ok))
    }
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").field("transport", &self.transport).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
