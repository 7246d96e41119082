//! The replay of a batch of jobs: the gateway follows jobs with random durations on a paused clock, and every upstream call
//! is counted by its purpose. Beside it, what polls at a fixed interval need for the same jobs.

pub(crate) mod fixed;
mod source;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::StreamExt as _;
use jobgate::domain::principal::Principal;
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::Ports;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::ports::upstream::JobReader;
use tokio::runtime::Builder;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::source::BatchSource;
use super::ports::{FOLLOW, RuntimeClock, gateway_with, reference, retention};

/// From the start of a call to its response.
pub(crate) const LATENCY: Duration = Duration::from_millis(150);
/// The shortest and the longest duration, in seconds.
const BOUNDS: (f64, f64) = (1.0, 4.0 * 3_600.0);

/// Log-normal durations of jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogNormal {
    pub(crate) name: &'static str,
    /// In seconds.
    pub(crate) median: f64,
    /// The standard deviation of the logarithm.
    pub(crate) sigma: f64,
}

pub(crate) const DURATIONS: [LogNormal; 5] = [
    LogNormal { name: "1 s to 4 h, median 2 min", median: 120.0, sigma: 1.6 },
    LogNormal { name: "median 10 s", median: 10.0, sigma: 0.4 },
    LogNormal { name: "median 2 min", median: 120.0, sigma: 0.4 },
    LogNormal { name: "median 15 min", median: 900.0, sigma: 0.4 },
    LogNormal { name: "median 2 h", median: 7_200.0, sigma: 0.4 },
];

impl LogNormal {
    /// A duration within the bounds, in seconds (Box and Muller).
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> f64 {
        let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
        (self.median * (self.sigma * normal).exp()).clamp(BOUNDS.0, BOUNDS.1)
    }

    /// A batch of jobs that start evenly over a time.
    pub(crate) fn batch(&self, jobs: usize, over: Duration, rng: &mut fastrand::Rng) -> Vec<JobRun> {
        let every = over / u32::try_from(jobs).unwrap_or(u32::MAX).max(1);
        let run = |number: usize| JobRun {
            begins: every * u32::try_from(number).unwrap_or(u32::MAX),
            lasts: Duration::from_secs_f64(self.draw(rng)),
        };
        (0..jobs).map(run).collect()
    }
}

/// A job: when it is started and first read, and how long it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRun {
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
}

/// Upstream calls by their purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    /// The first read of each job, for the client that begins to watch it.
    pub(crate) first: usize,
    /// Lists of a sweep.
    pub(crate) lists: usize,
    /// Reads of jobs that the last list did not contain, or while there are no lists.
    pub(crate) polls: usize,
    /// Reads that returned the terminal state of a job that lists contained.
    pub(crate) ends: usize,
    /// Reads of jobs that the last list covers, which are not terminal: verification and progress.
    pub(crate) confirmations: usize,
}

impl CallCounts {
    /// The calls that detect ends: without first reads, verification and progress.
    pub(crate) const fn detecting(&self) -> usize {
        self.lists + self.polls + self.ends
    }

    pub(crate) const fn all(&self) -> usize {
        self.first + self.detecting() + self.confirmations
    }

    const fn add(&mut self, more: Self) {
        self.first += more.first;
        self.lists += more.lists;
        self.polls += more.polls;
        self.ends += more.ends;
        self.confirmations += more.confirmations;
    }
}

/// How late ends are detected, in seconds: the median, and nine in ten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LagQuantiles {
    pub(crate) median: f64,
    pub(crate) p90: f64,
}

impl LagQuantiles {
    pub(crate) fn of(mut lags: Vec<f64>) -> Self {
        lags.sort_by(f64::total_cmp);
        let share = |percent: usize| lags.get(lags.len() * percent / 100).copied().unwrap_or_default();
        Self { median: share(50), p90: share(90) }
    }
}

/// The cost of following batches, and how late the ends of their jobs were delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    pub(crate) calls: CallCounts,
    pub(crate) lags: LagQuantiles,
}

/// Follows each batch with a gateway of its own, which has learned nothing before.
pub(crate) fn follow_each(upstream: Upstream, batches: &[Vec<JobRun>]) -> Followed {
    let mut calls = CallCounts::default();
    let mut lags = Vec::new();
    for batch in batches {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (made, late) = runtime.block_on(follow(upstream, batch));
        calls.add(made);
        lags.extend(late);
    }
    Followed { calls, lags: LagQuantiles::of(lags) }
}

/// Follows a batch with the use cases of the gateway, its default settings and budget. Each job is watched from its start
/// to its end. Returns how late each end was delivered, in seconds.
async fn follow(upstream: Upstream, batch: &[JobRun]) -> (CallCounts, Vec<f64>) {
    let clock = Arc::new(RuntimeClock::default());
    let source = BatchSource::new(upstream, Arc::clone(&clock));
    let readers = vec![Arc::clone(&source) as Arc<dyn JobReader>];
    let store = Arc::new(MemoryStore::new(retention()));
    let gateway =
        Arc::new(gateway_with(FOLLOW, clock, store, Arc::new(NoLedger), |ports| Ports { readers, ..ports }));
    source.serve(&gateway);
    let stop = CancellationToken::new();
    gateway.jobs.start_following(stop.clone());
    let start = Instant::now();
    let watches = batch.iter().enumerate().map(|(number, run)| {
        let (source, jobs) = (&source, &gateway.jobs);
        async move {
            tokio::time::sleep_until(start + run.begins).await;
            let id = format!("j{number}");
            source.add(&id, run.lasts);
            let ends = Instant::now() + run.lasts;
            let refs = vec![reference(source::NAME, &id)];
            let updates: Vec<_> = jobs.watch(Principal::local(), refs, None).collect().await;
            let last = updates.last().unwrap();
            assert!(last.is_final, "{id} is followed to its end");
            let state = last.answer.as_ref().unwrap().observation.job.state();
            assert!(state.is_terminal(), "{id} {state:?}");
            (Instant::now() - ends).as_secs_f64()
        }
    });
    let lags = join_all(watches).await;
    stop.cancel();
    gateway.spawner.idle().await;
    (source.calls(), lags)
}
