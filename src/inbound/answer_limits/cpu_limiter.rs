//! Limits how many large answers are computed at the same time, in total and for one client, so that a core is left for
//! small ones. An answer acquires a permit for each step of its work and releases it while it waits for an upstream.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::by_client::ByClient;
use crate::domain::principal::Principal;

/// An answer of more values is large: it occupies a core for milliseconds.
pub(in crate::inbound) const LARGE_VALUES: u64 = 5_000;

/// The permits of large answers. A clone is cheap and shares the permits. The default has no limit.
#[derive(Clone, Default)]
pub struct CpuLimiter(Option<Arc<CpuLimiterState>>);

struct CpuLimiterState {
    all: Arc<Semaphore>,
    clients: ByClient<Semaphore>,
    released: Notify,
}

/// The permit source of one large answer.
pub(in crate::inbound) struct CpuGate {
    limiter: Arc<CpuLimiterState>,
    client: Option<Arc<Semaphore>>,
    waiting: Option<BoxFuture<'static, CpuPermit>>,
}

/// One step of a large answer; dropping it lets another one continue.
pub(in crate::inbound) struct CpuPermit {
    limiter: Arc<CpuLimiterState>,
    held: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

impl CpuLimiter {
    /// At most this many at the same time, and one of each client.
    pub fn new(at_once: usize) -> Self {
        let all = Arc::new(Semaphore::new(at_once.max(1)));
        Self(Some(Arc::new(CpuLimiterState { all, clients: ByClient::default(), released: Notify::new() })))
    }

    /// The permit source of an answer of this many values; none if it is not large.
    pub(in crate::inbound) fn gate(&self, client: &Principal, values: u64) -> Option<CpuGate> {
        let limiter = Arc::clone(self.0.as_ref().filter(|_| values > LARGE_VALUES)?);
        let client = limiter.clients.of(client, || Semaphore::new(1));
        Some(CpuGate { limiter, client, waiting: None })
    }
}

impl CpuGate {
    /// Waits for a permit. A waiter that is not polled any more, such as a stream whose peer does not read, holds none.
    pub(in crate::inbound) fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<CpuPermit> {
        let Self { limiter, client, waiting } = self;
        let next = waiting.get_or_insert_with(|| acquire(Arc::clone(limiter), client.clone()).boxed());
        let permit = ready!(next.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(permit)
    }

    /// Runs work of which every step has a permit.
    pub(in crate::inbound) async fn around<F: Future>(mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let _permit = ready!(self.poll_permit(cx));
            work.as_mut().poll(cx)
        })
        .await
    }
}

async fn acquire(limiter: Arc<CpuLimiterState>, client: Option<Arc<Semaphore>>) -> CpuPermit {
    loop {
        // before the attempt, so that no release is missed
        let released = limiter.released.notified();
        if let Some(held) = attempt(&limiter, client.as_ref()) {
            return CpuPermit { limiter: Arc::clone(&limiter), held: Some(held) };
        }
        released.await;
    }
}

fn attempt(
    limiter: &CpuLimiterState,
    client: Option<&Arc<Semaphore>>,
) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
    let client = match client {
        Some(client) => Some(Arc::clone(client).try_acquire_owned().ok()?),
        None => None,
    };
    Some((Arc::clone(&limiter.all).try_acquire_owned().ok()?, client))
}

impl Drop for CpuPermit {
    fn drop(&mut self) {
        self.held = None;
        self.limiter.released.notify_waiters();
    }
}

impl fmt::Debug for CpuLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.0.as_ref().map(|inner| inner.all.available_permits());
        f.debug_struct("CpuLimiter").field("free", &free).finish()
    }
}

impl fmt::Debug for CpuGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuGate").finish_non_exhaustive()
    }
}

impl fmt::Debug for CpuPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuPermit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join_all, pending};
    use futures_util::task::noop_waker;

    use super::*;

    const LARGE: u64 = LARGE_VALUES + 1;

    fn client(name: &str) -> Principal {
        Principal::new(name, [])
    }

    fn poll(gate: &mut CpuGate) -> Option<CpuPermit> {
        match gate.poll_permit(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn large_answers_are_limited_in_total() {
        let limiter = CpuLimiter::new(2);
        let [mut first, mut second, mut third] =
            ["a", "b", "c"].map(|name| limiter.gate(&client(name), LARGE).unwrap());
        let held = (poll(&mut first).unwrap(), poll(&mut second).unwrap());
        assert!(poll(&mut third).is_none());
        drop(held);
        assert!(poll(&mut third).is_some());
    }

    #[test]
    fn large_answers_are_limited_to_one_per_client() {
        let limiter = CpuLimiter::new(2);
        let [mut first, mut second] = [(); 2].map(|()| limiter.gate(&client("a"), LARGE).unwrap());
        let held = poll(&mut first).unwrap();
        assert!(poll(&mut second).is_none());
        drop(held);
        assert!(poll(&mut second).is_some());
    }

    #[test]
    fn waiting_answer_that_is_not_polled_blocks_no_other() {
        let limiter = CpuLimiter::new(2);
        let gate = |name: &str| limiter.gate(&client(name), LARGE).unwrap();
        let (mut first, mut second, mut other, mut third) = (gate("a"), gate("a"), gate("b"), gate("c"));
        let held = poll(&mut first).unwrap();
        assert!(poll(&mut second).is_none());
        let of_other = poll(&mut other).unwrap();
        assert!(poll(&mut third).is_none());
        drop(held);
        let of_third = poll(&mut third).unwrap();
        assert!(poll(&mut second).is_none());
        drop((of_other, of_third));
        assert!(poll(&mut second).is_some());
    }

    #[test]
    fn a_small_answer_needs_no_permit() {
        assert!(CpuLimiter::new(1).gate(&client("a"), LARGE_VALUES).is_none());
        assert!(CpuLimiter::default().gate(&client("a"), LARGE).is_none());
    }

    #[test]
    fn local_callers_have_no_per_client_limit() {
        let limiter = CpuLimiter::new(2);
        let gate = || limiter.gate(&Principal::local(), LARGE).unwrap();
        let (mut first, mut second, mut third) = (gate(), gate(), gate());
        let held = (poll(&mut first), poll(&mut second));
        assert!(held.0.is_some() && held.1.is_some() && poll(&mut third).is_none());
    }

    #[test]
    fn an_answer_that_waits_for_an_upstream_holds_no_permit() {
        let limiter = CpuLimiter::new(1);
        let waits = limiter.gate(&client("a"), LARGE).unwrap().around(pending::<()>());
        let mut waits = pin!(waits);
        assert!(waits.as_mut().poll(&mut Context::from_waker(&noop_waker())).is_pending());
        assert!(poll(&mut limiter.gate(&client("a"), LARGE).unwrap()).is_some());
    }

    #[tokio::test]
    async fn every_large_answer_eventually_gets_a_permit() {
        let limiter = CpuLimiter::new(1);
        let work = (0..50).map(|index| {
            let gate = limiter.gate(&client(&format!("c{}", index % 3)), LARGE).unwrap();
            gate.around(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            })
        });
        assert_eq!(join_all(work).await.len(), 50);
    }
}
