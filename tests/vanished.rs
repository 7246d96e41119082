//! A job that was seen and is not found any more, of an upstream that documents no expiry; and answers of whoever stands
//! between. Neither is a statement about a job, so neither ends one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::jobs::answer::StaleReason;
use jobgate::jobs::watch::{Update, UpdateKind};
use jobgate::ports::upstream::{Detail, LookError};
use jobgate::simulator::{Fault, FaultKind, MindBridgeJob, Upstream};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::ports::{FOLLOW, House, house, reference};
use crate::support::server::{Setup, external};

const SECOND: Duration = Duration::from_secs(1);
const STALE: Option<StaleReason> = Some(StaleReason::BadAnswer);

fn following() -> House {
    let house = house();
    house.jobs.start_following(CancellationToken::new());
    house
}

fn watch(house: &House, id: &str) -> impl Stream<Item = Update> + Send + Unpin + use<> {
    house.jobs.watch(Principal::local(), vec![reference("mind", id)], None).boxed()
}

type Short = (UpdateKind, Result<JobState, ProblemCode>, Option<StaleReason>, bool);

fn short(update: &Update) -> Short {
    let answer = update.answer.as_ref();
    let state = answer.map(|seen| seen.observation.job.state()).map_err(|problem| problem.code);
    (update.kind, state, answer.ok().and_then(|seen| seen.stale), update.is_final)
}

async fn look(house: &House, id: &str) -> (Result<JobState, ProblemCode>, Option<StaleReason>) {
    let answer =
        house.jobs.lookup_one(&Principal::local(), reference("mind", id), Some(Duration::ZERO)).await;
    let stale = answer.as_ref().ok().and_then(|seen| seen.stale);
    (answer.map(|seen| seen.observation.job.state()).map_err(|problem| problem.code), stale)
}

#[tokio::test(start_paused = true)]
async fn a_vanished_job_keeps_its_state_and_heals() {
    let house = house();
    assert_eq!(look(&house, "a").await, (Ok(JobState::Running), None));
    house.mind.says(|_| Err(LookError::NotFound));
    for _ in 0..3 {
        tokio::time::advance(SECOND * 600).await;
        assert_eq!(look(&house, "a").await, (Ok(JobState::Running), STALE));
    }
    house.mind.says(|_| Ok(Life::Succeeded));
    tokio::time::advance(SECOND).await;
    assert_eq!(look(&house, "a").await, (Ok(JobState::Succeeded), None));
}

/// As "no such job" is: whoever allows it is answered from what was learned a moment ago.
#[tokio::test(start_paused = true)]
async fn that_a_job_vanished_is_believed_briefly() {
    let house = house();
    look(&house, "a").await.0.unwrap();
    house.mind.says(|_| Err(LookError::NotFound));
    tokio::time::advance(SECOND * 3).await;
    look(&house, "a").await.0.unwrap();
    let calls = house.mind.calls();
    for _ in 0..50 {
        let answer = house.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await;
        assert_eq!(answer.unwrap().stale, STALE);
    }
    assert_eq!(house.mind.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn watchers_of_a_vanished_job_get_one_final_not_found() {
    let house = following();
    let mut watching = watch(&house, "a");
    let mut told = vec![short(&watching.next().await.unwrap())];
    tokio::time::sleep(SECOND * 20).await;
    house.mind.says(|_| Err(LookError::NotFound));
    let gone = Instant::now();
    told.extend(watching.map(|update| short(&update)).collect::<Vec<_>>().await);
    let expected = [
        (UpdateKind::Snapshot, Ok(JobState::Running), None, false),
        (UpdateKind::Changed, Ok(JobState::Running), STALE, false),
        (UpdateKind::Ended, Err(ProblemCode::NotFound), None, true),
    ];
    assert_eq!(told, expected);
    let lasted = gone.elapsed();
    assert!(lasted >= FOLLOW.missing_for && lasted < FOLLOW.missing_for + SECOND * 70, "{lasted:?}");
    assert_eq!(house.mind.probes.load(Ordering::Relaxed), 1, "no other job spoke for the source");
    tokio::time::sleep(SECOND * 100).await;
    let calls = house.mind.calls();
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(house.mind.calls(), calls, "the following has ended");
    // later reads and new watches fetch again
    assert_eq!(look(&house, "a").await, (Ok(JobState::Running), STALE));
    assert_eq!(house.mind.calls(), calls + 1);
    let mut again = watch(&house, "a");
    assert_eq!(
        short(&again.next().await.unwrap()),
        (UpdateKind::Snapshot, Ok(JobState::Running), STALE, false)
    );
    house.mind.says(|_| Ok(Life::Succeeded));
    let rest: Vec<Short> = again.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Ok(JobState::Succeeded), None, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_proves_nothing_ends_no_following() {
    let house = following();
    let mut watching = watch(&house, "a");
    watching.next().await.unwrap();
    house.mind.probe_fails.store(true, Ordering::Relaxed);
    house.mind.says(|id| if id.as_str() == "b" { Ok(Life::Running) } else { Err(LookError::NotFound) });
    assert_eq!(short(&watching.next().await.unwrap()).2, STALE);
    let silent = tokio::time::timeout(SECOND * 3600, watching.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    let probes = house.mind.probes.load(Ordering::Relaxed);
    assert!((1..=125).contains(&probes), "{probes} probes in an hour");
    // another job is answered as the upstream does
    look(&house, "b").await.0.unwrap();
    let rest: Vec<Short> = watching.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_another_kind_starts_the_wait_anew() {
    let house = following();
    let start = Instant::now();
    house.mind.says(move |_| match start.elapsed().as_secs() {
        0..10 => Ok(Life::Running),
        // a proxy's page in between, for long enough to meet every look
        60..130 => Err(LookError::BadAnswer(Detail::new("planted"))),
        _ => Err(LookError::NotFound),
    });
    let told: Vec<Short> = watch(&house, "a").map(|update| short(&update)).collect().await;
    assert_eq!(told.last().unwrap(), &(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true));
    assert_eq!(told.len(), 3, "the reason of the staleness stays the same: {told:?}");
    assert!(start.elapsed() >= SECOND * 130 + FOLLOW.missing_for, "{:?}", start.elapsed());
}

/// Others who wait for a moment, one after the other, do not put off the end of those who stay.
#[tokio::test(start_paused = true)]
async fn short_waits_of_others_do_not_put_off_the_end() {
    let house = following();
    let mut watching = watch(&house, "a");
    watching.next().await.unwrap();
    tokio::time::sleep(SECOND * 20).await;
    house.mind.says(|_| Err(LookError::NotFound));
    let gone = Instant::now();
    let ended = watching.map(|update| short(&update)).collect::<Vec<Short>>();
    let others = async {
        for _ in 0..60 {
            let other = watch(&house, "a").for_each(|_| std::future::ready(()));
            tokio::time::timeout(SECOND * 20, other).await.ok();
        }
    };
    let told = tokio::select! {
        told = ended => told,
        () = others => panic!("not ended after {:?}", gone.elapsed()),
    };
    assert_eq!(told.last().unwrap(), &(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true));
    let lasted = gone.elapsed();
    assert!(lasted >= FOLLOW.missing_for && lasted < FOLLOW.missing_for + SECOND * 70, "{lasted:?}");
}

/// Whoever comes after the end has the job followed again, and takes the end from nobody who has not read it yet.
#[tokio::test(start_paused = true)]
async fn a_newcomer_takes_the_end_from_no_earlier_watcher() {
    let house = following();
    let mut watching = watch(&house, "a");
    watching.next().await.unwrap();
    house.mind.says(|_| Err(LookError::NotFound));
    tokio::time::sleep(FOLLOW.missing_for * 3).await;
    let mut newcomer = watch(&house, "a");
    let snapshot = (UpdateKind::Snapshot, Ok(JobState::Running), STALE, false);
    assert_eq!(short(&newcomer.next().await.unwrap()), snapshot);
    let rest: Vec<Short> = watching.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Err(ProblemCode::NotFound), None, true)]);
    // the newcomer's own wait goes on
    house.mind.says(|_| Ok(Life::Succeeded));
    let rest: Vec<Short> = newcomer.map(|update| short(&update)).collect().await;
    assert_eq!(rest, [(UpdateKind::Ended, Ok(JobState::Succeeded), None, true)]);
}

/// An ingress without a route, for a moment: 80 of 80 jobs keep their state, and each ends once it is back.
#[tokio::test]
async fn an_ingress_that_answers_404_ends_none_of_80_jobs() {
    let ids: Vec<String> = (0..80).map(|number| format!("job{number}")).collect();
    let jobs = ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let rig = Setup::with(jobs.collect(), vec![]).start().await;
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    assert_eq!(rig.look_at(&refs).await, vec!["RUNNING"; 80]);
    let own = FaultKind::problem(404, "NOT_FOUND");
    for fault in [FaultKind::no_route(404), FaultKind::no_route(410), FaultKind::html(404), own] {
        rig.upstreams.clear_faults(None);
        rig.upstreams.push_fault(Fault::always(Upstream::MindBridge, fault.clone()));
        let query = "query($refs: [JobRef!]!) { jobs(refs: $refs, maxStaleness: \"0ms\") { ... on Job { state isTerminal freshness { isStale staleReason } } ... on JobProblem { code } } }";
        let answer = rig.ask(query, json!({ "refs": refs })).await;
        let stale = json!({ "isStale": true, "staleReason": "BAD_ANSWER" });
        let kept = json!({ "state": "RUNNING", "isTerminal": false, "freshness": stale });
        assert_eq!(answer.data()["jobs"], Value::from(vec![kept; 80]), "{fault:?}");
    }
    rig.upstreams.clear_faults(None);
    rig.upstreams.push_fault(Fault::always(
        Upstream::MindBridge,
        FaultKind::set("/content/*/status", json!("COMPLETE")),
    ));
    let ended = async |max| {
        let query = "query($refs: [JobRef!]!, $max: Duration) { jobs(refs: $refs, maxStaleness: $max) { ... on Job { state } } }";
        rig.ask(query, json!({ "refs": refs, "max": max })).await.data()["jobs"].take()
    };
    assert_eq!(ended("0ms").await, Value::from(vec![json!({ "state": "SUCCEEDED" }); 80]));
}
