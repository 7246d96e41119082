//! Which path opens on what.

use crate::jobs::Jobs;
use axum::Router;
use axum::response::IntoResponse as _;

use super::client_limits::ClientLimits;
use super::error::{Kind, Refusal};
use super::graphql::http::Door;
use super::layers::{self, Live, Settings};
use super::{page, rest};

/// Whether a path leads to GraphQL. Many a client writes the slash.
pub(super) fn is_graphql(path: &str) -> bool {
    matches!(path, "/graphql" | "/graphql/")
}

/// The public door.
pub fn public(door: Door, jobs: Jobs, clients: ClientLimits, settings: &Settings) -> Router {
    public_live(door, jobs, clients, settings, Live::new(settings))
}

/// The same, with what can change under way.
pub fn public_live(door: Door, jobs: Jobs, clients: ClientLimits, settings: &Settings, live: Live) -> Router {
    let routes = Router::new()
        .merge(rest::router(jobs, clients, door.memory().clone()))
        .route("/graphql", door.clone().route())
        .route("/graphql/", door.route())
        .merge(page::router())
        .fallback(async || {
            Refusal::new(Kind::NoSuchPath, "not found; the gateway serves /, /graphql and /v1/jobs")
                .into_response()
        });
    layers::around_live(routes, settings, live)
}
