//! The admin listener: probes, metrics, status and log level, for operators and their tools. Not here: anything that a
//! client may call.

mod log_level;
pub mod metrics;
mod probes;
pub mod readiness;
mod source_labels;
pub mod status;

use axum::Router;
use axum::routing::get;
use http::HeaderMap;

use metrics::MetricsEndpoint;
use readiness::Readiness;
use status::StatusEndpoint;

/// The router of the admin listener: `/livez`, `/readyz`, `/metrics`, `/status` and `/log-level`.
pub fn router(readiness: Readiness, metrics: MetricsEndpoint, status: StatusEndpoint) -> Router {
    Router::new()
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(metrics.answer(&headers))))
        .merge(probes::router(readiness, status.jobs.clone()))
        .merge(status::router(status))
        .merge(log_level::router())
}
