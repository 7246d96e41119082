//! Classifies a response by its body, then by the HTTP status. Pure: pauses, retries and logging are decided elsewhere.

use reqwest::StatusCode;

use super::codes::{CodeMeaning, meaning};
use super::normalize;
use super::wire::{AnswerDto, ErrorBody, MetaDto};
use crate::domain::job::Life;
use crate::outbound::upstreams::wire::object;

/// The meaning of a response.
#[derive(Debug)]
pub(super) enum Meaning {
    /// A status: the query is running or terminal.
    Status(MetaDto),
    /// The query itself failed, reported as an error. A result: a retry would return the same.
    QueryFailed(MetaDto, ErrorBody),
    /// The query is denied. It has failed, unless all the others are denied too.
    Denied(MetaDto, ErrorBody),
    /// The query itself must wait, and no other.
    QueryLimited,
    /// No such query, or not any more.
    NotFound,
    /// The key is rejected, for every call.
    Rejected,
    /// This one call is refused.
    Forbidden,
    /// A limit is used up, for every call.
    Limited,
    /// The source refuses its calls, whatever they request. An immediate retry does not help. Contains text for the
    /// log.
    UpstreamError(String),
    /// A server error, or an unknown error; a retry may help. Contains text for the log.
    Sick(String),
    /// Not understood, and the same after a retry. Contains text for the log.
    Odd(String),
}

/// Classifies a response ("Errors"): an `error` object takes precedence over any HTTP status, and no body need be JSON.
/// A query that the response itself reports as failed has failed, whatever else is in it.
pub(super) fn classify(status: StatusCode, body: &[u8]) -> Meaning {
    match object::<AnswerDto>(body).map(place_reason) {
        Some(AnswerDto { meta: Some(meta), error: Some(error), .. }) if has_failed(&meta) => {
            Meaning::QueryFailed(meta, error)
        }
        Some(AnswerDto { meta, error: Some(error), .. }) => by_code(status, meta.unwrap_or_default(), error),
        Some(AnswerDto { meta: Some(meta), .. })
            if has_failed(&meta) || status.is_success() && meta.status_code.is_some() =>
        {
            Meaning::Status(meta)
        }
        // problem details under 200 contain in their body what the status should have been
        Some(AnswerDto { status: Some(code), title, .. }) if status.is_success() && code >= 400 => by_status(
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            title.as_deref(),
        ),
        Some(AnswerDto { title, .. }) => by_status(status, title.as_deref()),
        None if status == StatusCode::FORBIDDEN && !body.trim_ascii().is_empty() => {
            Meaning::Odd("it responded with 403 and a body that is not a JSON object".to_owned())
        }
        None => by_status(status, None),
    }
}

/// Moves an `error_info` beside the meta to where it belongs: to the reasons of a query that has a status, else it is
/// the error.
fn place_reason(mut answer: AnswerDto) -> AnswerDto {
    if let Some(info) = answer.error_info.take() {
        match &mut answer.meta {
            Some(meta) if meta.status_code.is_some() => {
                meta.error_info = meta.error_info.take().or(Some(info));
            }
            Some(_) | None => answer.error = answer.error.or(Some(info)),
        }
    }
    answer
}

/// Returns whether a body is an error in the API's own JSON.
pub(super) fn is_own_error(body: &[u8]) -> bool {
    object::<AnswerDto>(body).map(place_reason).is_some_and(|answer| {
        let coded = answer.error.is_some_and(|error| error.code.is_some());
        coded || answer.title.is_some() && answer.status.is_some()
    })
}

fn has_failed(meta: &MetaDto) -> bool {
    matches!(normalize::life(meta.status_code.as_deref()), Life::Failed(_))
}

/// The meaning of an error with a code: by the table, and by the HTTP status if the table does not contain the code.
fn by_code(status: StatusCode, meta: MetaDto, error: ErrorBody) -> Meaning {
    let code = error.code.as_deref().unwrap_or_default().trim().to_ascii_uppercase();
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    match meaning(&code) {
        Some(CodeMeaning::NotFound) => Meaning::NotFound,
        Some(CodeMeaning::JobFailed) if limited && code.ends_with("_LIMIT_EXCEEDED") => Meaning::QueryLimited,
        Some(CodeMeaning::JobFailed) => Meaning::QueryFailed(meta, error),
        Some(CodeMeaning::JobFailedIfOthersRead) if limited => Meaning::QueryLimited,
        Some(CodeMeaning::JobFailedIfOthersRead) => Meaning::Denied(meta, error),
        Some(CodeMeaning::SourcePaused) => Meaning::Limited,
        Some(CodeMeaning::CredentialRejected) => Meaning::Rejected,
        Some(CodeMeaning::UpstreamError) => Meaning::UpstreamError(words(status, Some(&code))),
        // an error under a successful status has no listed status, and those are 500
        None if status.is_success() => by_status(StatusCode::INTERNAL_SERVER_ERROR, Some(&code)),
        None => by_status(status, Some(&code)),
    }
}

/// The status and a code of the response, for the log.
pub(super) fn words(status: StatusCode, word: Option<&str>) -> String {
    match word {
        // the debug form keeps control characters out of the log; the length is bounded for the same reason
        Some(word) if !word.is_empty() => {
            format!("it responded with {} {:?}", status.as_u16(), word.chars().take(60).collect::<String>())
        }
        Some(_) | None => format!("it responded with {}", status.as_u16()),
    }
}

fn by_status(status: StatusCode, word: Option<&str>) -> Meaning {
    let text = || words(status, word);
    match status {
        StatusCode::UNAUTHORIZED => Meaning::Rejected,
        StatusCode::FORBIDDEN => Meaning::Forbidden,
        StatusCode::TOO_MANY_REQUESTS => Meaning::Limited,
        _ if status.is_server_error() => Meaning::Sick(text()),
        _ if status.is_success() => Meaning::Odd("the body is not a JSON object with a status".to_owned()),
        _ if status.is_redirection() => {
            Meaning::Odd("it responded with a redirect, which is not followed; check base_url".to_owned())
        }
        _ => Meaning::Odd(text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(meaning: &Meaning) -> &'static str {
        match meaning {
            Meaning::Status(_) => "status",
            Meaning::QueryFailed(..) => "query failed",
            Meaning::Denied(..) => "denied",
            Meaning::QueryLimited => "query limited",
            Meaning::UpstreamError(_) => "upstream error",
            Meaning::NotFound => "not found",
            Meaning::Rejected => "rejected",
            Meaning::Forbidden => "forbidden",
            Meaning::Limited => "limited",
            Meaning::Sick(_) => "sick",
            Meaning::Odd(_) => "odd",
        }
    }

    #[test]
    fn response_body_takes_precedence_over_the_status() {
        let error = |code: &str| format!(r#"{{"meta":{{"request_id":"r"}},"error":{{"code":"{code}"}}}}"#);
        let beside_failure =
            |code: &str| format!(r#"{{"meta":{{"status_code":"FAILURE"}},"error":{{"code":"{code}"}}}}"#);
        let html = "<html>Bad Gateway</html>".to_owned();
        let running = r#"{"meta":{"status_code":"RUNNING"},"error":null}"#.to_owned();
        let problem = |status: u16| format!(r#"{{"type":"x","title":"T","status":{status},"detail":"d"}}"#);
        let cases = [
            (200, running.clone(), "status"),
            (200, r#"{"meta":{"status_code":"RUNNING"},"data":null}"#.to_owned(), "status"),
            (500, running, "sick"),
            (400, error("STATUS_NOT_FOUND"), "not found"),
            (404, error("status_not_found"), "not found"),
            (200, error("STATUS_NOT_FOUND"), "not found"),
            (500, error("STATUS_NOT_FOUND"), "not found"),
            (404, html.clone(), "odd"),
            (404, String::new(), "odd"),
            (401, error("API_KEY_INVALID"), "rejected"),
            (200, error("API_KEY_REQUIRED"), "rejected"),
            (401, error("ACCESS_TOKEN_INVALID"), "rejected"),
            (403, error("API_KEY_DISABLED"), "rejected"),
            (403, error("LICENSE_EXPIRED"), "rejected"),
            (401, html.clone(), "rejected"),
            (401, problem(401), "rejected"),
            (403, html.clone(), "odd"),
            (403, String::new(), "forbidden"),
            (403, error("SOMETHING_ELSE"), "forbidden"),
            (429, String::new(), "limited"),
            (429, problem(429), "limited"),
            (429, error("LICENSE_DAILY_QUERY_LIMIT_EXCEEDED"), "limited"),
            (200, error("LICENSE_DAILY_QUERY_LIMIT_EXCEEDED"), "limited"),
            (429, error("ANYTHING"), "limited"),
            (429, error("QUERY_ERROR"), "query failed"),
            (429, error("QUERY_ROW_LIMIT_EXCEEDED"), "query limited"),
            (429, error("LICENSE_ROW_LIMIT_EXCEEDED"), "query limited"),
            (403, error("LICENSE_ROW_LIMIT_EXCEEDED"), "denied"),
            (403, error("LICENSE_ACCOUNT_LIMIT_EXCEEDED"), "denied"),
            (403, error("LICENSE_QUERIES_SUSPENDED"), "denied"),
            (403, error("ACCESS_DENIED_IP"), "upstream error"),
            (500, error("PERMISSION_DENIED"), "denied"),
            (500, error("LICENSE_NOT_FOUND"), "denied"),
            (500, error("LICENSE_ACCESS_DATA_SOURCE"), "denied"),
            (500, error("ACCOUNT_NOT_FOUND"), "query failed"),
            (400, error("ACCOUNT_ID_INVALID"), "denied"),
            (400, error("SETTING_KEY_INVALID"), "denied"),
            (200, beside_failure("PERMISSION_DENIED"), "query failed"),
            (403, beside_failure("LICENSE_EXPIRED"), "query failed"),
            (200, beside_failure("INTERNAL_ERROR"), "query failed"),
            (500, beside_failure("STATUS_NOT_FOUND"), "query failed"),
            (500, r#"{"meta":{"status_code":"FAILURE"}}"#.to_owned(), "status"),
            (500, error("QUERY_ACCOUNT_UNAVAILABLE"), "query failed"),
            (200, error("QUERY_TIMEOUT"), "query failed"),
            (400, error("QUERY_INVALID"), "query failed"),
            (403, error("LICENSE_FIELD_LIMIT_EXCEEDED"), "denied"),
            (429, error("LICENSE_FIELD_LIMIT_EXCEEDED"), "query limited"),
            (500, r#"{"error_info":{"code":"QUERY_X"}}"#.to_owned(), "query failed"),
            (200, r#"{"meta":{"status_code":"FAILURE"},"error_info":"why"}"#.to_owned(), "status"),
            (200, r#"{"meta":{"status_code":"RUNNING"},"error_info":"why"}"#.to_owned(), "status"),
            (500, error("INTERNAL_ERROR"), "sick"),
            (200, error("INTERNAL_ERROR"), "sick"),
            (200, r#"{"error":"oops"}"#.to_owned(), "sick"),
            (500, problem(500), "sick"),
            (200, problem(500), "sick"),
            (200, problem(429), "limited"),
            (502, html.clone(), "sick"),
            (503, String::new(), "sick"),
            (400, problem(400), "odd"),
            (400, error("PARAMETER_INVALID"), "odd"),
            (200, html, "odd"),
            (200, String::new(), "odd"),
            (200, "[]".to_owned(), "odd"),
            (200, "{}".to_owned(), "odd"),
            (200, r#"{"meta":{"status_code":"RUN"#.to_owned(), "odd"),
            (302, String::new(), "odd"),
        ];
        for (status, body, expected) in cases {
            let meaning = classify(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(name(&meaning), expected, "{status} {body}");
        }
    }
}
