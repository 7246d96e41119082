//! Which path opens on what.

use axum::Router;
use axum::response::IntoResponse as _;
use secrecy::SecretString;

use crate::domain::principal::Principal;
use crate::jobs::Jobs;

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

/// Lets the use case say who is calling, and turns its refusal into one of this door.
pub fn authenticator(
    jobs: Jobs,
) -> impl Fn(Option<&SecretString>) -> Result<Principal, Refusal> + Send + Sync + 'static {
    move |presented| {
        jobs.authenticate(presented).map_err(|refusal| Refusal::unauthenticated(refusal.to_string()))
    }
}
