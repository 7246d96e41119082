//! The wire format of Apollo's multipart protocol for subscriptions
//! (<https://www.apollographql.com/docs/graphos/routing/operations/subscriptions/multipart-protocol>). No stream, no
//! timer.
//!
//! A client considers a part complete when it reads the boundary behind it, so each part is followed by one at once.

use bytes::Bytes;

/// The media type.
pub(super) const CONTENT_TYPE: &str = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\"";
/// The first boundary, sent at once so that proxies forward the headers.
pub(super) const OPEN: &[u8] = b"\r\n--graphql";
/// The keep-alive part.
pub(super) const HEARTBEAT: &[u8] = b"\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql";
/// Turns the last boundary into the closing one.
pub(super) const CLOSE: &[u8] = b"--\r\n";

const HEAD: &[u8] = b"\r\ncontent-type: application/json\r\n\r\n{\"payload\":";
const TAIL: &[u8] = b"}\r\n--graphql";

/// One answer.
pub(super) fn next(json: &[u8]) -> Bytes {
    [HEAD, json, TAIL].concat().into()
}

/// The end of a stream whose operation is not complete: the protocol's form for transport errors.
pub(super) fn cut(message: &str, code: &str) -> Bytes {
    let error = serde_json::json!([{ "message": message, "extensions": { "code": code } }]).to_string();
    [HEAD, b"null,\"errors\":", error.as_bytes(), TAIL, CLOSE].concat().into()
}
