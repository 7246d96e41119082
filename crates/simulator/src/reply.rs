//! The answer of a simulated upstream, and how its bytes are sent: whole, cut, slowly, padded or compressed.

mod bomb;

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::Value;

use super::{SimUpstream, Splice, world::SimWorld};

/// The body type of every response. It fails only where a fault cuts the connection.
pub(super) type SimBody = UnsyncBoxBody<Bytes, io::Error>;

/// An answer before it is turned into bytes.
#[derive(Debug, Clone)]
pub(super) struct SimReply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
}

/// The content of an answer.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Empty,
    Json { content_type: &'static str, document: Value },
    Text { content_type: String, text: String },
    Bytes { content_type: &'static str, bytes: Bytes },
}

/// How the bytes of an answer are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Delivery {
    Whole,
    /// Half of it, with a `Content-Length` that matches the half.
    HalfDocument,
    /// Half of it, with the true `Content-Length`, then the connection is closed.
    HalfSent,
    Drip {
        chunk: usize,
        every: Duration,
    },
    Padded(u64),
    Packed(u64),
}

impl SimReply {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::Empty }
    }

    pub(super) fn json(status: u16, document: Value) -> Self {
        let content = Content::Json { content_type: "application/json", document };
        Self { status, headers: HeaderMap::new(), content }
    }

    pub(super) fn problem(status: u16, document: Value) -> Self {
        let content = Content::Json { content_type: "application/problem+json", document };
        Self { status, headers: HeaderMap::new(), content }
    }

    pub(super) fn text(status: u16, content_type: &str, text: &str) -> Self {
        let content = Content::Text { content_type: content_type.to_owned(), text: text.to_owned() };
        Self { status, headers: HeaderMap::new(), content }
    }

    /// Adds a header; an invalid one is omitted.
    pub(super) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Changes the document of a JSON answer.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        if let Content::Json { document, .. } = &mut self.content {
            change(document);
        }
    }

    /// Changes the bytes of a JSON answer.
    pub(super) fn spliced(mut self, splice: &Splice) -> Self {
        if let Content::Json { content_type, document } = self.content {
            let bytes = splice.apply(&document.to_string()).into();
            self.content = Content::Bytes { content_type, bytes };
        }
        self
    }

    /// Turns the answer into a response. `in_flight` ends just before the last byte is handed over.
    pub(super) fn deliver(self, delivery: Delivery, in_flight: RequestInFlight) -> Response<SimBody> {
        let (content_type, bytes) = match self.content {
            Content::Empty => (None, Bytes::new()),
            Content::Json { content_type, document } => {
                (HeaderValue::from_static(content_type).into(), Bytes::from(document.to_string()))
            }
            Content::Text { content_type, text } => {
                (HeaderValue::from_str(&content_type).ok(), Bytes::from(text))
            }
            Content::Bytes { content_type, bytes } => (HeaderValue::from_static(content_type).into(), bytes),
        };
        let mut headers = self.headers;
        if let Some(content_type) = content_type {
            headers.entry(header::CONTENT_TYPE).or_insert(content_type);
        }
        let half = bytes.slice(..bytes.len() / 2);
        let body = match delivery {
            Delivery::Whole => {
                headers.insert(header::CONTENT_LENGTH, bytes.len().into());
                whole(bytes, in_flight)
            }
            Delivery::HalfDocument => {
                headers.insert(header::CONTENT_LENGTH, half.len().into());
                whole(half, in_flight)
            }
            Delivery::HalfSent => {
                headers.insert(header::CONTENT_LENGTH, bytes.len().into());
                cut_after(half, in_flight)
            }
            Delivery::Drip { chunk, every } => {
                headers.insert(header::CONTENT_LENGTH, bytes.len().into());
                drip(bytes, chunk.max(1), every, in_flight)
            }
            Delivery::Padded(blanks) => padded(blanks, bytes, in_flight),
            Delivery::Packed(blanks) => {
                headers.entry(header::CONTENT_ENCODING).or_insert(HeaderValue::from_static("gzip"));
                let packed = Bytes::from(bomb::gzip(blanks, &bytes));
                headers.insert(header::CONTENT_LENGTH, packed.len().into());
                whole(packed, in_flight)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

/// A request in flight: dropping it records its end.
#[derive(Debug)]
pub(super) struct RequestInFlight {
    world: Arc<SimWorld>,
    upstream: SimUpstream,
    number: Option<u64>,
}

impl RequestInFlight {
    /// A request of the record, by its number there; `None` for the control endpoints.
    pub(super) const fn new(world: Arc<SimWorld>, upstream: SimUpstream, number: Option<u64>) -> Self {
        Self { world, upstream, number }
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.world.ledger.end(number, self.upstream);
        }
    }
}

fn whole(bytes: Bytes, in_flight: RequestInFlight) -> SimBody {
    if bytes.is_empty() {
        drop(in_flight);
        return StreamBody::new(stream::empty()).boxed_unsync();
    }
    let once = stream::once(async move {
        drop(in_flight);
        Ok(Frame::data(bytes))
    });
    StreamBody::new(once).boxed_unsync()
}

fn cut_after(bytes: Bytes, in_flight: RequestInFlight) -> SimBody {
    let cut = async move {
        // Once through the scheduler, so that the server writes its buffer before it gets the error.
        tokio::task::yield_now().await;
        drop(in_flight);
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault"))
    };
    StreamBody::new(stream::iter([Ok(Frame::data(bytes))]).chain(stream::once(cut))).boxed_unsync()
}

fn drip(bytes: Bytes, chunk: usize, every: Duration, in_flight: RequestInFlight) -> SimBody {
    let pieces = stream::unfold((bytes, Some(in_flight)), move |(mut left, mut in_flight)| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(every).await;
        let piece = left.split_to(chunk.min(left.len()));
        if left.is_empty() {
            drop(in_flight.take());
        }
        Some((Ok(Frame::data(piece)), (left, in_flight)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn padded(blanks: u64, bytes: Bytes, in_flight: RequestInFlight) -> SimBody {
    static BLANKS: [u8; 16 * 1024] = [b' '; 16 * 1024];
    let blanks = stream::unfold(blanks, |left| async move {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(BLANKS.len());
        (piece > 0).then(|| {
            (Ok(Frame::data(Bytes::from_static(&BLANKS).slice(..piece))), left.saturating_sub(piece as u64))
        })
    });
    let rest = stream::once(async move {
        drop(in_flight);
        Ok(Frame::data(bytes))
    });
    StreamBody::new(blanks.chain(rest)).boxed_unsync()
}
