//! Faults for every port, drawn from a seed. What a call meets is decided here, once for all ports; `ports` puts it before
//! each of them and says what failing looks like there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use jobgate::ports::BoxFuture;

pub(crate) mod ports;

/// What can happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It begins later.
    Delay,
    /// It is done, and its answer is held back: later calls overtake it.
    Reorder,
    /// It is not done, and fails at once.
    Error,
    /// It is not done, and fails after a while.
    Drop,
    /// It neither ends nor fails, until it is dropped.
    Hang,
    /// It is done twice, and answered with the first answer.
    Duplicate,
    /// It is done, and fails.
    DoneButFailed,
    /// It breaks whoever makes it.
    Panic,
}

/// Everything that can happen.
pub(crate) const ALL: &[Fault] = &[
    Fault::Delay,
    Fault::Reorder,
    Fault::Error,
    Fault::Drop,
    Fault::Hang,
    Fault::Duplicate,
    Fault::DoneButFailed,
    Fault::Panic,
];
/// What can happen where a panic is meant to end the process.
pub(crate) const CONTAINED: &[Fault] = ALL.split_at(7).0;
/// What can happen where nothing bounds a call but the caller's own end.
pub(crate) const ENDING: &[Fault] =
    &[Fault::Delay, Fault::Reorder, Fault::Error, Fault::Drop, Fault::Duplicate, Fault::DoneButFailed];
/// What can happen to a call that takes no time.
pub(crate) const AT_ONCE: &[Fault] = &[Fault::Error, Fault::Duplicate, Fault::DoneButFailed];

/// The longest that something is late.
const LATE: Duration = Duration::from_secs(8);

/// Decides what each call meets, by a seed, until it is told to stop.
#[derive(Debug)]
pub(crate) struct Storm {
    rng: Mutex<Rng>,
    raging: AtomicBool,
    /// How many of a hundred calls meet something.
    share: u32,
    /// The one port that meets anything, and what; none for all.
    only: Option<(&'static str, Fault)>,
    /// Of how many calls each thing was met.
    met: Mutex<BTreeMap<(&'static str, Fault), u32>>,
}

impl Storm {
    /// A storm that is mild or wild, by its seed.
    pub(crate) fn seeded(seed: u64) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let share = rng.u32(2..45);
        let (rng, raging) = (Mutex::new(rng), AtomicBool::new(true));
        Arc::new(Self { rng, raging, share, only: None, met: Mutex::default() })
    }

    /// Each call of one port meets the same.
    pub(crate) fn only(port: &'static str, fault: Fault) -> Arc<Self> {
        let (rng, raging) = (Mutex::new(Rng::with_seed(0)), AtomicBool::new(true));
        Arc::new(Self { rng, raging, share: 0, only: Some((port, fault)), met: Mutex::default() })
    }

    /// From now on no call meets anything; one that hangs still does.
    pub(crate) fn stop(&self) {
        self.raging.store(false, Ordering::Relaxed);
    }

    /// What was met so far, and how often.
    pub(crate) fn met(&self) -> BTreeMap<(&'static str, Fault), u32> {
        self.met.lock().unwrap().clone()
    }

    /// Draws below a bound.
    pub(crate) fn below(&self, bound: usize) -> usize {
        self.rng.lock().unwrap().usize(..bound)
    }

    fn late(&self) -> Duration {
        LATE.mul_f64(self.rng.lock().unwrap().f64())
    }

    /// What the next call of a port meets.
    fn next(&self, port: &'static str, may: &[Fault]) -> Option<Fault> {
        if !self.raging.load(Ordering::Relaxed) {
            return None;
        }
        if let Some((only, fault)) = self.only {
            return (only == port).then_some(fault);
        }
        let mut rng = self.rng.lock().unwrap();
        let fault = (rng.u32(..100) < self.share).then(|| may[rng.usize(..may.len())])?;
        *self.met.lock().unwrap().entry((port, fault)).or_default() += 1;
        Some(fault)
    }

    /// Makes a call that takes time, or has it meet something. `failed` is what failing looks like.
    pub(crate) async fn around<'a, T: Send + 'a>(
        &self,
        port: &'static str,
        may: &[Fault],
        call: impl Fn() -> BoxFuture<'a, T> + Send,
        failed: impl Fn() -> T + Send,
    ) -> T {
        match self.next(port, may) {
            None => call().await,
            Some(Fault::Delay) => {
                tokio::time::sleep(self.late()).await;
                call().await
            }
            Some(Fault::Reorder) => {
                let answer = call().await;
                tokio::time::sleep(self.late()).await;
                answer
            }
            Some(Fault::Error) => failed(),
            Some(Fault::Drop) => {
                tokio::time::sleep(self.late()).await;
                failed()
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Duplicate) => {
                let first = call().await;
                drop(call().await);
                first
            }
            Some(Fault::DoneButFailed) => {
                drop(call().await);
                failed()
            }
            Some(Fault::Panic) => {
                if self.below(2) == 0 {
                    drop(call().await);
                }
                planted()
            }
        }
    }

    /// The same for a call that takes no time.
    pub(crate) fn at_once<T>(
        &self,
        port: &'static str,
        may: &[Fault],
        call: impl Fn() -> T,
        failed: impl Fn() -> T,
    ) -> T {
        match self.next(port, may) {
            None | Some(Fault::Delay | Fault::Reorder) => call(),
            Some(Fault::Error | Fault::Drop | Fault::Hang) => failed(),
            Some(Fault::Duplicate) => {
                drop(call());
                call()
            }
            Some(Fault::DoneButFailed) => {
                drop(call());
                failed()
            }
            Some(Fault::Panic) => planted(),
        }
    }
}

/// Breaks its caller without a word on standard error.
fn planted() -> ! {
    std::panic::resume_unwind(Box::new("planted"))
}
