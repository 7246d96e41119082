//! All layers around every route, with the reason above each. Not here: the checks of a single route (authentication,
//! media types, documents).

use std::any::Any;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body_util::Limited;
use tokio::time::Instant;
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::access_log;
use super::cors;
use super::error::{HttpRefusal, RefusalKind};
use super::host;
use super::min_rate_body::{BodyRate, MinRateBody};
use super::origins::Origins;
use super::peer::{ConnectionPeer, Peer, TrustedProxies};
use super::request_span;
use crate::config::AccessLog;
use crate::inbound::admin::metrics;
use crate::inbound::admin::probes::ConcurrencyLimit;
use crate::inbound::auth::bad_credentials::BadCredentials;

/// The header with the id of a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// The longest request id that is accepted from the client.
const REQUEST_ID_BYTES: usize = 64;

/// The retry delay for a client whose request exceeded its deadline.
const AGAIN: Duration = Duration::from_secs(1);
/// The shortest interval of the log lines about rejected requests.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The settings of the layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSettings {
    /// The longest request body, in bytes.
    pub max_body: usize,
    /// The minimum rate of a body.
    pub pace: BodyRate,
    /// The time until the response of a request must start.
    pub deadline: Duration,
    /// Concurrent requests.
    pub concurrency: ConcurrencyLimit,
    /// The retry delay for a client that is rejected.
    pub retry_after: Duration,
    /// The origins of pages that may call.
    pub origins: Origins,
    /// Whether no clients are configured, so that every caller may read everything.
    pub open: bool,
    /// The proxies that are trusted about the origin of a request.
    pub proxies: TrustedProxies,
    /// The limit of rejected credentials of one address in a minute.
    pub bad_credentials: u32,
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Whether the listener uses TLS, so that browsers should not use plain HTTP again.
    pub tls: bool,
}

/// Makes browsers use `https` only, for a year.
const TRANSPORT_SECURITY: &str = "max-age=31536000";

impl Default for LayerSettings {
    fn default() -> Self {
        Self {
            max_body: 256 * 1024,
            pace: BodyRate::default(),
            deadline: Duration::from_secs(30),
            concurrency: ConcurrencyLimit::new(1024),
            retry_after: Duration::from_secs(1),
            origins: Origins::default(),
            open: false,
            proxies: TrustedProxies::default(),
            bad_credentials: 30,
            access_log: AccessLog::Errors,
            tls: false,
        }
    }
}

/// The settings of the layers that a reload can change. A clone is cheap and shares them.
#[derive(Clone, Debug)]
pub struct LiveSettings {
    origins: Arc<ArcSwap<Origins>>,
    proxies: Arc<ArcSwap<TrustedProxies>>,
    bad_credentials: BadCredentials,
}

impl LiveSettings {
    /// As the settings have it.
    pub fn new(settings: &LayerSettings) -> Self {
        Self {
            origins: Arc::new(ArcSwap::from_pointee(settings.origins.clone())),
            proxies: Arc::new(ArcSwap::from_pointee(settings.proxies.clone())),
            bad_credentials: BadCredentials::new(settings.bad_credentials),
        }
    }

    /// Applies other origins, other proxies, and another limit of bad credentials.
    pub fn put(&self, origins: Origins, proxies: TrustedProxies, bad_credentials: u32) {
        self.origins.store(Arc::new(origins));
        self.proxies.store(Arc::new(proxies));
        self.bad_credentials.set(bad_credentials);
    }
}

/// The id of a request, as an extension of it: the client's own if it is harmless, else a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub HeaderValue);

/// Adds the layers to all routes and the fallback of a router. The first is the outermost.
pub fn around(routes: Router, settings: &LayerSettings) -> Router {
    around_live(routes, settings, LiveSettings::new(settings))
}

/// The same, with the settings that a reload can change.
pub fn around_live(routes: Router, settings: &LayerSettings, live: LiveSettings) -> Router {
    let load_shed = Arc::new(LoadShed {
        concurrency: settings.concurrency.clone(),
        retry_after: settings.retry_after,
        last_logged: Mutex::default(),
    });
    let secure = settings.tls.then(|| fixed(header::STRICT_TRANSPORT_SECURITY, TRANSPORT_SECURITY));
    routes.layer(
        ServiceBuilder::new()
            // outermost, so that every response has them, also those of the layers below
            .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
            // an answer is data: it may load nothing, and not be framed. The live page sets its own
            .layer(fixed(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"))
            // no other site may embed an answer as an image or a script
            .layer(fixed(CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"))
            .layer(option_layer(secure))
            // answers depend on the client and the time: no cache may store one
            .layer(fixed(header::CACHE_CONTROL, "no-store"))
            // around all layers that can reject a request, so that refusals are counted as well
            .layer(from_fn(metrics::count))
            // before anything can fail, so that a failure can be found by its id
            .layer(from_fn(name))
            // next: the line about a request contains its outcome, whichever layer rejected it
            .layer(from_fn_with_state(settings.access_log, access_log::write))
            // around everything that takes time or logs
            .layer(from_fn(request_span::request))
            // before every layer that reads the peer
            .layer(from_fn_with_state(live.proxies, locate))
            // outside of all layers that can reject a request, so that a page may read why; before anything is read or
            // run
            .layer(from_fn_with_state((live.origins, settings.open), cors::guard))
            // a bug in one request becomes its 500, not an aborted connection
            .layer(CatchPanicLayer::custom(panicked))
            // before any work is done or body read; rejected at once, since a queue would only add waiting
            .layer(from_fn_with_state(load_shed, shed))
            // around the authentication, whose 401 it counts
            .layer(from_fn_with_state(live.bad_credentials, count_bad_credentials))
            // inside the load shedding, so that a request that hangs releases its permit
            .layer(from_fn_with_state(settings.deadline, in_time))
            // innermost, around the body that the routes read
            .layer(from_fn_with_state((settings.max_body, settings.pace), bounded)),
    )
}

/// A header that a route may override.
fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

async fn name(mut request: Request, next: Next) -> Response {
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

/// The payload of a panic can quote data, so only the panic hook uses it.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    HttpRefusal::new(RefusalKind::Internal, "internal error; the log has the details under this x-request-id")
        .into_response()
}

/// A refusal in the form of the handler of a path: problem details for plain REST, else GraphQL.
pub(in crate::inbound) fn refuse(path: &str, refusal: HttpRefusal) -> Response {
    in_form(is_plain(path), refusal)
}

fn is_plain(path: &str) -> bool {
    path.starts_with("/v1/")
}

fn in_form(plain: bool, refusal: HttpRefusal) -> Response {
    if plain { refusal.into_problem() } else { refusal.into_response() }
}

/// Adds the peer of a request as an extension, and determines its host.
async fn locate(
    State(proxies): State<Arc<ArcSwap<TrustedProxies>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(connection) = request.extensions().get::<ConnectionPeer>().copied() {
        if let Err(refusal) = host::settle(&mut request) {
            return refuse(request.uri().path(), refusal);
        }
        let peer = proxies.load().peer(connection, request.headers());
        request.extensions_mut().insert(peer);
    }
    next.run(request).await
}

/// Responds with 429 instead of 401 to an address that keeps presenting bad credentials.
async fn count_bad_credentials(State(bad): State<BadCredentials>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
    let presented = request.headers().contains_key(header::AUTHORIZATION);
    let plain = is_plain(request.uri().path());
    let response = next.run(request).await;
    let Some(peer) = peer.filter(|_| presented && response.status() == StatusCode::UNAUTHORIZED) else {
        return response;
    };
    match bad.count(peer) {
        Ok(()) => {
            tracing::info!(%peer, "invalid credential");
            response
        }
        Err(wait) => {
            let message =
                "too many failed authentication attempts from this address; check the key, and retry later";
            in_form(plain, HttpRefusal::new(RefusalKind::TooManyRequests, message).retry_after(wait))
        }
    }
}

/// The limit of concurrent requests, and the time of the last log line about rejected ones.
struct LoadShed {
    concurrency: ConcurrencyLimit,
    retry_after: Duration,
    last_logged: Mutex<LastLogged>,
}

#[derive(Default)]
struct LastLogged {
    last: Option<Instant>,
    suppressed: u64,
}

impl LoadShed {
    /// Counts a rejected request, and returns the number to log, if a line is due.
    fn shed_request(&self) -> Option<u64> {
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        last_logged.suppressed += 1;
        if last_logged.last.is_some_and(|last| last.elapsed() < WARN_EVERY) {
            return None;
        }
        last_logged.last = Some(Instant::now());
        Some(mem::take(&mut last_logged.suppressed))
    }
}

async fn shed(State(load_shed): State<Arc<LoadShed>>, request: Request, next: Next) -> Response {
    if let Ok(_permit) = load_shed.concurrency.semaphore().try_acquire() {
        return next.run(request).await;
    }
    if let Some(requests) = load_shed.shed_request() {
        tracing::warn!(requests, "requests rejected; server.max_requests is reached");
    }
    let message = "the gateway is at its limit of concurrent requests; retry later";
    refuse(request.uri().path(), HttpRefusal::overloaded(load_shed.retry_after, message))
}

async fn in_time(State(deadline): State<Duration>, request: Request, next: Next) -> Response {
    let plain = is_plain(request.uri().path());
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => in_form(
            plain,
            HttpRefusal::new(
                RefusalKind::DeadlineExceeded,
                format!("no response within {deadline:?}; request fewer jobs at a time, or retry later"),
            )
            .retry_after(AGAIN),
        ),
    }
}

async fn bounded(
    State((max_body, pace)): State<(usize, BodyRate)>,
    request: Request,
    next: Next,
) -> Response {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max_body as u64) {
        return refuse(request.uri().path(), body_too_large(Some(max_body)));
    }
    next.run(request.map(|body| Body::new(MinRateBody::new(Body::new(Limited::new(body, max_body)), pace))))
        .await
}

/// The refusal of a body that is longer than the limit, whether announced or found while reading.
pub(in crate::inbound) fn body_too_large(limit: Option<usize>) -> HttpRefusal {
    let refusal = HttpRefusal::new(
        RefusalKind::BodyTooLarge,
        "the body exceeds the size limit; send fewer refs or a shorter document",
    );
    match limit {
        Some(limit) => refusal.with("limit", "max_body").with("value", limit),
        None => refusal,
    }
}

#[cfg(test)]
mod tests;
