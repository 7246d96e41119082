//! The wire format of GraphQL over Server-Sent Events, distinct connections mode
//! (<https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md>). Streams and timers are in `events`.

use bytes::Bytes;

/// The media type.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";
/// A comment, which clients skip: sent at once so that proxies forward the headers, and as a keep-alive.
pub(super) const COMMENT: &[u8] = b":\n\n";
/// The last event. Its data is an empty line, since an event without data is not dispatched by browsers.
pub(super) const COMPLETE: &[u8] = b"event: complete\ndata:\n\n";

/// One answer, with the id of its event if a client can resume behind it. JSON has line breaks only between its tokens, where a space is equivalent; here one would end the data.
pub(super) fn next(mut json: Vec<u8>, id: Option<&str>) -> Bytes {
    for byte in &mut json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    [b"event: next\n", id.as_bytes(), b"data: ", json.as_slice(), b"\n\n"].concat().into()
}
