//! What pages of other sites may do: the one check of `Origin`, before anything is read or run, and the CORS headers
//! for those that may. A credential is sent in a header that no browser adds by itself, so cookies are never allowed.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::error::{HttpRefusal, RefusalKind};
use super::fixed_headers::VARY_ORIGIN;
use super::origins::Origins;
use super::request_facts::RequestFacts;
use super::route::{self, Route};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The methods that an allowed page may use.
const METHODS: HeaderValue = HeaderValue::from_static(route::METHODS);
/// The headers that a page may send if its browser names none.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "accept, apollo-require-preflight, apollographql-client-name, apollographql-client-version, authorization, \
     content-type, if-none-match, last-event-id, prefer, traceparent, tracestate, x-request-id",
);
/// The longest list of requested headers that is allowed unchanged.
const HEADERS_BYTES: usize = 4096;
/// The headers that a page may read beyond the defaults.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("allow, etag, preference-applied, retry-after, www-authenticate, x-request-id");
/// The request header that the permission depends on, beside the origin.
const ASKED: HeaderValue = HeaderValue::from_static("access-control-request-headers");
/// For how many seconds a browser may cache the permission.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Checks that the page that sends a request may do so.
///
/// With `open`, where no clients are configured, the host name is checked by the rule of the origins as well.
///
/// # Errors
/// When its origin is not allowed.
pub(super) fn check(
    origins: &Origins,
    open: bool,
    route: Option<Route>,
    request: &Request,
    facts: &RequestFacts,
) -> Result<(), HttpRefusal> {
    let headers = request.headers();
    origins.check(headers, facts.secure())?;
    same_site(route, headers, request.method())?;
    if open { origins.check_host(headers) } else { Ok(()) }
}

/// Applies the same rule to requests that a browser sends without an origin: an image, a script, a form by GET. A
/// person may still follow a link to a page.
fn same_site(route: Option<Route>, headers: &HeaderMap, method: &Method) -> Result<(), HttpRefusal> {
    let foreign = headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
    let runs_something = route.is_some_and(Route::is_api);
    let link = *method == Method::GET && headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate");
    if !foreign || headers.contains_key(header::ORIGIN) || (link && !runs_something) {
        return Ok(());
    }
    let message = "cross-site request without an origin header; send it with fetch, from an origin \
        that server.allowed_origins lists";
    Err(HttpRefusal::new(RefusalKind::OriginNotAllowed, message))
}

/// Whether a browser asks for permission before its request.
pub(super) fn is_preflight(request: &Request) -> bool {
    request.headers().contains_key(header::ORIGIN)
        && request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Permits an allowed page every header that it requests: monitoring scripts add their own, and none of them grants
/// more.
pub(super) fn permission(headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().append(header::VARY, ASKED);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, requested(headers).unwrap_or(HEADERS)),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The headers that a browser requests, if they are a list of names of a reasonable length.
fn requested(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lists = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let (list, None) = (lists.next()?, lists.next()) else { return None };
    let is_name = |name: &str| HeaderName::from_bytes(name.trim().as_bytes()).is_ok();
    let names = list.to_str().ok().filter(|names| names.len() <= HEADERS_BYTES)?;
    names.split(',').all(is_name).then(|| list.clone())
}

/// Completes a response: it depends on the origin, and the page of an origin that was checked may read it.
pub(super) fn done(mut response: Response, origin: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    if headers.get(header::VARY) != Some(&VARY_ORIGIN) {
        headers.append(header::VARY, VARY_ORIGIN);
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}
