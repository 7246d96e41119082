//! Faults for every port, drawn from a seed. The fault of a call is decided here, once for all ports; `ports` wraps
//! each port and defines what a failure looks like there.

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
    /// It starts later.
    Delay,
    /// It is executed, and its answer is delayed: later calls overtake it.
    Reorder,
    /// It is not executed, and fails at once.
    Error,
    /// It is not executed, and fails after a while.
    Drop,
    /// It neither completes nor fails until it is dropped.
    Hang,
    /// It is executed twice, and returns the first answer.
    Duplicate,
    /// It is executed, and fails.
    DoneButFailed,
    /// It panics in its caller.
    Panic,
}

/// All faults.
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
/// The faults where a panic ends the process by design.
pub(crate) const CONTAINED: &[Fault] = ALL.split_at(7).0;
/// The faults where only the timeout of the caller limits a call.
pub(crate) const ENDING: &[Fault] =
    &[Fault::Delay, Fault::Reorder, Fault::Error, Fault::Drop, Fault::Duplicate, Fault::DoneButFailed];
/// The faults of a call that does not fail.
pub(crate) const INFALLIBLE: &[Fault] =
    &[Fault::Delay, Fault::Reorder, Fault::Hang, Fault::Duplicate, Fault::Panic];
/// The faults of a synchronous call.
pub(crate) const AT_ONCE: &[Fault] = &[Fault::Error, Fault::Duplicate, Fault::DoneButFailed];

/// The longest delay.
const LATE: Duration = Duration::from_secs(8);

/// Decides the fault of each call by a seed, until it is stopped.
#[derive(Debug)]
pub(crate) struct FaultInjector {
    rng: Mutex<Rng>,
    active: AtomicBool,
    /// How many of a hundred calls get a fault.
    share: u32,
    /// The only port that gets faults, and which one; none for all.
    only: Option<(&'static str, Fault)>,
    /// How many calls got each fault.
    met: Mutex<BTreeMap<(&'static str, Fault), u32>>,
}

impl FaultInjector {
    /// Few or many calls get a fault, by its seed.
    pub(crate) fn seeded(seed: u64) -> Arc<Self> {
        let mut rng = Rng::with_seed(seed);
        let share = rng.u32(2..45);
        let (rng, active) = (Mutex::new(rng), AtomicBool::new(true));
        Arc::new(Self { rng, active, share, only: None, met: Mutex::default() })
    }

    /// Every call of one port gets the same fault.
    pub(crate) fn only(port: &'static str, fault: Fault) -> Arc<Self> {
        let (rng, active) = (Mutex::new(Rng::with_seed(0)), AtomicBool::new(true));
        Arc::new(Self { rng, active, share: 0, only: Some((port, fault)), met: Mutex::default() })
    }

    /// From now on no call gets a fault; one that hangs still does.
    pub(crate) fn stop(&self) {
        self.active.store(false, Ordering::Relaxed);
    }

    /// The faults so far, and their counts.
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

    /// The fault of the next call of a port.
    fn next(&self, port: &'static str, may: &[Fault]) -> Option<Fault> {
        if !self.active.load(Ordering::Relaxed) {
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

    /// Executes an asynchronous call, possibly with a fault. `failed` is what a failure looks like.
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

    /// The same for a synchronous call.
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

/// Panics without a message on standard error.
fn planted() -> ! {
    std::panic::resume_unwind(Box::new("planted"))
}
