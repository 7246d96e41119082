//! Why a request to a gateway failed, and whether a retry can help: one table for all statuses, and the one place where
//! an error of the HTTP client is converted. Not here: a job's own problem, which is a result.

use std::error::Error as _;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::wire::WireProblem;

/// The longest part of a gateway's message that is repeated, in characters.
const MESSAGE_CHARS: usize = 300;

/// Why there is no response. Never contains the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct GatewayError {
    message: String,
    is_retryable: bool,
    retry_after: Option<Duration>,
}

impl GatewayError {
    /// An error that a retry may resolve.
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_retryable: true, retry_after: None }
    }

    /// An error that a retry does not resolve.
    pub(crate) fn lasting(message: impl Into<String>) -> Self {
        Self { is_retryable: false, ..Self::passing(message) }
    }

    /// The gateway was unreachable, or the response broke off.
    pub(super) fn of_client(error: reqwest::Error) -> Self {
        let connect = error.is_connect();
        // the URL is removed because a person typed it, and it may contain more than may be repeated
        let error = error.without_url();
        let mut reasons = vec![error.to_string()];
        let mut below = error.source();
        while let Some(error) = below {
            reasons.push(error.to_string());
            below = error.source();
        }
        let message = reasons.join(": ");
        if connect {
            Self::passing(format!("the gateway cannot be reached: {message}"))
        } else {
            Self::passing(format!("the connection to the gateway was closed: {message}"))
        }
    }

    /// An error from a response that is not a GraphQL result: its status and its body.
    pub(super) fn of_answer(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = first_error(&body).map(|(_, message)| message);
        let message = message.map_or_else(String::new, |message| format!(": {message}"));
        let code = status.as_u16();
        let message = match status {
            StatusCode::UNAUTHORIZED => {
                format!(
                    "the gateway rejects the client key (401){message}; set a valid key with --key-file or JOBGATE_KEY"
                )
            }
            StatusCode::FORBIDDEN => format!("access denied (403){message}"),
            StatusCode::NOT_FOUND => {
                format!("not found (404){message}; check that --url is the URL of a gateway")
            }
            _ if status.is_redirection() => {
                format!(
                    "unexpected redirect ({code}); redirects are not followed, set --url to the address of the gateway"
                )
            }
            _ if status.is_success() => {
                "the response is not from a gateway; check that --url is the URL of a gateway".to_owned()
            }
            _ => format!("the gateway responded with {code}{message}"),
        };
        Self { message, is_retryable: is_retryable(status), retry_after }
    }

    /// An error from a GraphQL result that contains errors and no data.
    pub(super) fn of_result(result: &Value) -> Self {
        match first_error(result) {
            Some((code, message)) => {
                let is_retryable = matches!(
                    code.as_str(),
                    "INTERNAL_SERVER_ERROR" | "OVERLOADED" | "TOO_MANY_REQUESTS" | "DEADLINE_EXCEEDED"
                );
                Self { is_retryable, ..Self::passing(format!("the gateway rejected the request: {message}")) }
            }
            None => Self::lasting(
                "the response does not match the request; check that --url is the URL of a gateway",
            ),
        }
    }

    /// An error from a problem about the rows of a job.
    pub(crate) fn of_problem(problem: &WireProblem) -> Self {
        let WireProblem { code, message, retryable, retry_after_ms, .. } = problem;
        let retry_after = retry_after_ms.map(Duration::from_millis);
        Self { is_retryable: *retryable, retry_after, ..Self::passing(format!("{code}: {message}")) }
    }

    /// Returns whether a retry can help.
    pub(crate) const fn is_retryable(&self) -> bool {
        self.is_retryable
    }

    /// The pause that the gateway requests.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// A restart or an overload of the gateway, or of a proxy in front of it, passes. An error about the request itself is
/// the same at the next attempt.
fn is_retryable(status: StatusCode) -> bool {
    matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

fn first_error(result: &Value) -> Option<(String, String)> {
    let error = result.get("errors")?.get(0)?;
    let message = error.get("message")?.as_str()?.chars().take(MESSAGE_CHARS).collect();
    let code = error.pointer("/extensions/code").and_then(Value::as_str).unwrap_or_default();
    Some((code.to_owned(), message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_transient_errors_are_retried() {
        for (status, again) in [
            (200, false),
            (301, false),
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (405, false),
            (406, false),
            (408, true),
            (413, false),
            (415, false),
            (422, false),
            (425, true),
            (429, true),
            (500, true),
            (501, false),
            (502, true),
            (503, true),
            (504, true),
        ] {
            let error = GatewayError::of_answer(StatusCode::from_u16(status).unwrap(), None, b"<html>");
            assert_eq!(error.is_retryable(), again, "{status}: {error}");
        }
        for (code, again) in [
            ("OVERLOADED", true),
            ("INTERNAL_SERVER_ERROR", true),
            ("DEADLINE_EXCEEDED", true),
            ("BAD_USER_INPUT", false),
            ("GRAPHQL_VALIDATION_FAILED", false),
            ("", false),
        ] {
            let result = json!({ "errors": [{ "message": "why", "extensions": { "code": code } }] });
            let error = GatewayError::of_result(&result);
            assert_eq!((error.is_retryable(), error.to_string().contains("why")), (again, true), "{code}");
        }
        assert!(!GatewayError::of_result(&json!({})).is_retryable());
    }
}
