//! The probes: liveness and readiness. Neither a failing upstream nor an unavailable Redis makes the gateway unready: its
//! cached answers would become unavailable as well.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;

use super::readiness::{Readiness, Traffic};
use crate::jobs::{Jobs, SharedStoreHealth};

/// `/livez` and `/readyz`.
pub(super) fn router(readiness: Readiness, jobs: Jobs) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move |readiness| std::future::ready(ready(&readiness, &jobs))))
        .with_state(readiness)
}

fn ready(State(readiness): &State<Readiness>, jobs: &Jobs) -> (StatusCode, String) {
    let traffic = readiness.traffic();
    let status = match traffic {
        Traffic::Ready => StatusCode::OK,
        Traffic::Starting | Traffic::Draining | Traffic::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n{}", traffic.word(), remarks(jobs)))
}

/// Further lines in the response to a readiness probe.
fn remarks(jobs: &Jobs) -> String {
    jobs.store_health().shared_store.map(|shared_store| remark(&shared_store)).unwrap_or_default()
}

fn remark(shared_store: &SharedStoreHealth) -> String {
    match shared_store.unavailable_for {
        None if shared_store.connected => format!("redis: available, {} replicas\n", shared_store.replicas),
        None => "redis: not connected\n".to_owned(),
        Some(away) => {
            format!("redis: unavailable for {} s; running standalone\n", away.as_secs())
        }
    }
}
