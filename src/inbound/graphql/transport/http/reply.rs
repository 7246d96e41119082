//! Renders a response of the engine: sets the status by its shape, adds a code to every error, and hides the text of
//! internal errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::parser;
use async_graphql::{ErrorExtensionValues, Response as GraphqlResponse, ServerError, Value};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde::Serialize;

use super::negotiate::ResponseType;
use crate::inbound::answer_limits::answer_memory::{AnswerMemory, AnswerReservation};
use crate::inbound::http::error;
use crate::inbound::http::error::{GRAPHQL_RESPONSE, HttpRefusal, RefusalKind};

/// The most errors in one response; a document can contain hundreds of mistakes.
const MAX_ERRORS: usize = 20;

/// A response: with `data` if something was executed, else without it.
#[derive(Serialize)]
struct GraphqlReply<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: &'a BTreeMap<String, Value>,
}

/// Returns whether the engine executed the operation. An error from before execution has neither data nor a path.
pub(in crate::inbound::graphql) fn was_executed(response: &GraphqlResponse) -> bool {
    response.data != Value::Null
        || response.errors.is_empty()
        || response.errors.iter().any(|error| !error.path.is_empty())
}

/// Prepares the errors of a response for the client.
pub(in crate::inbound::graphql) fn finish(response: &mut GraphqlResponse, executed: bool) {
    if !executed {
        response.errors.truncate(MAX_ERRORS);
    }
    for error in &mut response.errors {
        complete(error, executed);
    }
}

/// Serializes a finished response as JSON; `None` if it is longer than the limit.
pub(in crate::inbound::graphql) fn to_json(
    response: &GraphqlResponse,
    executed: bool,
    memory: &AnswerMemory,
) -> Option<Vec<u8>> {
    let data = executed.then_some(&response.data);
    let reply = GraphqlReply { errors: &response.errors, data, extensions: &response.extensions };
    memory.write(|json| serde_json::to_writer(json, &reply))
}

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

/// Adds the code of its stage to an error without a code. An execution error that was converted by `?` is a bug: its
/// text is logged and not sent to the client.
fn complete(error: &mut ServerError, executed: bool) {
    let coded = error.extensions.as_ref().is_some_and(|extensions| extensions.get("code").is_some());
    if coded {
        return;
    }
    let kind = match (executed, error.source.is_some()) {
        (false, _) => RefusalKind::DocumentInvalid,
        (true, true) => RefusalKind::Internal,
        (true, false) => RefusalKind::BadInput,
    };
    error::log(kind, &error.message);
    error.message = if kind == RefusalKind::Internal {
        "internal error; the log has the details under this x-request-id".to_owned()
    } else {
        error::shortened(std::mem::take(&mut error.message).into()).into_owned()
    };
    error.extensions.get_or_insert_with(ErrorExtensionValues::default).set("code", kind.code());
}

/// Formats a parser error in one line; the parser's own text is a drawing that repeats the source. Some parser errors
/// are validation errors: no operation, or two of one name.
pub(super) fn unparsable(error: &parser::Error) -> HttpRefusal {
    let at: Vec<_> = error.positions().collect();
    let text = error.to_string();
    let description = text.lines().last().unwrap_or_default().trim_start_matches([' ', '=']);
    if !matches!(error, parser::Error::Syntax { .. } | parser::Error::RecursionLimitExceeded) {
        return HttpRefusal::new(RefusalKind::DocumentInvalid, description.to_owned()).at(at);
    }
    let description = description.replace('_', " ");
    let message = match at.first() {
        Some(at) => {
            format!("syntax error in the document at line {}, column {}: {description}", at.line, at.column)
        }
        None => format!("syntax error in the document: {description}"),
    };
    HttpRefusal::new(RefusalKind::DocumentUnparsable, message).at(at)
}
