//! Which path opens on what.

use crate::jobs::Jobs;
use axum::Router;
use axum::response::IntoResponse as _;

use super::client_limits::ClientLimits;
use super::error::{Kind, Refusal};
use super::graphql::http::Door;
use super::layers::{self, Settings};
use super::{page, rest};

/// The public door.
pub fn public(door: Door, jobs: Jobs, clients: ClientLimits, settings: Settings) -> Router {
    let routes = Router::new()
        .route("/graphql", door.route())
        .merge(rest::router(jobs, clients))
        .merge(page::router())
        .fallback(async || {
            Refusal::new(
                Kind::NoSuchPath,
                "there is nothing at this path; the gateway answers at /, /graphql and /v1/jobs",
            )
            .into_response()
        });
    layers::around(routes, settings)
}
