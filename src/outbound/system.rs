//! The machine itself: its clock, its chance, and the one place that starts tasks.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::spawner::{OnPanic, Spawner, TaskKind};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock port's one implementation over the machine"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The thread's fast random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadEntropy;

impl Entropy for ThreadEntropy {
    fn unit(&self) -> f64 {
        fastrand::f64()
    }
}

/// Starts tasks on the runtime and keeps count of them. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct RuntimeSpawner {
    tasks: TaskTracker,
    fatal: CancellationToken,
}

impl RuntimeSpawner {
    /// Resolves when a task died without which the process cannot do its job.
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
            // A panic's text is made of our words and of data; it can hold what an upstream sent, so it stays out.
            drop(panic);
            match kind.on_panic() {
                OnPanic::Contained => tracing::error!(task = kind.name(), "task panicked, its work is lost"),
                OnPanic::Fatal => {
                    tracing::error!(task = kind.name(), "task panicked, ending the process");
                    fatal.cancel();
                }
            }
        };
        self.tasks.spawn(guarded.in_current_span());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_vital_task_takes_the_process_with_it() {
        let spawner = RuntimeSpawner::default();
        spawner.spawn(TaskKind::Flight, Box::pin(async { panic!("planted") }));
        spawner.idle().await;
        assert!(!spawner.fatal.is_cancelled());
        spawner.spawn(TaskKind::Listener, Box::pin(async { panic!("planted") }));
        spawner.fatal().await;
    }
}
