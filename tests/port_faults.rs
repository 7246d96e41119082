//! Faults at every port, by hundreds of seeds on a paused clock: a delivered terminal state is never withdrawn or
//! changed, no watcher misses it once the faults stop, each receives an ordered sequence with one terminal state, the
//! budget is kept, and nothing hangs or leaks. A failure prints its seed.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::pace::PollIntervals;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::tracking::Labels;
use jobgate::jobs::visibility::RequestedRef;
use jobgate::jobs::watch::WatchUpdate;
use jobgate::jobs::{FollowSettings, Jobs};
use jobgate::outbound::stores::embedded::{EmbeddedSettings, EmbeddedStore, RowLimits};
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::ports::clock::Clock;
use jobgate::ports::ledger::Ledger;
use jobgate::ports::store::JobStore;
use jobgate::ports::upstream::FetchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::faults::{Fault, FaultInjector, ports};
use crate::support::ports::{FOLLOW, RuntimeClock, TestGateway, gateway_with, reference, retention};
use crate::support::scratch::ScratchFolder;

mod disk;
mod model;

use model::{Before, Gated, Log, Middle, OneKey, PER_SECOND, Plan, RandomNotifications, rank, stage};

const PACED: FollowSettings = FollowSettings {
    pace: PollIntervals { fastest: Duration::from_secs(2), slowest: Duration::from_secs(30) },
    ..FOLLOW
};
/// For how long calls get faults.
const FAULTY_FOR: Duration = Duration::from_secs(90);
/// The limit of a client's request: several times what a store and a source may take together.
const ANSWER: Duration = Duration::from_mins(2);
/// By when everything has completed: the last job upstream, and a fetch that hung when the faults stopped.
const ALL_OVER: Duration = Duration::from_mins(30);

#[test]
fn port_faults_revert_no_delivered_state_and_cause_no_hang() {
    for seed in 0..300 {
        trial(seed, None);
    }
}

#[test]
fn port_faults_with_an_embedded_store_revert_no_state() {
    for seed in 1_000..1_012 {
        trial(seed, Some(ScratchFolder::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_read_failure_does_not_make_a_job_missing() {
    let store = Arc::new(MemoryStore::new(retention()));
    let unreadable = FaultInjector::only("store.get", Fault::Error);
    let clock = Arc::new(RuntimeClock::default());
    let before = |plain| ports::all(plain, &unreadable);
    let gateway = gateway_with(FOLLOW, clock, store, Arc::new(NoLedger), before);
    let (local, job) = (Principal::local(), reference("metrics", "j"));
    assert!(gateway.jobs.lookup_one(&local, job.clone(), None).await.is_ok());
    gateway.supermetrics.respond_with(|_| Err(FetchError::NotFound));
    let lookup_result = gateway.jobs.lookup_one(&local, job.clone(), Some(Duration::ZERO)).await;
    assert_eq!(lookup_result.unwrap_err().code, ProblemCode::Unavailable);
    unreadable.stop();
    let lookup_result = gateway.jobs.lookup_one(&local, job, Some(Duration::ZERO)).await;
    assert_eq!(lookup_result.unwrap().observation.job.state(), JobState::Expired, "it exists");
}

fn trial(seed: u64, folder: Option<ScratchFolder>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let faults = runtime.unwrap().block_on(play(seed, folder));
    assert!(faults.is_empty(), "seed {seed}:\n{}", faults.join("\n"));
}

/// The state that all actors share.
struct World {
    jobs: Jobs,
    plans: Vec<Plan>,
    log: Log,
    began: Instant,
}

async fn play(seed: u64, folder: Option<ScratchFolder>) -> Vec<String> {
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let plans: Vec<Plan> = (0..4).map(|number| Plan::draw(&mut rng, number)).collect();
    let injector = FaultInjector::seeded(seed);
    let (gateway, sources) = gateway(&plans, &injector, &mut rng, folder.as_ref());
    let world = World { jobs: gateway.jobs.clone(), plans, log: Log::default(), began: Instant::now() };
    let stop = CancellationToken::new();
    world.jobs.start_following(stop.clone());

    let mut watchers = Vec::new();
    for place in 0..world.plans.len() {
        let late = Duration::from_millis(rng.u64(..100_000));
        let fresh = rng.bool().then_some(Duration::from_secs(5));
        watchers.push(watcher(&world, vec![place], Duration::from_millis(rng.u64(..9_000)), fresh));
        watchers.push(watcher(&world, vec![place, (place + 1) % world.plans.len()], late, None));
    }
    let client_tasks = (0..2).map(|_| client_task(&world, Rng::with_seed(rng.u64(..))));
    let calm = async {
        tokio::time::sleep(FAULTY_FOR).await;
        injector.stop();
    };
    let all = async { tokio::join!(join_all(watchers), join_all(client_tasks), calm) };
    if tokio::time::timeout(ALL_OVER, all).await.is_err() {
        world.log.fault("a client still waits long after the faults have stopped".to_owned());
    }
    for source in &sources {
        let most = source.most_in_a_second();
        if most > PER_SECOND {
            world.log.fault(format!("{most} calls within a second"));
        }
    }
    // each watcher receives at least an update of each of its jobs; how much other clients receive depends on the
    // faults
    if world.log.reported() < 3 * world.plans.len() || injector.met().is_empty() {
        world.log.fault("nothing was tried".to_owned());
    }
    nothing_stays(&world, &gateway, stop).await;
    world.log.faults()
}

/// All clients are gone: polling stops, and every task ends.
async fn nothing_stays(world: &World, gateway: &TestGateway, stop: CancellationToken) {
    let refs: Vec<RequestedRef> = world.plans.iter().map(Plan::reference).collect();
    world.jobs.untrack(&Principal::local(), &refs).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    if world.jobs.followed() > 0 {
        world.log.fault(format!("{} jobs are followed without a subscriber", world.jobs.followed()));
    }
    if gateway.spawner.fatal().now_or_never().is_some() {
        world.log.fault("a task died without which the process ends".to_owned());
    }
    stop.cancel();
    if tokio::time::timeout(Duration::from_mins(10), gateway.spawner.idle()).await.is_err() {
        world.log.fault("a task did not end".to_owned());
    }
    world.jobs.close().await;
}

fn gateway(
    plans: &[Plan],
    injector: &Arc<FaultInjector>,
    rng: &mut Rng,
    folder: Option<&ScratchFolder>,
) -> (TestGateway, Vec<Arc<Gated>>) {
    let clock: Arc<dyn Clock> = Arc::new(RuntimeClock::default());
    let (store, ledger): (Arc<dyn JobStore>, Arc<dyn Ledger>) = match folder {
        None => (Arc::new(MemoryStore::new(retention())), Arc::new(NoLedger)),
        Some(folder) => {
            let (path, max_bytes, rows) = (folder.path().to_owned(), 64 << 20, RowLimits::default());
            let settings = EmbeddedSettings { path, max_bytes, rows, retention: retention() };
            let store = Arc::new(EmbeddedStore::open(settings, Arc::clone(&clock)).unwrap());
            (Arc::new(disk::BlockingStore(Arc::clone(&store))), Arc::new(disk::BlockingStore(store)))
        }
    };
    let mut sources = Vec::new();
    let notifications = RandomNotifications {
        keys: plans.iter().map(Plan::key).collect(),
        rng: Mutex::new(Rng::with_seed(rng.u64(..))),
    };
    let gateway = gateway_with(PACED, clock, store, ledger, |mut plain| {
        plain.feed = Arc::new(notifications);
        let credentials = ports::faulty(Arc::new(OneKey) as Arc<_>, injector);
        let entropy = ports::faulty(Arc::new(Middle) as Arc<_>, injector);
        for reader in &mut plain.readers {
            let gated = Gated::new(Arc::clone(reader), credentials.clone(), entropy.clone());
            sources.push(Arc::clone(&gated));
            *reader = gated;
        }
        ports::all(plain, injector)
    });
    let began = Instant::now();
    for reader in [&gateway.mindbridge, &gateway.supermetrics] {
        let plans = plans.to_vec();
        reader.respond_with_job(move |id| {
            let plan = plans.iter().find(|plan| plan.id == id.as_str()).unwrap();
            plan.at(began.elapsed())
        });
    }
    (gateway, sources)
}

/// Watches jobs until they complete, and reconnects when a panic aborts the stream.
async fn watcher(world: &World, places: Vec<usize>, late: Duration, fresh: Option<Duration>) {
    tokio::time::sleep(late).await;
    loop {
        let watching = AssertUnwindSafe(watch(world, &places, fresh)).catch_unwind();
        if watching.await.is_ok_and(|over| over) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Watches jobs once. Returns whether all of them completed.
async fn watch(world: &World, places: &[usize], fresh: Option<Duration>) -> bool {
    let Ok(principal) = world.jobs.authenticate(None) else { return false };
    let plans: Vec<&Plan> = places.iter().map(|place| &world.plans[*place]).collect();
    let before: Vec<Before> = plans.iter().map(|plan| world.log.before(plan)).collect();
    let refs: Vec<RequestedRef> = plans.iter().map(|plan| plan.reference()).collect();
    let mut logs = vec![WatcherLog::default(); places.len()];
    let mut stream = Box::pin(world.jobs.watch(principal, refs.clone(), fresh));
    while let Some(update) = stream.next().await {
        let place = refs.iter().position(|reference| *reference == *update.reference).unwrap();
        let answer = update.answer.clone().map(Arc::unwrap_or_clone);
        world.log.answered(plans[place], before[place], &answer, world.began.elapsed());
        if let Some(fault) = logs[place].record(&update) {
            world.log.fault(format!("{}: {fault}", plans[place].id));
        }
    }
    if !logs.iter().all(|logs| logs.over) {
        world.log.fault("a stream ended before its jobs".to_owned());
    }
    true
}

/// What one watcher received about one job.
#[derive(Clone, Debug, Default)]
struct WatcherLog {
    sequence: Option<u64>,
    stage: Option<(usize, u8)>,
    over: bool,
}

impl WatcherLog {
    /// Records an update. Returns a description of what is wrong with it.
    fn record(&mut self, update: &WatchUpdate) -> Option<String> {
        if self.over {
            return Some(format!("an update after the last: {update:?}"));
        }
        let before = self.clone();
        self.sequence = Some(update.sequence);
        self.over = update.is_final;
        if before.sequence.is_some_and(|before| before >= update.sequence) {
            return Some(format!("numbered {} after {before:?}", update.sequence));
        }
        let Ok(seen) = &update.answer else { return None };
        let (run, state) = stage(&seen.observation.job);
        self.stage = Some((run, rank(state)));
        if before.stage > self.stage {
            return Some(format!("out of order: {run} {state:?} after {before:?}"));
        }
        (state.is_terminal() != update.is_final)
            .then(|| format!("{state:?} with is_final {}", update.is_final))
    }
}

/// Sends random requests until the faults are over, and one for every job after that.
async fn client_task(world: &World, mut rng: Rng) {
    while world.began.elapsed() < FAULTY_FOR * 2 {
        let question = AssertUnwindSafe(execute(world, &mut rng)).catch_unwind();
        // A panic affects one request.
        drop(question.await);
        tokio::time::sleep(Duration::from_millis(rng.u64(50..10_000))).await;
    }
}

async fn execute(world: &World, rng: &mut Rng) {
    let Ok(principal) = world.jobs.authenticate(None) else { return };
    let plan = &world.plans[rng.usize(..world.plans.len())];
    let before = world.log.before(plan);
    let reference = plan.reference();
    let fresh = [None, Some(Duration::ZERO), Some(Duration::from_mins(1))][rng.usize(..3)];
    match rng.u8(..10) {
        0 => {
            // Only the timeout of the handler limits it, as every request.
            let labels = Labels::from([("by".to_owned(), "seed".to_owned())]);
            let refs = [reference];
            let tracked = world.jobs.track(&principal, &refs, &labels);
            tokio::time::timeout(ANSWER, tracked).await.ok();
        }
        1 => {
            let timeout = Duration::from_secs(rng.u64(1..40));
            let waiting = world.jobs.await_end(&principal, reference, timeout);
            match tokio::time::timeout(ANSWER, waiting).await {
                // A caller that is no longer authorized gets an empty answer.
                Ok(Err(_)) => {}
                Ok(answer) => world.log.answered(plan, before, &answer, world.began.elapsed()),
                Err(_) => world.log.fault(format!("waiting for {} hangs", plan.id)),
            }
        }
        2 => {
            let answer = world.jobs.lookup_one(&principal, reference, fresh).await;
            if let Ok(seen) = answer {
                let rows = world.jobs.rows(&principal, &seen.observation, 5, None);
                tokio::time::timeout(ANSWER, rows).await.ok();
            }
        }
        _ => {
            let lookup_result = world.jobs.lookup_one(&principal, reference, fresh);
            match tokio::time::timeout(ANSWER, lookup_result).await {
                Ok(answer) => world.log.answered(plan, before, &answer, world.began.elapsed()),
                Err(_) => world.log.fault(format!("a request for {} hangs", plan.id)),
            }
        }
    }
}
