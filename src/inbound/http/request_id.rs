//! The id of a request, in both directions: the client's own if it is harmless, else a new one.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

/// The header with the id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is accepted from the client.
const REQUEST_ID_BYTES: usize = 64;

/// The id of a request, as an extension of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestId(pub(super) HeaderValue);

/// The layer that assigns the id to the request, and returns it with the response.
pub(super) async fn assign(mut request: Request, next: Next) -> Response {
    let id = match request.headers().get(REQUEST_ID) {
        Some(given) if harmless(given) => given.clone(),
        _ => fresh_id(),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A value that may be logged and returned to the client: short, and only letters, digits, `-`, `_` and `.`.
fn harmless(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(plain)
}

fn fresh_id() -> HeaderValue {
    let id = format!("{:032x}", fastrand::u128(..));
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
