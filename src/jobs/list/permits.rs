//! The permits of the lists that read the whole store: one for each client at a time, and few in all.
//!
//! Such a list runs as a task of its own, so that a client that does not read its answers keeps no permit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::ports::spawner::{Spawner, TaskKind};
use crate::telemetry::trace::TraceContext;

/// Lists that run at the same time. Each takes memory for a batch, and the time of the store.
const AT_ONCE: usize = 2;

/// Runs the lists that read the whole store.
#[derive(Debug)]
pub(super) struct ListPermits {
    spawner: Arc<dyn Spawner>,
    all: Arc<Semaphore>,
    /// By the name of the client: those that have a list that runs or waits.
    clients: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl ListPermits {
    pub(super) fn new(spawner: Arc<dyn Spawner>) -> Self {
        Self { spawner, all: Arc::new(Semaphore::new(AT_ONCE)), clients: Mutex::default() }
    }

    /// Runs a list when the client has a permit; `None` if its task panicked. When the caller leaves, `cancelled` is
    /// cancelled, which `list` checks between two reads of the store. Cancel safe.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        client: Arc<str>,
        list: impl Future<Output = T> + Send + 'static,
        cancelled: CancellationToken,
    ) -> Option<T> {
        let _guard = cancelled.clone().drop_guard();
        let (own, all) = (self.of(client), Arc::clone(&self.all));
        let (answer, answered) = oneshot::channel();
        let task = async move {
            let permits = async { (own.acquire().await, all.acquire().await) };
            let _permits = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                permits = permits => permits,
            };
            // the caller may have left
            drop(answer.send(list.await));
        };
        self.spawner.spawn(TaskKind::List, TraceContext::here().boxed(task));
        answered.await.ok()
    }

    /// The permit of a client.
    fn of(&self, client: Arc<str>) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = clients.get(&client).and_then(Weak::upgrade) {
            return own;
        }
        clients.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        clients.insert(client, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;
    use crate::ports::BoxFuture as PortFuture;

    #[derive(Debug)]
    struct TestSpawner;

    impl Spawner for TestSpawner {
        fn spawn(&self, _: TaskKind, task: PortFuture<'static, ()>) {
            #[expect(clippy::disallowed_methods, reason = "the port of the tests")]
            tokio::spawn(task);
        }
    }

    /// Runs lists of a second each, and returns how many ran at the same time, at most.
    async fn most_at_once(clients: &[&str]) -> usize {
        let permits = ListPermits::new(Arc::new(TestSpawner));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let lists = clients.iter().map(|client| {
            let (running, most) = (running.clone(), most.clone());
            let list = async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
            };
            permits.run((*client).into(), list, CancellationToken::new())
        });
        join_all(lists).await;
        most.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn client_has_one_list_and_all_have_two_at_once() {
        assert_eq!(most_at_once(&["a"; 5]).await, 1);
        assert_eq!(most_at_once(&["a", "b", "c", "d", "e"]).await, AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn list_of_a_caller_that_left_is_cancelled() {
        let permits = ListPermits::new(Arc::new(TestSpawner));
        for _ in 0..3 {
            let cancelled = CancellationToken::new();
            let list = cancelled.clone().cancelled_owned();
            let run = permits.run("a".into(), list, cancelled);
            let left = tokio::time::timeout(Duration::from_secs(1), run).await;
            assert!(left.is_err(), "it runs until its caller leaves");
        }
        assert_eq!(permits.run("a".into(), async { 7 }, CancellationToken::new()).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn caller_that_is_not_polled_holds_no_permit() {
        let permits = ListPermits::new(Arc::new(TestSpawner));
        let run = || {
            let list = tokio::time::sleep(Duration::from_secs(1));
            permits.run("a".into(), list, CancellationToken::new())
        };
        let mut stalled = Box::pin(run());
        assert!(futures_util::poll!(&mut stalled).is_pending());
        assert_eq!(tokio::time::timeout(Duration::from_secs(3), run()).await, Ok(Some(())));
        drop(stalled);
    }
}
