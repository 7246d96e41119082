//! Whether the process may receive traffic: it has started, does not drain, and is not overloaded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::inbound::http::concurrency_limit::ConcurrencyLimit;

/// The use of a limit, in percent, at which the process becomes overloaded,
const FULL: usize = 95;
/// and the use at which it is ready again.
const ROOMY: usize = 80;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_is_ready_between_its_start_and_its_drain() {
        let readiness = Readiness::over(vec![]);
        assert_eq!(readiness.traffic(), Traffic::Starting);
        readiness.set(true);
        assert_eq!(readiness.traffic(), Traffic::Ready);
        readiness.set(false);
        assert_eq!(readiness.traffic(), Traffic::Draining);
    }

    #[test]
    fn overloaded_gateway_is_ready_only_below_the_low_watermark() {
        let requests = ConcurrencyLimit::new(100);
        let readiness = Readiness::over(vec![requests.clone(), ConcurrencyLimit::new(1000)]);
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
    }

    #[test]
    fn each_limit_can_overload_the_gateway() {
        let limits = [ConcurrencyLimit::new(100), ConcurrencyLimit::new(1000)];
        let readiness = Readiness::over(limits.to_vec());
        readiness.set(true);
        for (limit, count) in limits.iter().zip([95, 950]) {
            let held = limit.semaphore().try_acquire_many(count).unwrap();
            assert_eq!(readiness.traffic(), Traffic::Overloaded, "{count}");
            drop(held);
            assert_eq!(readiness.traffic(), Traffic::Ready, "{count}");
        }
    }

    #[test]
    fn draining_gateway_is_draining_although_it_is_overloaded() {
        let connections = ConcurrencyLimit::new(1000);
        let readiness = Readiness::over(vec![connections.clone()]);
        readiness.set(true);
        let _all = connections.semaphore().try_acquire_many(950).unwrap();
        readiness.set(false);
        assert_eq!(readiness.traffic(), Traffic::Draining);
    }
}
