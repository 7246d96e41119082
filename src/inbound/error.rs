//! Why a request is refused: one closed list, and the one table from it to HTTP status,
//! `extensions.code` and log level. Nothing else in the house maps these.

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

/// Longest message a client is sent, in characters: messages can quote a document's own names.
const MESSAGE_CHARS: usize = 500;

/// The kinds of refusal. A new member does not compile until the table has its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The body or the URL cannot be read at all.
    Unreadable,
    /// It is read, and it is not a GraphQL-over-HTTP request.
    Malformed,
    /// The document is not GraphQL.
    DocumentUnparsable,
    /// The document does not fit the schema.
    DocumentInvalid,
    /// The document has more tokens or brackets than are read.
    DocumentTooLarge,
    /// The document asks for more than one request may.
    DocumentTooComplex,
    /// The answer is longer than one may be.
    AnswerTooLarge,
    /// No operation, or more than one, answers to the request.
    OperationUnresolved,
    /// A subscription was sent where one response is given.
    SubscriptionNeedsStream,
    /// A value that the client supplied does not fit.
    BadInput,
    /// The client presented no key, or none that is known.
    Unauthenticated,
    /// The token that the client presented was good.
    CredentialExpired,
    /// The token that the client presented may be good later.
    CredentialUnverified,
    /// The credential that was presented is good, and not for this.
    NotPermitted,
    /// A page of this origin may not call the gateway.
    OriginNotAllowed,
    /// An upgrade that is not one to `graphql-transport-ws`.
    BadUpgrade,
    /// The handshake of a WebSocket that does not ask for the upgrade, or for another version.
    UpgradeRequired,
    /// The client has as many operations under way as it may.
    TooManyOperations,
    /// The client, or the address it comes from, takes more than it may.
    TooManyRequests,
    /// Only documents that the operator listed are executed, and this is none of them.
    DocumentNotTrusted,
    /// No document is known by the id.
    DocumentUnknown,
    /// Documents are not known by ids here.
    DocumentIdsOff,
    /// Nothing is served at this path.
    NoSuchPath,
    /// The method, or this operation by this method.
    MethodNotAllowed,
    /// No media type that the client accepts is served.
    NotAcceptable,
    /// The client was too slow to send its request.
    RequestTimeout,
    /// The body is longer than the limit.
    BodyTooLarge,
    /// The body is not announced as UTF-8 JSON.
    UnsupportedMediaType,
    /// More requests are under way than are served at once.
    Overloaded,
    /// The answer did not come within the time a request may take.
    DeadlineExceeded,
    /// A fault of this gateway.
    Internal,
    /// A job is not answered for; data in GraphQL, a status where a door has no data.
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
            // a client in a hurry brings many of them, and a line for each would be load of its own
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
            // the layer that sheds warns for all of them at once; a line for each would be load of its own
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

    /// What `extensions.code` says.
    pub const fn code(self) -> &'static str {
        self.row().1
    }

    /// How loudly the log says it; `ERROR` means that someone must act.
    pub const fn level(self) -> Level {
        self.row().2
    }
}

/// A refused upstream credential is our operator's trouble, so it is never shown as 401.
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

/// One refusal: its kind, and what the client reads. Made only of our words and the client's own input.
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

    /// 401 where no bearer token was sent, with the challenge that RFC 9110 asks for.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::challenge(RefusalKind::Unauthenticated, message, "Bearer")
    }

    /// 401 where a bearer token was sent and is not good, with the challenge of RFC 6750.
    pub fn invalid_token(kind: RefusalKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::challenge(kind, message, "Bearer error=\"invalid_token\"")
    }

    fn challenge(kind: RefusalKind, message: impl Into<Cow<'static, str>>, challenge: &'static str) -> Self {
        Self::new(kind, message).with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 426, to a client that means a WebSocket.
    pub fn upgrade_required(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::UpgradeRequired, message)
            .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .with_header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
    }

    /// 405, with the methods that would do.
    pub fn method(allow: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::MethodNotAllowed, message)
            .with_header(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// 503, with when to come back; whole seconds, rounded up.
    pub fn overloaded(retry_after: Duration, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusalKind::Overloaded, message).retry_after(retry_after)
    }

    /// The same, with when to come back; whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000);
        let seconds = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
        self.with_header(header::RETRY_AFTER, seconds)
    }

    /// The same, pointing into the document.
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

    /// What the client reads.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Ends the refusal, with a body made of its message by another door: said in the log, with status and header.
    pub(super) fn into_response_with(self, body: impl FnOnce(&str) -> String) -> Response {
        let RefusalText { kind, message, headers, .. } = *self.0;
        log(kind, &message);
        let mut response = Response::new(Body::from(body(&message)));
        *response.status_mut() = kind.status();
        response.headers_mut().extend(headers);
        response
    }

    /// The refusal as one GraphQL error, where there is no HTTP response to put it in. Said once in the log.
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

/// The end of a refusal: said once in the log, and sent.
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

/// Says a refusal in the log, at its kind's level.
pub(super) fn log(kind: RefusalKind, reason: &str) {
    let (status, code) = (kind.status().as_u16(), kind.code());
    meters::error(code);
    match kind.level() {
        Level::ERROR => tracing::error!(status, code, reason, "request refused"),
        Level::WARN => tracing::warn!(status, code, reason, "request refused"),
        Level::INFO => tracing::info!(status, code, reason, "request refused"),
        _ => tracing::debug!(status, code, reason, "request refused"),
    }
}

/// Cuts a message that quotes too much of what the client sent.
pub(super) fn shortened(message: Cow<'static, str>) -> Cow<'static, str> {
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
    fn job_problem_keeps_its_code_and_never_maps_to_401_or_403() {
        for code in ProblemCode::ALL {
            let kind = RefusalKind::Problem(code);
            assert_eq!(kind.code(), code.name());
            assert!(
                kind.status() != 401 && kind.status() != 403 && kind.status().as_u16() >= 400,
                "{code:?}"
            );
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
