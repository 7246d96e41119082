//! All layers around every route, with the reason above each. Not here: the checks of a single route (authentication,
//! media types, documents).

use std::any::Any;
use std::future::ready;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, NotForContentType, Predicate as _, SizeAbove};
use tracing::Instrument as _;

use super::access_log::AccessLogRequest;
use super::body_limit;
use super::concurrency_limit::ConcurrencyLimit;
use super::cors;
use super::deadline;
use super::error::{HttpRefusal, RefusalKind};
use super::fixed_headers;
use super::host;
use super::load_shed::LoadShed;
use super::min_rate_body::BodyRate;
use super::origins::Origins;
use super::peer::TrustedProxies;
use super::refusal_form::refuse;
use super::request_facts::RequestFacts;
use super::request_id;
use super::request_metrics::RequestTimer;
use super::request_span;
use super::route::Route;
use crate::config::AccessLog;
use crate::inbound::auth::bad_credentials::{BadCredentials, PresentedCredential};
use crate::telemetry::log::RequestScope;
use crate::telemetry::trace::{self, RequestTrace};

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

/// The smallest answer that is compressed, in bytes: a smaller one fits in one packet anyway.
const COMPRESSED_FROM: u16 = 1024;

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

/// Adds the layers to all routes and the fallback of a router.
pub fn around(routes: Router, settings: &LayerSettings) -> Router {
    Layers::new(settings, LiveSettings::new(settings)).around_all(routes)
}

/// The layers of a listener. A clone is cheap and shares their limits.
///
/// All of them are one function: with one middleware each, every request would clone the services below each layer, and
/// allocate a future for it.
#[derive(Clone)]
pub(in crate::inbound) struct Layers(Arc<LayerState>);

struct LayerState {
    settings: LayerSettings,
    live: LiveSettings,
    load_shed: LoadShed,
    compression: CompressionLayer<Compressible>,
}

impl Layers {
    /// The layers with these settings, and those that a reload can change.
    pub(in crate::inbound) fn new(settings: &LayerSettings, live: LiveSettings) -> Self {
        let load_shed = LoadShed::new(settings.concurrency.clone(), settings.retry_after);
        Self(Arc::new(LayerState { settings: settings.clone(), live, load_shed, compression: compression() }))
    }

    /// Adds them to all routes and the fallback of a router.
    pub(in crate::inbound) fn around_all(self, routes: Router) -> Router {
        let all = async |State(layers): State<Self>, mut request: Request, next: Next| {
            let facts = RequestFacts::of(request.extensions_mut());
            layers.around(Route::of(&request), request, &facts, |request| next.run(request)).await
        };
        routes.layer(from_fn_with_state(self, all))
    }

    /// Runs every layer around the handler of a request, the first outermost. Only what must be around a future is: the
    /// rest is done before and after it, so that the future stays small.
    pub(in crate::inbound) async fn around<F: Future<Output = Response>>(
        &self,
        route: Option<Route>,
        mut request: Request,
        facts: &RequestFacts,
        handler: impl FnOnce(Request) -> F,
    ) -> Response {
        let layers = &*self.0;
        // around all layers that can reject a request, so that refusals are counted as well
        let timer = RequestTimer::start(route, &request);
        // before anything can fail, so that a failure can be found by its id
        let id = request_id::of(&request);
        let scope = RequestScope::of(id.clone());
        // around everything that takes time or logs
        let trace = request_span::of(route, &request);
        // next: the line about a request contains its outcome, whichever layer rejected it
        let which = layers.settings.access_log;
        let (scope, trace) = (&scope, &trace);
        let log = AccessLogRequest { which, timer: &timer, route, scope, trace, facts };
        let line = log.begin();
        let passed = scope.within(|| trace.in_scope(|| layers.before(route, &mut request, facts)));
        let response = match passed {
            ControlFlow::Break(response) => response,
            ControlFlow::Continue(passed) => {
                let running = layers.run(timer.began(), route, passed, handler(request));
                match trace {
                    RequestTrace::Off => scope.clone().hold(running).await,
                    RequestTrace::Dropped(span) => scope.clone().hold(span.hold(running)).await,
                    RequestTrace::Sampled(span) => scope.clone().hold(running.instrument(span.clone())).await,
                }
            }
        };
        let mut response = log.answered(line, response);
        trace.answered(response.status());
        fixed_headers::complete(response.headers_mut(), id, layers.settings.tls);
        timer.count(&response);
        response
    }
}

/// Which answers are compressed: large ones, but never a stream, of which each event is sent at once.
type Compressible = And<And<SizeAbove, NotForContentType>, NotForContentType>;

fn compressible() -> Compressible {
    SizeAbove::new(COMPRESSED_FROM)
        .and(NotForContentType::const_new("text/event-stream"))
        .and(NotForContentType::const_new("multipart/mixed"))
}

fn compression() -> CompressionLayer<Compressible> {
    // the cheapest level has most of the effect on JSON
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressible())
}

/// A request that passed the layers before its handler: what it holds while it runs, and what the layers after it need.
struct PassedRequest<'a> {
    _permit: SemaphorePermit<'a>,
    origin: Option<HeaderValue>,
    presented: PresentedCredential,
    encodings: AcceptedEncodings,
}

impl LayerState {
    /// The layers before the handler, the first outermost. Breaks with the response to a request that one of them rejects or
    /// answers.
    fn before(
        &self,
        route: Option<Route>,
        request: &mut Request,
        facts: &RequestFacts,
    ) -> ControlFlow<Response, PassedRequest<'_>> {
        let Self { settings, live, load_shed, .. } = self;
        // before every layer that reads the peer
        if let Err(refusal) = locate(&live.proxies.load(), request, facts) {
            return ControlFlow::Break(refuse(route, refusal));
        }
        // outside of all layers that can reject a request, so that a page may read why; before anything is read or run
        if let Err(refusal) = cors::check(&live.origins.load(), settings.open, route, request, facts) {
            return ControlFlow::Break(cors::done(refuse(route, refusal), None));
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        if origin.is_some() && cors::is_preflight(request) {
            return ControlFlow::Break(cors::done(cors::permission(request.headers()), origin));
        }
        // before any work is done or body read; rejected at once, since a queue would only add waiting
        let permit = load_shed.admit();
        // innermost, around the body that the routes read
        let bound = |permit| body_limit::bound(settings.max_body, settings.pace, request).map(|()| permit);
        match permit.and_then(bound) {
            Err(refusal) => ControlFlow::Break(cors::done(refuse(route, refusal), origin)),
            Ok(permit) => ControlFlow::Continue(PassedRequest {
                _permit: permit,
                origin,
                presented: PresentedCredential::of(request, facts),
                encodings: AcceptedEncodings::of(request.headers()),
            }),
        }
    }

    /// The handler of a request that began then, and the layers after it, the innermost first.
    async fn run(
        &self,
        began: Instant,
        route: Option<Route>,
        passed: PassedRequest<'_>,
        handler: impl Future<Output = Response>,
    ) -> Response {
        let PassedRequest { _permit, origin, presented, encodings } = passed;
        let limited = async {
            // inside the load shedding, so that a request that hangs releases its permit
            let response = deadline::in_time(began, self.settings.deadline, handler).await;
            let mut response = response.unwrap_or_else(|refusal| refuse(route, refusal));
            // inside the access log, so that it has the bytes that are sent
            if compressible().should_compress(&response) {
                if encodings.is_some() {
                    response = self.compressed(encodings, response).boxed().await;
                } else if !varies_by_encoding(&response) {
                    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
                }
            }
            // around the authentication, whose 401 it counts
            let limited = presented.limit(&self.live.bad_credentials, response);
            limited.unwrap_or_else(|refusal| refuse(route, refusal))
        };
        // a bug in one request becomes its 500, not an aborted connection
        let response = AssertUnwindSafe(limited).catch_unwind().await.unwrap_or_else(panicked);
        cors::done(response, origin)
    }

    /// Compresses a response by one of the encodings that its request accepts.
    async fn compressed(&self, encodings: AcceptedEncodings, response: Response) -> Response {
        let mut request = http::Request::new(());
        for encoding in encodings.first.into_iter().chain(encodings.others) {
            request.headers_mut().append(header::ACCEPT_ENCODING, encoding);
        }
        let mut response = Some(response);
        let answer = service_fn(move |_| ready(response.take().ok_or(())));
        match self.compression.layer(answer).oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(()) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// The values of `Accept-Encoding` of a request: nearly always one.
struct AcceptedEncodings {
    first: Option<HeaderValue>,
    others: Vec<HeaderValue>,
}

impl AcceptedEncodings {
    fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(header::ACCEPT_ENCODING).iter().cloned();
        Self { first: sent.next(), others: sent.collect() }
    }

    const fn is_some(&self) -> bool {
        self.first.is_some()
    }
}

/// Whether a response says already that it depends on the encodings that the client accepts.
fn varies_by_encoding(response: &Response) -> bool {
    let mut lists = response.headers().get_all(header::VARY).iter().filter_map(|list| list.to_str().ok());
    lists.any(|list| list.split(',').any(|name| name.trim().eq_ignore_ascii_case("accept-encoding")))
}

/// The payload of a panic can quote data, so only the panic hook uses it.
fn panicked(_payload: Box<dyn Any + Send>) -> Response {
    HttpRefusal::new(RefusalKind::Internal, "internal error; the log has the details under this x-request-id")
        .into_response()
}

/// Determines the host and the peer of a request.
fn locate(proxies: &TrustedProxies, request: &mut Request, facts: &RequestFacts) -> Result<(), HttpRefusal> {
    if let Some(connection) = facts.connection() {
        let peer = connection.peer;
        host::settle(request)?;
        let peer = proxies.peer(peer, request.headers());
        trace::sent_securely(peer.secure == Some(true));
        facts.set_peer(peer);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
