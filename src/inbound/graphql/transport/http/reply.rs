//! The HTTP response to an operation with a single answer: its status by the shape of the answer, and its media type.

use std::sync::Arc;

use async_graphql::Response as GraphqlResponse;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

use super::negotiate::ResponseType;
use crate::inbound::answer_limits::answer_memory::AnswerReservation;
use crate::inbound::graphql::execution::response::{finish, to_json, was_executed, with_errors};
use crate::inbound::graphql::plan::query::PlannedAnswer;
use crate::inbound::http::error::{GRAPHQL_RESPONSE, RefusalKind};

/// Converts the engine's response to an HTTP response.
pub(super) fn render(
    mut response: GraphqlResponse,
    media: ResponseType,
    meter: Arc<AnswerReservation>,
) -> Response {
    let executed = was_executed(&response);
    finish(&mut response, executed);
    let (status, content_type) = if executed {
        (status(response.errors.is_empty(), media), media.content_type())
    } else {
        (RefusalKind::DocumentInvalid.status(), GRAPHQL_RESPONSE)
    };
    let Some(body) = to_json(&response, executed, meter.memory()) else {
        return meter.memory().too_large().into_response();
    };
    drop(response);
    send(status, content_type, body, meter)
}

/// Converts the answer of a plan to an HTTP response.
pub(super) fn planned(answer: PlannedAnswer, media: ResponseType, meter: Arc<AnswerReservation>) -> Response {
    let PlannedAnswer { written, errors } = answer;
    let status = status(errors.is_empty(), media);
    let json = with_errors(written.json, errors);
    if json.len() > meter.memory().max_answer() {
        return meter.memory().too_large().into_response();
    }
    send(status, media.content_type(), json.into_bytes(), meter)
}

fn send(
    status: StatusCode,
    content_type: http::HeaderValue,
    body: Vec<u8>,
    meter: Arc<AnswerReservation>,
) -> Response {
    let mut response = Response::new(Body::from(meter.sent(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
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
