//! The routes of the public listener.

use crate::jobs::Jobs;
use axum::Router;
use axum::response::IntoResponse as _;

use super::client_limits::ClientLimits;
use super::graphql::transport::http::GraphqlEndpoint;
use super::http::error::{HttpRefusal, RefusalKind};
use super::http::layers;
use super::http::layers::{LayerSettings, LiveSettings};
use super::{page, rest};

/// Whether a path is that of GraphQL. Many clients add a trailing slash.
pub(super) fn is_graphql(path: &str) -> bool {
    matches!(path, "/graphql" | "/graphql/")
}

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
    let routes = Router::new()
        .merge(rest::router(jobs, clients, endpoint.memory().clone()))
        .route("/graphql", endpoint.clone().route())
        .route("/graphql/", endpoint.route())
        .merge(page::router())
        .fallback(async || {
            HttpRefusal::new(
                RefusalKind::NoSuchPath,
                "not found; the gateway serves /, /graphql and /v1/jobs",
            )
            .into_response()
        });
    layers::around_live(routes, settings, live)
}
