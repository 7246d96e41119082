//! The headers of every response, also of those that a layer rejects. A route may override them.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::request_id::REQUEST_ID;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Makes browsers use `https` only, for a year.
const TRANSPORT_SECURITY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Every response depends on the origin, also one to a request without any.
pub(super) const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("origin");

/// The fixed headers and, empty, those that each response sets: a map grows with nearly each insertion, and hashes each
/// name.
static FIXED: LazyLock<HeaderMap> = LazyLock::new(|| {
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // an answer is data: it may load nothing, and not be framed. The live page sets its own
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        ),
        // no other site may embed an answer as an image or a script
        (CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
        // answers depend on the client and the time: no cache may store one
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, VARY_ORIGIN),
    ];
    let set_by_each = [header::CONTENT_TYPE, REQUEST_ID].map(|name| (name, HeaderValue::from_static("")));
    fixed.into_iter().chain(set_by_each).collect()
});

/// The headers of a response of this content type, to which a route may add its own: cheaper than to add the fixed ones to
/// those of the route.
pub(in crate::inbound) fn with_content_type(content_type: HeaderValue) -> HeaderMap {
    let mut headers = FIXED.clone();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers
}

/// Adds the fixed headers that a response does not have, and its request id. `tls`: whether the listener uses TLS, so that
/// browsers should not use plain HTTP again.
pub(super) fn complete(headers: &mut HeaderMap, id: HeaderValue, tls: bool) {
    // only a copy of the fixed ones has the place of the id
    if let Some(place) = headers.get_mut(REQUEST_ID) {
        *place = id;
    } else {
        let set_by_route = std::mem::replace(headers, FIXED.clone());
        headers.extend(set_by_route);
        if headers.get(header::CONTENT_TYPE).is_some_and(HeaderValue::is_empty) {
            headers.remove(header::CONTENT_TYPE);
        }
        headers.insert(REQUEST_ID, id);
    }
    // without a place, since most listeners are behind a proxy, and to remove it would take as long
    if tls {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(TRANSPORT_SECURITY);
    }
}
