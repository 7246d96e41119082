//! The hourly budget that several replicas share, on a paused clock: each polls at the rate that its part of the
//! followed jobs needs. The shared count is a model here; `tests/redis_budget.rs` has the real one.

use std::collections::{BTreeMap, VecDeque};

use jobgate::domain::budget::SharedUse;
use jobgate::outbound::upstreams::limiter::shared::{SharedBudget, SharedDecision};
use jobgate::ports::BoxFuture;

use super::*;

/// The shared count of one source.
#[derive(Debug, Default)]
struct Count {
    calls: Mutex<VecDeque<Instant>>,
    /// What each replica needs for polls, and used for callers.
    replicas: Mutex<BTreeMap<usize, Needs>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    demand: u32,
    callers: u32,
    lost_at: Option<Instant>,
}

impl Needs {
    /// The calls for callers that still count: those of a lost replica leave the hour evenly.
    fn callers(self) -> u32 {
        let left = self.lost_at.map_or(HOUR, |at| HOUR.saturating_sub(at.elapsed()));
        u32::try_from(u128::from(self.callers) * u128::from(left.as_secs()) / u128::from(HOUR.as_secs()))
            .unwrap()
    }
}

/// A replica's access to the shared count.
#[derive(Debug)]
struct Member {
    count: Arc<Count>,
    number: usize,
}

impl Count {
    fn join(self: &Arc<Self>, number: usize) -> Arc<Member> {
        self.replicas.lock().unwrap().insert(number, Needs::default());
        Arc::new(Member { count: Arc::clone(self), number })
    }

    fn of_the_hour(&self) -> VecDeque<Instant> {
        let mut calls = self.calls.lock().unwrap();
        calls.retain(|at| at.elapsed() < HOUR);
        calls.clone()
    }
}

impl SharedBudget for Member {
    fn take<'a>(&'a self, limits: &'a LimiterSettings) -> BoxFuture<'a, SharedDecision> {
        let calls = self.count.of_the_hour();
        let over = calls.len().checked_sub(limits.per_hour as usize);
        let taken = if let Some(blocking) = over.and_then(|over| calls.get(over)) {
            SharedDecision::Wait(HOUR.saturating_sub(blocking.elapsed()))
        } else {
            self.count.calls.lock().unwrap().push_back(Instant::now());
            SharedDecision::Go(None)
        };
        Box::pin(std::future::ready(taken))
    }

    fn left(&self, limits: &LimiterSettings) -> u32 {
        limits.per_hour.saturating_sub(u32::try_from(self.count.of_the_hour().len()).unwrap())
    }

    fn report(&self, demand: u32, callers: u32) {
        let mut replicas = self.count.replicas.lock().unwrap();
        let needs = replicas.get_mut(&self.number).unwrap();
        if needs.lost_at.is_none() {
            (needs.demand, needs.callers) = (demand, callers);
        }
    }

    fn used(&self) -> SharedUse {
        let calls = self.count.of_the_hour().into_iter().map(|at| (at.elapsed(), 1)).collect();
        let replicas = self.count.replicas.lock().unwrap();
        let others = replicas.iter().filter(|(number, _)| **number != self.number).map(|(_, needs)| *needs);
        let (others_demand, others_callers) =
            others.fold((0, 0), |all, one| (all.0 + one.demand, all.1 + one.callers()));
        SharedUse { calls, others_demand, others_callers }
    }

    fn give_back(&self, _: String) {}

    fn pause(&self, _: Duration) {}
}

/// A replica that watches some jobs of each source, until it is stopped.
struct Replica {
    gateway: TestGateway,
    logs: [Log; 2],
    stop: CancellationToken,
}

/// The shared counts of both sources, each with its limits.
struct Cluster {
    counts: [Arc<Count>; 2],
    limits: [LimiterSettings; 2],
}

impl Cluster {
    fn new(limits: [LimiterSettings; 2]) -> Self {
        Self { counts: [(); 2].map(|()| Arc::default()), limits }
    }

    fn replica(
        &self,
        number: usize,
        metrics: std::ops::Range<usize>,
        mind: std::ops::Range<usize>,
    ) -> Replica {
        let gateway = gateway();
        let [of_metrics, of_mind] = &self.counts;
        gateway.supermetrics.shares(self.limits[0], of_metrics.join(number));
        gateway.mindbridge.shares(self.limits[1], of_mind.join(number));
        let logs = [log(&gateway.supermetrics, |_| false), log(&gateway.mindbridge, |_| false)];
        keep_watching(&gateway, "watcher", refs("metrics", metrics));
        keep_watching(&gateway, "watcher", refs("mind", mind));
        let stop = CancellationToken::new();
        gateway.jobs.start_following(stop.clone());
        Replica { gateway, logs, stop }
    }

    /// Stops a replica, and informs the others.
    fn kill(&self, number: usize, replica: &Replica) {
        replica.stop.cancel();
        for count in &self.counts {
            let mut replicas = count.replicas.lock().unwrap();
            let lost_at = Some(Instant::now());
            let needs = replicas.get_mut(&number).unwrap();
            *needs = Needs { demand: 0, lost_at, ..*needs };
        }
    }
}

/// The polls of one source by all replicas.
fn all(replicas: &[Replica], source: usize) -> Log {
    let all = Log::default();
    for replica in replicas {
        for (id, request) in replica.logs[source].lock().unwrap().iter() {
            let mut all = all.lock().unwrap();
            let times = all.entry(id.clone()).or_default();
            times.extend(request);
            times.sort_unstable();
        }
    }
    all
}

fn calls(replicas: &[Replica]) -> (usize, usize) {
    let of =
        |reader: fn(&TestGateway) -> usize| replicas.iter().map(|replica| reader(&replica.gateway)).sum();
    (of(|gateway| gateway.supermetrics.calls()), of(|gateway| gateway.mindbridge.calls()))
}

/// What one hour of replicas with ten times too many jobs came to.
#[derive(Debug)]
struct Uneven {
    /// The calls of each source by all replicas, and the longest time between two polls of one of its jobs.
    supermetrics: (usize, Duration),
    mindbridge: (usize, Duration),
    /// The answers to callers that were stale.
    stale: Vec<String>,
}

/// The outcome of one such hour for several tests.
async fn uneven() -> &'static Uneven {
    static RUN: OnceCell<Uneven> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(follow_uneven_jobs())).await
}

/// Ten times too many jobs, of which the replicas follow very different numbers, while callers query the one without
/// jobs.
async fn follow_uneven_jobs() -> Uneven {
    let cluster = Cluster::new([limits(1_000), limits(60)]);
    let start = Instant::now();
    let replicas = [
        cluster.replica(0, 0..90, 0..350),
        cluster.replica(1, 90..100, 350..450),
        cluster.replica(2, 0..0, 0..0),
    ];
    let mut stale = Vec::new();
    for number in 0..95 {
        tokio::time::sleep(Duration::from_secs(37)).await;
        let one = [reference("metrics", &format!("x{number}"))];
        let answer = replicas[2].gateway.jobs.lookup(&client("caller"), &one, None).await.pop().unwrap();
        if !matches!(&answer, Ok(answer) if answer.stale.is_none()) {
            stale.push(format!("caller {number} at {:?}: {answer:?}", start.elapsed()));
        }
    }
    tokio::time::sleep_until(start + HOUR).await;
    let (metrics, mind) = calls(&replicas);
    Uneven {
        supermetrics: (metrics, longest_gap(&all(&replicas, 0), start, 100)),
        mindbridge: (mind, longest_gap(&all(&replicas, 1), start, 450)),
        stale,
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_with_uneven_jobs_bound_the_gap_between_polls() {
    let Uneven { supermetrics, mindbridge, .. } = uneven().await;
    for ((_, longest), requests, background) in [(supermetrics, 100, 800), (mindbridge, 9, 48)] {
        let bound = HOUR * 2 * requests / background;
        assert!(*longest <= bound, "{longest:?} of {bound:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_with_uneven_jobs_use_and_do_not_exceed_the_budget() {
    let Uneven { supermetrics, mindbridge, .. } = uneven().await;
    assert!((850..=1_000).contains(&supermetrics.0), "{} calls of 1,000", supermetrics.0);
    assert!((45..=60).contains(&mindbridge.0), "{} calls of 60", mindbridge.0);
}

#[tokio::test(start_paused = true)]
async fn replicas_with_uneven_jobs_leave_callers_their_share() {
    assert_eq!(uneven().await.stale, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_gets_the_share_of_a_dead_one() {
    let cluster = Cluster::new([limits(1_000), limits(60)]);
    let start = Instant::now();
    let mut replicas = vec![cluster.replica(0, 0..30, 0..50), cluster.replica(1, 30..100, 50..450)];
    tokio::time::sleep(HOUR * 2 / 3).await;
    cluster.kill(1, &replicas[1]);
    replicas.push(cluster.replica(2, 30..100, 50..450));
    tokio::time::sleep_until(start + HOUR * 3 / 2).await;
    let bound = HOUR * 2 * 100 / 800;
    let longest = longest_gap(&all(&replicas, 0), start, 100);
    assert!(longest <= bound, "{longest:?} of {bound:?}");
    let bound = HOUR * 2 * 9 / 48;
    let longest = longest_gap(&all(&replicas, 1), start, 450);
    assert!(longest <= bound, "{longest:?} of {bound:?}");
}
