//! The system: its clock, its random numbers, and the one place that spawns tasks.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ports::BoxFuture;
use crate::ports::clock::{Clock, whole_millis};
use crate::ports::entropy::Entropy;
use crate::ports::spawner::{OnPanic, Spawner, TaskKind};
use crate::telemetry::log::RequestScope;

/// A difference between the system clock and its expected value above which the clock has stepped. A smaller one can
/// occur between two readings on a busy machine.
const STEP: SignedDuration = SignedDuration::from_secs(1);
/// Readings that took longer than this are not compared: the process was stopped in between.
const STOPPED: Duration = Duration::from_millis(100);

/// The system clock and the monotonic clock at the first reading: process time counts from there.
static START: LazyLock<(Timestamp, Duration)> = LazyLock::new(|| (system_time(), monotonic()));
/// The offset of the system clock to process time since its last step, in milliseconds.
static CORRECTION: AtomicI64 = AtomicI64::new(0);
/// How often the clocks are compared at most, in milliseconds: each reading needs one clock instead of four.
const CHECK_EVERY: u64 = 10;
/// When they were compared last, in milliseconds since the machine was started.
static CHECKED: AtomicU64 = AtomicU64::new(0);

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let (start, began) = *START;
        start.checked_add(monotonic().saturating_sub(began)).unwrap_or(start)
    }

    fn time_of_day(&self) -> Timestamp {
        system_time()
    }

    fn correction(&self) -> SignedDuration {
        let held = SignedDuration::from_millis(CORRECTION.load(Ordering::Relaxed));
        let before = monotonic();
        let millis = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        if CHECKED.load(Ordering::Relaxed).saturating_add(CHECK_EVERY) > millis {
            return held;
        }
        CHECKED.store(millis, Ordering::Relaxed);
        let now = self.now();
        let measured = whole_millis(system_time().duration_since(now));
        let took = monotonic().saturating_sub(before);
        if took > STOPPED || measured.saturating_sub(held).abs() <= STEP {
            return held;
        }
        let millis = i64::try_from(measured.as_millis()).unwrap_or(0);
        CORRECTION.store(millis, Ordering::Relaxed);
        tracing::warn!(
            step_ms = millis.saturating_sub(i64::try_from(held.as_millis()).unwrap_or(0)),
            "system clock changed; ages use the monotonic clock, dates use the system clock"
        );
        measured
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only implementation of the clock port with the system clock"
)]
fn system_time() -> Timestamp {
    Timestamp::now()
}

/// The time since the machine was started, including the time that it was suspended: an observation from before a
/// suspension is old after it.
fn monotonic() -> Duration {
    let since = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(since.tv_sec).unwrap_or(0), u32::try_from(since.tv_nsec).unwrap_or(0))
}

/// The thread's fast random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadEntropy;

impl Entropy for ThreadEntropy {
    fn unit(&self) -> f64 {
        fastrand::f64()
    }
}

/// Spawns tasks on the runtime and counts them. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct RuntimeSpawner {
    tasks: TaskTracker,
    fatal: CancellationToken,
}

impl RuntimeSpawner {
    /// Completes when an essential task has panicked.
    pub async fn fatal(&self) {
        self.fatal.cancelled().await;
    }

    /// Waits until every task has ended. New ones may still start meanwhile.
    pub async fn idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Spawner for RuntimeSpawner {
    fn spawn(&self, kind: TaskKind, task: BoxFuture<'static, ()>) {
        let fatal = self.fatal.clone();
        let guarded = async move {
            let Err(panic) = AssertUnwindSafe(task).catch_unwind().await else { return };
            // The text of a panic may contain data of an upstream, so it is not logged.
            drop(panic);
            match kind.on_panic() {
                OnPanic::Contained => tracing::error!(task = kind.name(), "task panicked; its work is lost"),
                OnPanic::Fatal => {
                    tracing::error!(task = kind.name(), "task panicked; shutting down");
                    fatal.cancel();
                }
            }
        };
        // The request only names the log lines of its task. A trace is continued by the context that the task holds, and
        // never by a span, which would stay open as long as the task.
        self.tasks.spawn(RequestScope::current().hold(guarded));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;
    use tokio::sync::oneshot;
    use tracing::Instrument as _;

    use super::*;
    use crate::telemetry::trace::testing::second_subscriber;

    #[tokio::test]
    async fn only_a_panic_of_a_vital_task_ends_the_process() {
        let spawner = RuntimeSpawner::default();
        spawner.spawn(TaskKind::Fetch, Box::pin(async { panic!("planted") }));
        spawner.idle().await;
        assert!(!spawner.fatal.is_cancelled());
        spawner.spawn(TaskKind::Listener, Box::pin(async { panic!("planted") }));
        spawner.fatal().await;
    }

    /// The request and the span that a task has which was spawned within both; and the request.
    async fn spawned_within() -> ((RequestScope, Option<tracing::Id>), RequestScope) {
        let (spawner, request) =
            (RuntimeSpawner::default(), RequestScope::of(HeaderValue::from_static("r1")));
        let subscriber = Arc::new(tracing_subscriber::registry());
        let _second = second_subscriber();
        let _set = tracing::subscriber::set_default(Arc::clone(&subscriber));
        let (seen, within) = oneshot::channel();
        let task = async {
            seen.send((RequestScope::current(), tracing::Span::current().id())).unwrap();
        };
        let spawned = async { spawner.spawn(TaskKind::Fetch, Box::pin(task)) };
        request.clone().hold(spawned.instrument(tracing::info_span!("request"))).await;
        (within.await.unwrap(), request)
    }

    #[tokio::test]
    async fn a_task_keeps_its_request() {
        let ((within, _), request) = spawned_within().await;
        assert_eq!(within, request);
    }

    #[tokio::test]
    async fn a_task_keeps_no_span() {
        assert_eq!(spawned_within().await.0.1, None);
    }
}
