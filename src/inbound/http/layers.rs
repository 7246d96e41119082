//! All layers around every route, with the reason above each. Not here: the checks of a single route (authentication,
//! media types, documents).

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, header};
use tower::ServiceBuilder;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

use super::access_log;
use super::body_limit;
use super::concurrency_limit::ConcurrencyLimit;
use super::cors;
use super::deadline;
use super::error::{HttpRefusal, RefusalKind};
use super::host;
use super::load_shed::{self, LoadShed};
use super::min_rate_body::BodyRate;
use super::origins::Origins;
use super::peer::{ConnectionPeer, TrustedProxies};
use super::refusal_form::refuse;
use super::request_id;
use super::request_metrics;
use super::request_span;
use super::route::Route;
use crate::config::AccessLog;
use crate::inbound::auth::bad_credentials::{BadCredentials, limit_bad_credentials};
use crate::telemetry::trace;

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

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
            bad_credentials: BadCredentials::default(),
        }
    }

    /// Applies other origins and other proxies.
    pub fn put(&self, origins: Origins, proxies: TrustedProxies) {
        self.origins.store(Arc::new(origins));
        self.proxies.store(Arc::new(proxies));
    }
}

/// Adds the layers to all routes and the fallback of a router. The first is the outermost.
pub fn around(routes: Router, settings: &LayerSettings) -> Router {
    around_live(routes, settings, LiveSettings::new(settings))
}

/// The same, with the settings that a reload can change.
pub fn around_live(routes: Router, settings: &LayerSettings, live: LiveSettings) -> Router {
    let load_shed = Arc::new(LoadShed::new(settings.concurrency.clone(), settings.retry_after));
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
            .layer(from_fn(request_metrics::count))
            // before anything can fail, so that a failure can be found by its id
            .layer(from_fn(request_id::assign))
            // around everything that takes time or logs
            .layer(from_fn(request_span::request))
            // next: the line about a request contains its outcome, whichever layer rejected it
            .layer(from_fn_with_state(settings.access_log, access_log::write))
            // before every layer that reads the peer
            .layer(from_fn_with_state(live.proxies, locate))
            // outside of all layers that can reject a request, so that a page may read why; before anything is read or
            // run
            .layer(from_fn_with_state((live.origins, settings.open), cors::guard))
            // a bug in one request becomes its 500, not an aborted connection
            .layer(CatchPanicLayer::custom(panicked))
            // before any work is done or body read; rejected at once, since a queue would only add waiting
            .layer(from_fn_with_state(load_shed, load_shed::shed))
            // around the authentication, whose 401 it counts
            .layer(from_fn_with_state(live.bad_credentials, limit_bad_credentials))
            // inside the load shedding, so that a request that hangs releases its permit
            .layer(from_fn_with_state(settings.deadline, deadline::in_time))
            // innermost, around the body that the routes read
            .layer(from_fn_with_state((settings.max_body, settings.pace), body_limit::bounded)),
    )
}

/// A header that a route may override.
fn fixed(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

/// The payload of a panic can quote data, so only the panic hook uses it.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    HttpRefusal::new(RefusalKind::Internal, "internal error; the log has the details under this x-request-id")
        .into_response()
}

/// Adds the peer of a request as an extension, and determines its host.
async fn locate(
    State(proxies): State<Arc<ArcSwap<TrustedProxies>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(connection) = request.extensions().get::<ConnectionPeer>().copied() {
        if let Err(refusal) = host::settle(&mut request) {
            return refuse(Route::of(&request), refusal);
        }
        let peer = proxies.load().peer(connection, request.headers());
        trace::sent_securely(peer.secure == Some(true));
        request.extensions_mut().insert(peer);
    }
    next.run(request).await
}

#[cfg(test)]
mod tests;
