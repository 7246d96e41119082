//! The routes of the public listener.

use axum::Router;
use axum::response::IntoResponse as _;

use super::client_limits::ClientLimits;
use super::graphql;
use super::graphql::execution::endpoint::GraphqlEndpoint;
use super::http::error::{HttpRefusal, RefusalKind};
use super::http::layers::{self, LayerSettings, LiveSettings};
use super::http::route::Route;
use super::{page, rest};
use crate::jobs::Jobs;

/// The router of the public listener.
pub fn public(
    endpoint: GraphqlEndpoint,
    jobs: Jobs,
    clients: ClientLimits,
    settings: &LayerSettings,
) -> Router {
    public_live(endpoint, jobs, clients, settings, LiveSettings::new(settings))
}

/// The same, with the settings that a reload can change.
pub fn public_live(
    endpoint: GraphqlEndpoint,
    jobs: Jobs,
    clients: ClientLimits,
    settings: &LayerSettings,
    live: LiveSettings,
) -> Router {
    let no_such_path = async || {
        HttpRefusal::new(RefusalKind::NoSuchPath, "not found; the gateway serves /, /graphql and /v1/jobs")
            .into_response()
    };
    let rest = rest::router(jobs, clients, endpoint.memory().clone());
    let graphql = graphql::transport::http::route(endpoint);
    let routes = Router::new().merge(rest).merge(page::router()).fallback(no_such_path);
    let routes = Route::Graphql.patterns().fold(routes, |routes, path| routes.route(path, graphql.clone()));
    layers::around_live(routes, settings, live)
}
