//! The HTTP response to an operation with a single answer: its status by the shape of the answer, and its media type.

use std::sync::Arc;

use async_graphql::Response as GraphqlResponse;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::negotiate::ResponseType;
use crate::inbound::answer_limits::answer_memory::AnswerReservation;
use crate::inbound::graphql::execution::response::{finish, to_json, was_executed, with_errors};
use crate::inbound::graphql::plan::query::PlannedAnswer;
use crate::inbound::http::error::{GRAPHQL_RESPONSE, RefusalKind};
use crate::inbound::http::etag;
use crate::inbound::http::fixed_headers;

/// A browser may keep the answer to a GET for itself, and asks each time whether it is still the same.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");
/// The headers of a request that its answer depends on.
const REQUESTED_FORM: HeaderValue = HeaderValue::from_static("accept, accept-encoding, authorization");

/// Converts the engine's response to an HTTP response. `revalidates`: the headers of a request that may have the answer
/// already.
pub(super) fn render(
    mut response: GraphqlResponse,
    media: ResponseType,
    revalidates: Option<&HeaderMap>,
    meter: Arc<AnswerReservation>,
) -> Response {
    let executed = was_executed(&response);
    finish(&mut response, executed);
    let revalidates = revalidates.filter(|_| executed && response.errors.is_empty());
    let (status, content_type) = if executed {
        (status(response.errors.is_empty(), media), media.content_type())
    } else {
        (RefusalKind::DocumentInvalid.status(), GRAPHQL_RESPONSE)
    };
    let Some(body) = to_json(&response, executed, meter.memory()) else {
        return meter.memory().too_large().into_response();
    };
    drop(response);
    send(status, content_type, body, revalidates, meter)
}

/// Converts the answer of a plan to an HTTP response, likewise.
pub(super) fn planned(
    answer: PlannedAnswer,
    media: ResponseType,
    revalidates: Option<&HeaderMap>,
    meter: Arc<AnswerReservation>,
) -> Response {
    let PlannedAnswer { written, errors } = answer;
    let revalidates = revalidates.filter(|_| errors.is_empty());
    let status = status(errors.is_empty(), media);
    let json = with_errors(written.json, errors);
    if json.len() > meter.memory().max_answer() {
        return meter.memory().too_large().into_response();
    }
    send(status, media.content_type(), json.into_bytes(), revalidates, meter)
}

fn send(
    status: StatusCode,
    content_type: HeaderValue,
    body: Vec<u8>,
    revalidates: Option<&HeaderMap>,
    meter: Arc<AnswerReservation>,
) -> Response {
    let etag = revalidates.map(|known| (etag::weak(&body), known));
    let is_known = etag.as_ref().is_some_and(|(etag, known)| etag::is_known(known, etag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(meter.sent(body)));
        *response.status_mut() = status;
        *response.headers_mut() = fixed_headers::with_content_type(content_type);
        response
    };
    if let Some((etag, _)) = etag {
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag);
        headers.insert(header::CACHE_CONTROL, REVALIDATED);
        headers.insert(header::VARY, REQUESTED_FORM);
    }
    response
}

/// The status of an operation that was executed. 294 Partial Success is the specification's own code, only with its own
/// media type.
fn status(complete: bool, media: ResponseType) -> StatusCode {
    if complete || media != ResponseType::Graphql {
        StatusCode::OK
    } else {
        StatusCode::from_u16(294).unwrap_or(StatusCode::OK)
    }
}
