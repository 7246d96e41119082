//! A response of the engine as JSON: adds a code to every error, and hides the text of internal errors. Not here: the
//! status and the media type of HTTP.

use std::collections::BTreeMap;

use async_graphql::{ErrorExtensionValues, Response as GraphqlResponse, ServerError, Value};
use serde::Serialize;

use crate::inbound::answer_limits::answer_memory::AnswerMemory;
use crate::inbound::http::error::{self, RefusalKind};

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

/// Adds the errors of a plan to its answer.
pub(in crate::inbound::graphql) fn with_errors(answer: String, mut errors: Vec<ServerError>) -> String {
    if errors.is_empty() {
        return answer;
    }
    for error in &mut errors {
        complete(error, true);
    }
    // errors have a JSON form
    let errors = serde_json::to_string(&errors).unwrap_or_else(|_| "[]".to_owned());
    format!("{{\"errors\":{errors},{}", answer.strip_prefix('{').unwrap_or_default())
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

/// Adds the code of its stage to an error without a code. An execution error that was converted by `?` is a bug: its
/// text is logged and not sent to the client.
fn complete(error: &mut ServerError, executed: bool) {
    let coded = error.extensions.as_ref().is_some_and(|extensions| extensions.get("code").is_some());
    if coded {
        return;
    }
    let kind = stage(error, executed);
    error::log(kind, &error.message);
    error.message = if kind == RefusalKind::Internal {
        "internal error; the log has the details under this x-request-id".to_owned()
    } else {
        error::shortened(std::mem::take(&mut error.message).into()).into_owned()
    };
    error.extensions.get_or_insert_with(ErrorExtensionValues::default).set("code", kind.code());
}

/// What an error without a code is: by the stage that it comes from.
const fn stage(error: &ServerError, executed: bool) -> RefusalKind {
    match (executed, error.source.is_some()) {
        (false, _) => RefusalKind::DocumentInvalid,
        (true, true) => RefusalKind::Internal,
        (true, false) => RefusalKind::BadInput,
    }
}

/// The code of the first error; none if it has no errors.
pub(in crate::inbound::graphql) fn first_code(errors: &[ServerError], executed: bool) -> Option<&str> {
    let error = errors.first()?;
    match error.extensions.as_ref().and_then(|extensions| extensions.get("code")) {
        Some(Value::String(code)) => Some(code),
        _ => Some(stage(error, executed).code()),
    }
}
