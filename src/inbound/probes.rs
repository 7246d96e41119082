//! The operators' door: is the process alive, may it receive traffic, and how do things stand. A sick upstream does not unready us: it
//! would take down the gateway's held answers with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderMap, StatusCode};

use super::metrics::Metrics;

/// Whether the process may receive traffic. A cheap clone; starts unready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says that traffic is welcome, or no longer.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether traffic is welcome.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(readiness: Readiness, metrics: Metrics) -> Router {
    let remarks = metrics.clone();
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(metrics.answer(&headers))))
        .route("/readyz", get(move |readiness| std::future::ready(ready(readiness, &remarks))))
        .with_state(readiness)
}

fn ready(State(readiness): State<Readiness>, metrics: &Metrics) -> (StatusCode, String) {
    let (status, word) = if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or draining\n")
    };
    (status, [word, &metrics.remarks()].concat())
}
