//! Why a request is rejected: one closed list, and the one table from it to HTTP status, `extensions.code` and log
//! level. No other module maps these.

use std::borrow::Cow;
use std::time::Duration;

use async_graphql::Pos;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tracing::Level;

use crate::domain::error::ProblemCode;
use crate::telemetry::meters;

/// The media type of every refusal: its body is a well-formed GraphQL response.
pub const GRAPHQL_RESPONSE: HeaderValue =
    HeaderValue::from_static("application/graphql-response+json; charset=utf-8");

/// The longest message that is sent to a client, in characters: messages can quote a document's own names.
const MESSAGE_CHARS: usize = 500;

/// The kinds of refusal. A new variant does not compile until the table has a row for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The body or the URL cannot be decoded.
    Unreadable,
    /// It is decoded, and is not a GraphQL-over-HTTP request.
    Malformed,
    /// The document is not GraphQL.
    DocumentUnparsable,
    /// The document does not fit the schema.
    DocumentInvalid,
    /// The document has more tokens or nested brackets than the limit.
    DocumentTooLarge,
    /// The document requests more than one request may.
    DocumentTooComplex,
    /// The answer is longer than the limit.
    AnswerTooLarge,
    /// No operation of the document matches the request, or more than one.
    OperationUnresolved,
    /// A subscription was sent over a transport with a single response.
    SubscriptionNeedsStream,
    /// A value of the client is invalid.
    BadInput,
    /// The client presented no key, or an unknown one.
    Unauthenticated,
    /// The token of the client was valid and has expired.
    CredentialExpired,
    /// The token of the client may be valid later.
    CredentialUnverified,
    /// The credential is valid, but not for this request.
    NotPermitted,
    /// A page of this origin may not call the gateway.
    OriginNotAllowed,
    /// An upgrade to another protocol than `graphql-transport-ws`.
    BadUpgrade,
    /// The handshake of a WebSocket without the upgrade, or with another version.
    UpgradeRequired,
    /// The client has reached its limit of concurrent operations.
    TooManyOperations,
    /// The client, or its address, exceeds a limit.
    TooManyRequests,
    /// Only documents that the operator listed are executed, and this is not one of them.
    DocumentNotTrusted,
    /// No document has this id.
    DocumentUnknown,
    /// Document ids are disabled.
    DocumentIdsOff,
    /// Nothing is served at this path.
    NoSuchPath,
    /// The method, or this operation by this method.
    MethodNotAllowed,
    /// The server has no media type that the client accepts.
    NotAcceptable,
    /// The client sent its request too slowly.
    RequestTimeout,
    /// The body is longer than the limit.
    BodyTooLarge,
    /// The content type is not UTF-8 JSON.
    UnsupportedMediaType,
    /// The limit of concurrent requests is reached.
    Overloaded,
    /// The answer was not ready within the deadline of a request.
    DeadlineExceeded,
    /// An error of this gateway.
    Internal,
    /// There is no answer for a job; data in GraphQL, a status where a handler has no data.
    Problem(ProblemCode),
}

impl RefusalKind {
    /// The whole table: HTTP status, `extensions.code`, log level.
    const fn row(self) -> (StatusCode, &'static str, Level) {
        use StatusCode as S;
        match self {
            Self::Unreadable => (S::BAD_REQUEST, "BAD_REQUEST", Level::DEBUG),
            Self::Malformed => (S::UNPROCESSABLE_ENTITY, "BAD_REQUEST", Level::DEBUG),
            Self::DocumentUnparsable => (S::BAD_REQUEST, "GRAPHQL_PARSE_FAILED", Level::DEBUG),
            Self::DocumentInvalid => (S::UNPROCESSABLE_ENTITY, "GRAPHQL_VALIDATION_FAILED", Level::DEBUG),
            Self::DocumentTooLarge => (S::UNPROCESSABLE_ENTITY, "DOCUMENT_TOO_LARGE", Level::INFO),
            Self::DocumentTooComplex => (S::UNPROCESSABLE_ENTITY, "DOCUMENT_TOO_COMPLEX", Level::INFO),
            Self::AnswerTooLarge => (S::UNPROCESSABLE_ENTITY, "ANSWER_TOO_LARGE", Level::INFO),
            Self::OperationUnresolved => {
                (S::UNPROCESSABLE_ENTITY, "OPERATION_RESOLUTION_FAILURE", Level::DEBUG)
            }
            Self::SubscriptionNeedsStream => {
                (S::UNPROCESSABLE_ENTITY, "SUBSCRIPTION_NEEDS_STREAM", Level::DEBUG)
            }
            Self::BadInput => (S::UNPROCESSABLE_ENTITY, "BAD_USER_INPUT", Level::DEBUG),
            Self::Unauthenticated | Self::CredentialExpired | Self::CredentialUnverified => {
                (S::UNAUTHORIZED, "UNAUTHENTICATED", Level::INFO)
            }
            Self::NotPermitted => (S::FORBIDDEN, "FORBIDDEN", Level::INFO),
            Self::OriginNotAllowed => (S::FORBIDDEN, "ORIGIN_NOT_ALLOWED", Level::INFO),
            Self::BadUpgrade => (S::BAD_REQUEST, "BAD_UPGRADE", Level::DEBUG),
            Self::UpgradeRequired => (S::UPGRADE_REQUIRED, "UPGRADE_REQUIRED", Level::INFO),
            Self::TooManyOperations => (S::TOO_MANY_REQUESTS, "TOO_MANY_OPERATIONS", Level::INFO),
            // a client over its limit causes many of them, and a line for each would be additional load
            Self::TooManyRequests => (S::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", Level::DEBUG),
            Self::DocumentNotTrusted => (S::UNPROCESSABLE_ENTITY, "PERSISTED_QUERY_NOT_IN_LIST", Level::INFO),
            Self::DocumentUnknown => (S::UNPROCESSABLE_ENTITY, "PERSISTED_QUERY_NOT_FOUND", Level::DEBUG),
            Self::DocumentIdsOff => (S::UNPROCESSABLE_ENTITY, "PERSISTED_QUERY_NOT_SUPPORTED", Level::DEBUG),
            Self::NoSuchPath => (S::NOT_FOUND, "NO_SUCH_PATH", Level::DEBUG),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", Level::DEBUG),
            Self::NotAcceptable => (S::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", Level::DEBUG),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", Level::INFO),
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", Level::INFO),
            Self::UnsupportedMediaType => (S::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", Level::DEBUG),
            // the layer that sheds load logs one warning for all of them; a line for each would be additional load
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "OVERLOADED", Level::DEBUG),
            Self::DeadlineExceeded => (S::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", Level::WARN),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "INTERNAL_SERVER_ERROR", Level::ERROR),
            Self::Problem(code) => problem(code),
        }
    }

    /// The HTTP status where nothing was executed.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// The value of `extensions.code`.
    pub const fn code(self) -> &'static str {
        self.row().1
    }

    /// The log level; `ERROR` means that an operator must act.
    pub const fn level(self) -> Level {
        self.row().2
    }
}

/// A rejected upstream credential is a problem of the gateway's operator, so it is never reported as 401.
const fn problem(code: ProblemCode) -> (StatusCode, &'static str, Level) {
    use StatusCode as S;
    let (status, level) = match code {
        ProblemCode::NotFound => (S::NOT_FOUND, Level::DEBUG),
        ProblemCode::Expired => (S::GONE, Level::DEBUG),
        ProblemCode::InvalidRef => (S::UNPROCESSABLE_ENTITY, Level::DEBUG),
        ProblemCode::Throttled => (S::SERVICE_UNAVAILABLE, Level::INFO),
        ProblemCode::Unavailable => (S::SERVICE_UNAVAILABLE, Level::WARN),
        ProblemCode::TimedOut => (S::GATEWAY_TIMEOUT, Level::WARN),
        ProblemCode::CredentialRejected => (S::BAD_GATEWAY, Level::ERROR),
        ProblemCode::Unconfigured => (S::SERVICE_UNAVAILABLE, Level::ERROR),
        ProblemCode::BadAnswer => (S::BAD_GATEWAY, Level::WARN),
        ProblemCode::FollowLimit => (S::GATEWAY_TIMEOUT, Level::INFO),
        ProblemCode::Internal => (S::INTERNAL_SERVER_ERROR, Level::ERROR),
    };
    (status, code.name(), level)
}

/// One refusal: its kind and its message. Contains only our own text and the client's own input.
///
/// Not a `std::error::Error`: it is an answer. With `?` a resolver turns it into an execution error.
#[derive(Clone, Debug)]
pub struct HttpRefusal(Box<RefusalText>);

#[derive(Clone, Debug)]
struct RefusalText {
    kind: RefusalKind,
    message: Cow<'static, str>,
    locations: Vec<Pos>,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpRefusal {
    /// A refusal with a message: lower case, concrete, naming the field and the fix.
    pub fn new(kind: RefusalKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = shortened(message.into());
        Self(Box::new(RefusalText {
            kind,
            message,
            locations: Vec::new(),
            extensions: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// 401 for a request without a bearer token, with the challenge of RFC 9110.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::challenge(RefusalKind::Unauthenticated, message, "Bearer")
    }

    /// 401 for an invalid bearer token, with the challenge of RFC 6750.
    pub fn invalid_token(kind: RefusalKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::challenge(kind, message, "Bearer error=\"invalid_token\"")
    }

    fn challenge(kind: RefusalKind, message: impl Into<Cow<'static, str>>, challenge: &'static str) -> Self {
        Self::new(kind, message).with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 426, to a client that sends a WebSocket handshake.
    pub fn upgrade_required(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::UpgradeRequired, message)
            .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .with_header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
    }

    /// 405, with the allowed methods.
    pub fn method(allow: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::MethodNotAllowed, message)
            .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// 503, with `Retry-After` in whole seconds, rounded up.
    pub fn overloaded(retry_after: Duration, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Overloaded, message).retry_after(retry_after)
    }

    /// The same, with `Retry-After` in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000);
        let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
        self.with_header(header::RETRY_AFTER, seconds)
    }

    /// The same, with locations in the document.
    #[must_use]
    pub fn at(mut self, locations: impl IntoIterator<Item = Pos>) -> Self {
        self.0.locations = locations.into_iter().collect();
        self
    }

    /// The same, with a further member beside `extensions.code`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Its kind.
    pub fn kind(&self) -> RefusalKind {
        self.0.kind
    }

    /// The message for the client.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Logs the refusal, and returns a response with another body made of its message.
    pub(in crate::inbound) fn into_response_with(self, body: impl FnOnce(&str) -> String) -> Response {
        let RefusalText { kind, message, headers, .. } = *self.0;
        log(kind, &message);
        let mut response = Response::new(Body::from(body(&message)));
        *response.status_mut() = kind.status();
        response.headers_mut().extend(headers);
        response
    }

    /// The refusal as one GraphQL error, for use without an HTTP response. Logged once.
    pub fn into_json(self) -> Value {
        self.0.into_json()
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }
}

impl RefusalText {
    fn into_json(self) -> Value {
        let Self { kind, message, locations, mut extensions, headers: _ } = self;
        log(kind, &message);
        extensions.insert("code".to_owned(), kind.code().into());
        let mut error = json!({ "message": message });
        if !locations.is_empty() {
            let locations = locations.iter().map(|at| json!({ "line": at.line, "column": at.column }));
            error["locations"] = locations.collect();
        }
        error["extensions"] = Value::Object(extensions);
        error
    }
}

/// For resolvers: the same code and members in an execution error.
impl From<HttpRefusal> for async_graphql::Error {
    fn from(refusal: HttpRefusal) -> Self {
        let RefusalText { kind, message, extensions, .. } = *refusal.0;
        let mut values = async_graphql::ErrorExtensionValues::default();
        for (name, value) in extensions {
            values.set(name, async_graphql::Value::from_json(value).unwrap_or_default());
        }
        values.set("code", kind.code());
        meters::error(kind.code());
        let mut error = Self::new(message);
        error.extensions = Some(values);
        error
    }
}

/// Logs the refusal once, and returns its response.
impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        let mut refusal = self.0;
        let (kind, headers) = (refusal.kind, std::mem::take(&mut refusal.headers));
        let mut response = Response::new(Body::from(json!({ "errors": [refusal.into_json()] }).to_string()));
        *response.status_mut() = kind.status();
        response.headers_mut().insert(header::CONTENT_TYPE, GRAPHQL_RESPONSE);
        response.headers_mut().extend(headers);
        response
    }
}

/// Logs a refusal, at the level of its kind.
pub(in crate::inbound) fn log(kind: RefusalKind, reason: &str) {
    let (status, code) = (kind.status().as_u16(), kind.code());
    meters::error(code);
    match kind.level() {
        Level::ERROR => tracing::error!(status, code, reason, "request refused"),
        Level::WARN => tracing::warn!(status, code, reason, "request refused"),
        Level::INFO => tracing::info!(status, code, reason, "request refused"),
        _ => tracing::debug!(status, code, reason, "request refused"),
    }
}

/// Shortens a message that quotes too much of the client's input.
pub(in crate::inbound) fn shortened(message: Cow<'static, str>) -> Cow<'static, str> {
    match message.char_indices().nth(MESSAGE_CHARS) {
        None => message,
        Some(_) => message.chars().take(MESSAGE_CHARS).chain(['…']).collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn refusal_by_a_job_problem_has_the_code_of_the_problem() {
        for code in ProblemCode::ALL {
            assert_eq!(RefusalKind::Problem(code).code(), code.name());
        }
    }

    #[test]
    fn job_problem_maps_to_an_error_other_than_401_and_403() {
        for code in ProblemCode::ALL {
            let status = RefusalKind::Problem(code).status().as_u16();
            assert!(status >= 400 && status != 401 && status != 403, "{code:?}");
        }
    }

    #[test]
    fn only_a_problem_for_the_operator_is_logged_as_an_error() {
        for code in ProblemCode::ALL {
            let kind = RefusalKind::Problem(code);
            let someone_must_act = matches!(
                code,
                ProblemCode::CredentialRejected | ProblemCode::Unconfigured | ProblemCode::Internal
            );
            assert_eq!(kind.level() == Level::ERROR, someone_must_act, "{code:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_a_graphql_response_without_data() {
        let refusal = HttpRefusal::new(RefusalKind::BadInput, "é".repeat(MESSAGE_CHARS + 1))
            .at([Pos { line: 1, column: 2 }]);
        let response = refusal.with("field", "n").into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::CONTENT_TYPE]),
            (422, &GRAPHQL_RESPONSE)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = json!({ "errors": [{
            "message": "é".repeat(MESSAGE_CHARS) + "…",
            "locations": [{ "line": 1, "column": 2 }],
            "extensions": { "field": "n", "code": "BAD_USER_INPUT" },
        }] });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }
}
