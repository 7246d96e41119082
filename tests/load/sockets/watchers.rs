//! All clients of a run: opens their sockets, and counts what each of them receives, how late, how often and in what order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::message::{QUERY, Update, id};
use super::plan::SOURCE;
use super::socket::{Carrier, Received, Socket};

/// Sockets being opened at the same time: fewer than the accept queue of either server.
const AT_ONCE: usize = 128;
/// How long a change, or a terminal state, may take to reach all watchers before it counts as lost.
const END_TIMEOUT: Duration = Duration::from_mins(1);

/// What to watch, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) carrier: Carrier,
    pub(super) bare: bool,
    pub(super) jobs: u32,
}

/// What all watchers have received.
#[derive(Debug, Default)]
pub(super) struct WatcherCounters {
    /// From the connect to the snapshot, of each, in microseconds.
    pub(super) opened: Vec<u32>,
    /// From the detection of a change to its receipt, of each delivery, in microseconds.
    pub(super) late: Vec<u32>,
    /// Changes that a watcher never received.
    pub(super) lost: u64,
    /// Updates that a watcher had received already, or that were out of order.
    pub(super) doubled: u64,
    /// The awaited change, and how many watchers have received it.
    version: u64,
    arrived: usize,
    /// Watchers that have received the terminal state once, and the completion after it.
    ended: usize,
    failures: Vec<String>,
}

/// The running watchers. Dropping it closes their sockets.
#[derive(Debug)]
pub(super) struct Watchers {
    count: usize,
    progress_board: Arc<Board>,
    tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Board {
    counters: Mutex<WatcherCounters>,
    progress: Notify,
}

impl Watchers {
    /// Opens all sockets and waits until each has its snapshot: how long that took.
    pub(super) async fn open(target: Target, count: usize) -> anyhow::Result<(Self, Duration)> {
        let progress_board = Arc::new(Board::default());
        progress_board.lock().version = 1;
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (progress_board, permits) = (Arc::clone(&progress_board), Arc::clone(&permits));
            tasks.spawn(async move {
                if let Err(error) = watch(target, number, &progress_board, &permits).await {
                    let mut counters = progress_board.lock();
                    counters.failures.push(format!("{error:#}"));
                    drop(counters);
                    progress_board.progress.notify_one();
                }
            });
        }
        let watchers = Self { count, progress_board, tasks };
        watchers.wait(|counters| counters.arrived).await.context("opening the sockets")?;
        Ok((watchers, start.elapsed()))
    }

    /// Sets the next change, before it happens.
    pub(super) fn expect(&self, version: u64) {
        let mut counters = self.progress_board.lock();
        counters.version = version;
        counters.arrived = 0;
    }

    /// Waits until all watchers have received it. It is lost for the others.
    pub(super) async fn arrival(&self) -> anyhow::Result<()> {
        self.wait(|counters| counters.arrived).await
    }

    /// Waits until all watchers have received the terminal state, and returns the counts.
    pub(super) async fn end(mut self) -> anyhow::Result<WatcherCounters> {
        self.wait(|counters| counters.ended).await?;
        self.tasks.shutdown().await;
        Ok(std::mem::take(&mut *self.progress_board.lock()))
    }

    async fn wait(&self, count: impl Fn(&WatcherCounters) -> usize + Send + Sync) -> anyhow::Result<()> {
        let all = async {
            loop {
                {
                    let counters = self.progress_board.lock();
                    if let Some(failure) = counters.failures.first() {
                        anyhow::bail!(
                            "{} of {} sockets failed, as by: {failure}",
                            counters.failures.len(),
                            self.count
                        );
                    }
                    if count(&counters) >= self.count {
                        return Ok(());
                    }
                }
                self.progress_board.progress.notified().await;
            }
        };
        if let Ok(ended) = timeout(END_TIMEOUT, all).await {
            return ended;
        }
        let mut counters = self.progress_board.lock();
        counters.lost += (self.count - count(&counters)) as u64;
        Ok(())
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, WatcherCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One watcher, until its stream completes.
async fn watch(
    target: Target,
    number: usize,
    progress_board: &Board,
    permits: &Semaphore,
) -> anyhow::Result<()> {
    let job = u32::try_from(number)? % target.jobs;
    let (path, refs) = match (target.bare, target.carrier) {
        (false, _) => {
            ("/graphql".to_owned(), json!([{ "external": { "source": SOURCE, "externalId": id(job) } }]))
        }
        (true, Carrier::Websocket) => (format!("/websocket/{job}"), json!([])),
        (true, Carrier::Sse) => (format!("/sse/{job}"), json!([])),
    };
    let body = json!({ "query": QUERY, "variables": { "refs": refs } }).to_string();
    let permit = permits.acquire().await?;
    let start = Instant::now();
    let mut socket = Socket::open(target.address, &path, target.carrier, number, &body).await?;
    let mut permit_held = Some(permit);
    let mut last: Option<Update> = None;
    loop {
        let text = match socket.receive().await? {
            Received::Text(text) => text,
            Received::Complete => break,
            Received::Answer(_) | Received::Noise => continue,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "compared with the server's clock, which is that of the machine"
        )]
        let at = Timestamp::now();
        let update = Update::read(&text).with_context(|| format!("no update: {text}"))?;
        let mut counters = progress_board.lock();
        match last {
            None => counters.opened.push(micros(start.elapsed())),
            Some(last) if update.sequence <= last.sequence || last.is_final => counters.doubled += 1,
            // the same change with a new sequence: something else than the job has changed, such as its freshness
            Some(last) if update.version == last.version => {}
            Some(last) => {
                counters.lost += update.version.saturating_sub(last.version + 1);
                let late = Duration::try_from(at.duration_since(update.observed_at)).unwrap_or_default();
                counters.late.push(micros(late));
            }
        }
        counters.arrived += usize::from(
            update.version == counters.version && last.is_none_or(|last| last.version < update.version),
        );
        drop(counters);
        last = Some(update);
        progress_board.progress.notify_one();
        // open: the next one may start
        drop(permit_held.take());
    }
    progress_board.lock().ended += usize::from(last.is_some_and(|last| last.is_final));
    progress_board.progress.notify_one();
    // kept open until all watchers have completed, as a page would
    std::future::pending().await
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
