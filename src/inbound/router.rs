//! The routes of the public listener.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tower::Service;

use super::client_limits::ClientLimits;
use super::graphiql::{self, Explorer};
use super::graphql;
use super::graphql::execution::endpoint::GraphqlEndpoint;
use super::http::error::{HttpRefusal, RefusalKind};
use super::http::layers::{LayerSettings, Layers, LiveSettings};
use super::http::request_facts::RequestFacts;
use super::http::route::Route;
use super::page::{self, PageSettings};
use super::rest;
use crate::jobs::Jobs;

/// The routes of a listener: every request has a response.
pub trait Routes: Clone + Send + Sync + 'static {
    /// Serves a request of which these facts are known.
    fn serve(&self, request: Request, facts: RequestFacts) -> BoxFuture<'static, Response>;
}

impl Routes for Router {
    fn serve(&self, mut request: Request, facts: RequestFacts) -> BoxFuture<'static, Response> {
        request.extensions_mut().insert(facts);
        self.clone().call(request).map(|Ok(response)| response).boxed()
    }
}

/// The routes of the public listener, with the layers around them. A clone is cheap.
///
/// Most requests are GraphQL, so `/graphql` is matched here, and the router has all other paths: a route of a router
/// clones its services and moves the request several times.
#[derive(Clone)]
pub struct PublicRoutes(Arc<RouteState>);

struct RouteState {
    layers: Layers,
    endpoint: GraphqlEndpoint,
    others: Router,
}

/// The routes of the public listener.
pub fn public(
    endpoint: GraphqlEndpoint,
    jobs: Jobs,
    clients: ClientLimits,
    settings: &LayerSettings,
) -> PublicRoutes {
    let live = LiveSettings::new(settings);
    public_live(endpoint, jobs, clients, settings, live, PageSettings::default(), Explorer::Off)
}

/// The same, with the settings that a reload can change, and with an explorer.
pub fn public_live(
    endpoint: GraphqlEndpoint,
    jobs: Jobs,
    clients: ClientLimits,
    settings: &LayerSettings,
    live: LiveSettings,
    page: PageSettings,
    explorer: Explorer,
) -> PublicRoutes {
    let no_such_path = async || {
        HttpRefusal::new(
            RefusalKind::NoSuchPath,
            "not found; the gateway serves /, /graphiql, /graphql and /v1/jobs",
        )
        .into_response()
    };
    let rest = rest::router(jobs, clients, endpoint.memory().clone());
    let layers = Layers::new(settings, live);
    let others = Router::new()
        .merge(rest)
        .merge(page::router(page))
        .merge(graphiql::router(explorer))
        .fallback(no_such_path);
    let others = layers.clone().around_all(others);
    PublicRoutes(Arc::new(RouteState { layers, endpoint, others }))
}

/// A request without a listener. Of the listeners each calls [`Routes::serve`].
impl<B> Service<http::Request<B>> for PublicRoutes
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        self.serve(request.map(Body::new), RequestFacts::default()).map(Ok).boxed()
    }
}

impl Routes for PublicRoutes {
    fn serve(&self, request: Request, facts: RequestFacts) -> BoxFuture<'static, Response> {
        if !Route::Graphql.patterns().any(|pattern| pattern == request.uri().path()) {
            return self.0.others.serve(request, facts);
        }
        let state = Arc::clone(&self.0);
        async move {
            // boxed here, since each layer moves the future below it once or more
            let serve = |request| graphql::transport::http::serve(&state.endpoint, request, &facts).boxed();
            state.layers.around(Some(Route::Graphql), request, &facts, serve).await
        }
        .boxed()
    }
}

impl fmt::Debug for PublicRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicRoutes").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}
