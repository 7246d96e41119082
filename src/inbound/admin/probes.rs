//! The admin listener: liveness, readiness, status and log level. Neither a failing upstream nor an unavailable Redis
//! makes the gateway unready: its cached answers would become unavailable as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;

use super::metrics::MetricsEndpoint;
use super::status::StatusEndpoint;
use super::{log_level, status};

/// The use of a limit, in percent, at which the process becomes overloaded,
const FULL: usize = 95;
/// and the use at which it is ready again.
const ROOMY: usize = 80;

/// A number of permits of one kind. A clone shares the permits.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimit {
    semaphore: Arc<Semaphore>,
    size: usize,
}

impl ConcurrencyLimit {
    /// With this many permits.
    pub fn new(size: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(size)), size }
    }

    /// The semaphore of the permits.
    pub const fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }

    /// The number of permits.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// The number of permits in use.
    pub fn taken(&self) -> usize {
        self.size.saturating_sub(self.semaphore.available_permits())
    }

    fn is_over(&self, hundredths: usize) -> bool {
        self.taken().saturating_mul(100) >= self.size.saturating_mul(hundredths)
    }
}

/// Equal if it shares the same permits, not if the number is the same.
impl PartialEq for ConcurrencyLimit {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.semaphore, &other.semaphore)
    }
}

impl Eq for ConcurrencyLimit {}

/// Whether the process may receive traffic. A cheap clone; not ready at the start.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<ReadinessPhases>);

#[derive(Debug, Default)]
struct ReadinessPhases {
    phase: AtomicU8,
    overloaded: AtomicBool,
    limits: Vec<ConcurrencyLimit>,
}

/// The readiness that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Traffic is accepted.
    Ready,
    /// Not yet.
    Starting,
    /// No longer.
    Draining,
    /// Not now: requests would be rejected.
    Overloaded,
}

impl Traffic {
    /// The text of the response.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
        }
    }
}

impl Readiness {
    /// A readiness that also depends on the use of these limits.
    pub fn over(limits: Vec<ConcurrencyLimit>) -> Self {
        Self(Arc::new(ReadinessPhases { limits, ..ReadinessPhases::default() }))
    }

    /// Sets whether traffic is accepted.
    pub fn set(&self, ready: bool) {
        self.0.phase.store(if ready { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Whether traffic is accepted. A limit that is reached makes it unready from the next probe until the use has
    /// clearly dropped, so that it does not change with every request.
    pub fn traffic(&self) -> Traffic {
        match self.0.phase.load(Ordering::Relaxed) {
            0 => return Traffic::Starting,
            1 => {}
            _ => return Traffic::Draining,
        }
        let before = self.0.overloaded.load(Ordering::Relaxed);
        let limit = if before { ROOMY } else { FULL };
        let now = self.0.limits.iter().any(|limits| limits.is_over(limit));
        if now != before {
            self.0.overloaded.store(now, Ordering::Relaxed);
            if now {
                tracing::warn!("overloaded; not ready until load drops below 80 %");
            } else {
                tracing::info!("no longer overloaded");
            }
        }
        if now { Traffic::Overloaded } else { Traffic::Ready }
    }
}

/// `/livez`, `/readyz`, `/metrics`, `/status` and `/log-level`.
pub fn router(readiness: Readiness, metrics: MetricsEndpoint, status: StatusEndpoint) -> Router {
    let remarks = metrics.clone();
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/metrics", get(move |headers: HeaderMap| std::future::ready(metrics.answer(&headers))))
        .route("/readyz", get(move |readiness| std::future::ready(ready(&readiness, &remarks))))
        .with_state(readiness)
        .merge(status::router(status))
        .merge(log_level::router())
}

fn ready(State(readiness): &State<Readiness>, metrics: &MetricsEndpoint) -> (StatusCode, String) {
    let traffic = readiness.traffic();
    let status = match traffic {
        Traffic::Ready => StatusCode::OK,
        Traffic::Starting | Traffic::Draining | Traffic::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n{}", traffic.word(), metrics.remarks()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overloaded_gateway_is_ready_only_below_the_low_watermark() {
        let (requests, connections) = (ConcurrencyLimit::new(100), ConcurrencyLimit::new(1000));
        let readiness = Readiness::over(vec![requests.clone(), connections.clone()]);
        assert_eq!(readiness.traffic(), Traffic::Starting);
        readiness.set(true);
        let mut held = Vec::new();
        for (taken, expected) in [
            (94, Traffic::Ready),
            (95, Traffic::Overloaded),
            (94, Traffic::Overloaded),
            (80, Traffic::Overloaded),
            (79, Traffic::Ready),
            (94, Traffic::Ready),
            (100, Traffic::Overloaded),
            (0, Traffic::Ready),
        ] {
            held.truncate(taken);
            while held.len() < taken {
                held.push(requests.semaphore().try_acquire().unwrap());
            }
            assert_eq!((readiness.traffic(), taken), (expected, taken));
        }
        let _all = connections.semaphore().try_acquire_many(950).unwrap();
        assert_eq!(readiness.traffic(), Traffic::Overloaded);
        readiness.set(false);
        assert_eq!(readiness.traffic(), Traffic::Draining);
    }
}
