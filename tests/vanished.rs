//! An observed job that is not found any more, of an upstream that documents no expiry; and answers of intermediaries.
//! Neither is a statement about the job, so neither completes it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::watch::{UpdateKind, WatchUpdate};
use jobgate::ports::upstream::{Detail, FetchError};
use jobgate_simulator::{FaultKind, MindBridgeJob, SimFault, SimUpstream};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, TestGateway, gateway, reference};
use crate::support::server::{Setup, external};

const SECOND: Duration = Duration::from_secs(1);
const STALE: Option<StaleReason> = Some(StaleReason::BadAnswer);

fn following() -> TestGateway {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    gateway
}

fn watch(gateway: &TestGateway, id: &str) -> impl Stream<Item = WatchUpdate> + Send + Unpin + use<> {
    gateway.jobs.watch(Principal::local(), vec![reference("mind", id)], None).boxed()
}

type Short = (UpdateKind, Result<JobState, ProblemCode>, Option<StaleReason>, bool);

fn short(update: &WatchUpdate) -> Short {
    let answer = update.answer.as_ref();
    let state = answer.map(|seen| seen.observation.job.state()).map_err(|problem| problem.code);
    (update.kind, state, answer.ok().and_then(|seen| seen.stale), update.is_final)
}

async fn lookup(gateway: &TestGateway, id: &str) -> (Result<JobState, ProblemCode>, Option<StaleReason>) {
    let answer =
        gateway.jobs.lookup_one(&Principal::local(), reference("mind", id), Some(Duration::ZERO)).await;
    let stale = answer.as_ref().ok().and_then(|seen| seen.stale);
    (answer.map(|seen| seen.observation.job.state()).map_err(|problem| problem.code), stale)
}

#[tokio::test(start_paused = true)]
async fn a_vanished_job_keeps_its_state_until_it_reappears() {
    let gateway = gateway();
    assert_eq!(lookup(&gateway, "a").await, (Ok(JobState::Running), None));
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    for _ in 0..3 {
        tokio::time::advance(SECOND * 600).await;
        assert_eq!(lookup(&gateway, "a").await, (Ok(JobState::Running), STALE));
    }
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    tokio::time::advance(SECOND).await;
    assert_eq!(lookup(&gateway, "a").await, (Ok(JobState::Succeeded), None));
}

/// As for an unknown job: a caller that allows it is answered from the cache.
#[tokio::test(start_paused = true)]
async fn not_found_for_a_vanished_job_is_cached_briefly() {
    let gateway = gateway();
    lookup(&gateway, "a").await.0.unwrap();
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    tokio::time::advance(SECOND * 3).await;
    lookup(&gateway, "a").await.0.unwrap();
    let calls = gateway.mindbridge.calls();
    for _ in 0..50 {
        let answer = gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await;
        assert_eq!(answer.unwrap().stale, STALE);
    }
    assert_eq!(gateway.mindbridge.calls(), calls);
}

/// Watches a job that vanishes until the watch ends: its updates, and how long the job was missing.
async fn watched_until_missing(gateway: &TestGateway) -> (Vec<Short>, Duration) {
    let mut watching = watch(gateway, "a");
    let mut updates = vec![short(&watching.next().await.unwrap())];
    tokio::time::sleep(SECOND * 20).await;
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    let gone = Instant::now();
    updates.extend(watching.map(|update| short(&update)).collect::<Vec<_>>().await);
    (updates, gone.elapsed())
}

#[tokio::test(start_paused = true)]
async fn watchers_of_a_vanished_job_get_one_final_not_found() {
    let gateway = following();
    let (updates, lasted) = watched_until_missing(&gateway).await;
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Changed, Ok(JobState::Running), STALE, false),
        (UpdateKind::Ended, Err(ProblemCode::NotFound), None, true),
    ];
    assert_eq!(updates, expected);
    assert!(lasted >= FOLLOW.missing_for && lasted < FOLLOW.missing_for + SECOND * 70, "{lasted:?}");
    assert_eq!(gateway.mindbridge.probes.load(Ordering::Relaxed), 1, "no other job was read");
}

#[tokio::test(start_paused = true)]
async fn a_vanished_job_is_not_followed_after_its_final_update() {
    let gateway = following();
    watched_until_missing(&gateway).await;
    tokio::time::sleep(SECOND * 100).await;
    let calls = gateway.mindbridge.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(gateway.mindbridge.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_vanished_job_is_fetched_again_for_later_clients() {
    let gateway = following();
    watched_until_missing(&gateway).await;
    tokio::time::sleep(SECOND * 700).await;
    let calls = gateway.mindbridge.calls();
    assert_eq!(lookup(&gateway, "a").await, (Ok(JobState::Running), STALE));
    assert_eq!(gateway.mindbridge.calls(), calls + 1);
    let mut again = watch(&gateway, "a");
    assert_eq!(
        short(&again.next().await.unwrap()),
        (UpdateKind::Snapshot, Ok(JobState::Running), STALE, false)
    );
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    let rest: Vec<Short> = again.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Ok(JobState::Succeeded), None, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_job_ends_only_once_its_source_is_verified() {
    let gateway = following();
    let mut watching = watch(&gateway, "a");
    watching.next().await.unwrap();
    gateway.mindbridge.probe_fails.store(true, Ordering::Relaxed);
    gateway
        .mindbridge
        .respond_with(|id| if id.as_str() == "b" { Ok(Life::Running) } else { Err(FetchError::NotFound) });
    assert_eq!(short(&watching.next().await.unwrap()).2, STALE);
    let silent = tokio::time::timeout(SECOND * 3600, watching.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    let probes = gateway.mindbridge.probes.load(Ordering::Relaxed);
    assert!((1..=125).contains(&probes), "{probes} probes in an hour");
    // another job gets the answer of the upstream
    lookup(&gateway, "b").await.0.unwrap();
    let rest: Vec<Short> = watching.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true)]);
}

#[tokio::test(start_paused = true)]
async fn any_other_answer_restarts_the_missing_for_period() {
    let gateway = following();
    let start = Instant::now();
    gateway.mindbridge.respond_with(move |_| match start.elapsed().as_secs() {
        0..10 => Ok(Life::Running),
        // a proxy's page in between, for long enough to affect every poll
        60..130 => Err(FetchError::BadAnswer(Detail::new("planted"))),
        _ => Err(FetchError::NotFound),
    });
    let updates: Vec<Short> = watch(&gateway, "a").map(|update| short(&update)).collect().await;
    assert_eq!(updates.last().unwrap(), &(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true));
    assert_eq!(updates.len(), 3, "the reason of the staleness does not change: {updates:?}");
    assert!(start.elapsed() >= SECOND * 130 + FOLLOW.missing_for, "{:?}", start.elapsed());
}

/// Short waits of other clients, one after the other, do not delay the final update of those who stay.
#[tokio::test(start_paused = true)]
async fn short_waits_of_others_do_not_put_off_the_end() {
    let gateway = following();
    let mut watching = watch(&gateway, "a");
    watching.next().await.unwrap();
    tokio::time::sleep(SECOND * 20).await;
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    let gone = Instant::now();
    let ended = watching.map(|update| short(&update)).collect::<Vec<Short>>();
    let others = async {
        for _ in 0..60 {
            let other = watch(&gateway, "a").for_each(|_| std::future::ready(()));
            tokio::time::timeout(SECOND * 20, other).await.ok();
        }
    };
    let updates = tokio::select! {
        updates = ended => updates,
        () = others => panic!("not complete after {:?}", gone.elapsed()),
    };
    assert_eq!(updates.last().unwrap(), &(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true));
    let lasted = gone.elapsed();
    assert!(lasted >= FOLLOW.missing_for && lasted < FOLLOW.missing_for + SECOND * 70, "{lasted:?}");
}

/// A client that comes after the final update has the job followed again, and no earlier watcher loses its final
/// update.
#[tokio::test(start_paused = true)]
async fn a_newcomer_takes_the_end_from_no_earlier_watcher() {
    let gateway = following();
    let mut watching = watch(&gateway, "a");
    watching.next().await.unwrap();
    gateway.mindbridge.respond_with(|_| Err(FetchError::NotFound));
    tokio::time::sleep(FOLLOW.missing_for * 3).await;
    let mut newcomer = watch(&gateway, "a");
    let snapshot = (UpdateKind::Snapshot, Ok(JobState::Running), STALE, false);
    assert_eq!(short(&newcomer.next().await.unwrap()), snapshot);
    let rest: Vec<Short> = watching.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true)]);
    // the new client's own wait continues
    gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
    let rest: Vec<Short> = newcomer.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Ok(JobState::Succeeded), None, true)]);
}

/// An ingress without a route, for a moment: 80 of 80 jobs keep their state, and each completes once the route is back.
#[tokio::test]
async fn a_404_from_an_ingress_ends_no_job() {
    let ids: Vec<String> = (0..80).map(|number| format!("job{number}")).collect();
    let jobs = ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let rig = Setup::with(jobs.collect(), vec![]).start().await;
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    assert_eq!(rig.lookup_all(&refs).await, vec!["RUNNING"; 80]);
    let own = FaultKind::problem(404, "NOT_FOUND");
    for fault in [FaultKind::no_route(404), FaultKind::no_route(410), FaultKind::html(404), own] {
        rig.upstreams.clear_faults(None);
        rig.upstreams.push_fault(SimFault::always(SimUpstream::MindBridge, fault.clone()));
        let query = "query($refs: [JobRef!]!) { jobs(refs: $refs, maxStaleness: \"0ms\") { ... on Job { state isTerminal freshness { isStale staleReason } } ... on JobProblem { code } } }";
        let answer = rig.execute(query, json!({ "refs": refs })).await;
        let stale = json!({ "isStale": true, "staleReason": "BAD_ANSWER" });
        let kept = json!({ "state": "RUNNING", "isTerminal": false, "freshness": stale });
        assert_eq!(answer.data()["jobs"], Value::from(vec![kept; 80]), "{fault:?}");
    }
    rig.upstreams.clear_faults(None);
    rig.upstreams.push_fault(SimFault::always(
        SimUpstream::MindBridge,
        FaultKind::set("/content/*/status", json!("COMPLETE")),
    ));
    let ended = async |max| {
        let query = "query($refs: [JobRef!]!, $max: Duration) { jobs(refs: $refs, maxStaleness: $max) { ... on Job { state } } }";
        rig.execute(query, json!({ "refs": refs, "max": max })).await.data()["jobs"].take()
    };
    assert_eq!(ended("0ms").await, Value::from(vec![json!({ "state": "SUCCEEDED" }); 80]));
}
