//! The id of a request, in both directions: the client's own if it is harmless, else a new one.

use axum::extract::Request;
use http::{HeaderName, HeaderValue};

/// The header with the id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is accepted from the client.
const REQUEST_ID_BYTES: usize = 64;

/// The id of a request: the client's own, or a new one.
pub(super) fn of(request: &Request) -> HeaderValue {
    match request.headers().get(REQUEST_ID) {
        Some(given) if harmless(given) => given.clone(),
        _ => fresh_id(),
    }
}

/// A value that may be logged and returned to the client: short, and only letters, digits, `-`, `_` and `.`.
fn harmless(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(plain)
}

fn fresh_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = [0; 2 * size_of::<u128>()];
    for (pair, byte) in id.chunks_exact_mut(2).zip(fastrand::u128(..).to_be_bytes()) {
        pair.copy_from_slice(&[byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]));
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
