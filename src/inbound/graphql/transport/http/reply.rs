//! The HTTP response to an operation with a single answer: its status by the shape of the answer, and its media type.

use std::sync::Arc;

use async_graphql::Response as GraphqlResponse;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

use super::negotiate::ResponseType;
use crate::inbound::answer_limits::answer_memory::AnswerReservation;
use crate::inbound::graphql::execution::response::{finish, to_json};
use crate::inbound::http::error::{GRAPHQL_RESPONSE, RefusalKind};

/// Converts the engine's response to an HTTP response.
pub(super) fn render(
    mut response: GraphqlResponse,
    executed: bool,
    media: ResponseType,
    meter: Arc<AnswerReservation>,
) -> Response {
    finish(&mut response, executed);
    let (status, content_type) = match (executed, response.errors.is_empty()) {
        (false, _) => (RefusalKind::DocumentInvalid.status(), GRAPHQL_RESPONSE),
        (true, false) if media == ResponseType::Graphql => (partial(), media.content_type()),
        (true, _) => (StatusCode::OK, media.content_type()),
    };
    let Some(body) = to_json(&response, executed, meter.memory()) else {
        return meter.memory().too_large().into_response();
    };
    drop(response);
    let mut rendered = Response::new(Body::from(meter.sent(body)));
    *rendered.status_mut() = status;
    rendered.headers_mut().insert(header::CONTENT_TYPE, content_type);
    rendered
}

/// 294 Partial Success: the specification's own code, only with its own media type.
fn partial() -> StatusCode {
    StatusCode::from_u16(294).unwrap_or(StatusCode::OK)
}
