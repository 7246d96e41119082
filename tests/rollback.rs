//! Versions that decrease: rejected until the upstream has repeated them for `poll.verify_interval`, and then accepted,
//! so that no answer that the upstream contradicts is served as fresh.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use jobgate::domain::details::{Details, MindBridgeDetails};
use jobgate::domain::error::ProblemCode;
use jobgate::domain::job::{Job, Life};
use jobgate::domain::observation::Observation;
use jobgate::domain::principal::Principal;
use jobgate::domain::state::JobState;
use jobgate::domain::upstream::Upstream;
use jobgate::jobs::answer::{JobSnapshot, StaleReason};
use jobgate::outbound::redis::SharedStore;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::ports::store::{JobStore as _, StoreOutcome};
use jobgate::ports::upstream::FetchError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::redis_shared_store::{held, key, settings};
use crate::support::ports::{
    FOLLOW, RuntimeClock, TestGateway, gateway, gateway_on, job, reference, retention,
};
use crate::support::redis::Redis;

const SECOND: Duration = Duration::from_secs(1);
const CONFLICT: Option<StaleReason> = Some(StaleReason::ConflictingVersion);

fn versioned(version: i64, life: Life) -> Job {
    let details = MindBridgeDetails { version: Some(version), ..MindBridgeDetails::default() };
    Job { details: Details::MindBridge(Box::new(details)), ..job("mind", "a", Upstream::MindBridge, life) }
}

fn report(gateway: &TestGateway, version: i64, life: Life) {
    gateway.mindbridge.respond_with_job(move |_| Ok(versioned(version, life.clone())));
}

/// Reads once the earlier answer is too old for a caller that requires a new one.
async fn read_new(gateway: &TestGateway) -> JobSnapshot {
    tokio::time::sleep(SECOND).await;
    read(gateway, Some(Duration::ZERO)).await
}

async fn read(gateway: &TestGateway, max: Option<Duration>) -> JobSnapshot {
    gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), max).await.unwrap()
}

fn short(seen: &JobSnapshot) -> (Option<i64>, JobState, Option<StaleReason>) {
    (seen.observation.job.counter(), seen.observation.job.state(), seen.stale)
}

#[tokio::test(start_paused = true)]
async fn a_repeated_lower_version_is_accepted_after_the_interval() {
    let gateway = gateway();
    report(&gateway, 10, Life::Running);
    assert_eq!(short(&read(&gateway, None).await), (Some(10), JobState::Running, None));
    report(&gateway, 4, Life::Succeeded);
    let start = Instant::now();
    while start.elapsed() + SECOND * 30 < FOLLOW.verify_interval {
        tokio::time::sleep(SECOND * 30).await;
        let held = (Some(10), JobState::Running, CONFLICT);
        assert_eq!(short(&read(&gateway, Some(Duration::ZERO)).await), held);
        // also for a caller that would accept an older answer
        assert_eq!(short(&read(&gateway, Some(SECOND * 86_400)).await), held);
    }
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(short(&read(&gateway, Some(Duration::ZERO)).await), (Some(4), JobState::Succeeded, None));
    assert_eq!(
        short(&read(&gateway, None).await),
        (Some(4), JobState::Succeeded, None),
        "and it does not change"
    );
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_lagging_upstream_node_are_never_accepted() {
    let gateway = gateway();
    let start = Instant::now();
    // the true version is reported every fifth minute
    gateway.mindbridge.respond_with_job(move |_| {
        let minute = start.elapsed().as_secs() / 60;
        Ok(versioned(if minute.is_multiple_of(5) { 10 } else { 4 }, Life::Running))
    });
    for minute in 0..240_u32 {
        let seen = read(&gateway, Some(Duration::ZERO)).await;
        let stale = if minute.is_multiple_of(5) { None } else { CONFLICT };
        assert_eq!(short(&seen), (Some(10), JobState::Running, stale), "{minute}");
        tokio::time::sleep_until(start + SECOND * 60 * (minute + 1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn versions_after_a_rollback_are_compared_with_it() {
    let gateway = gateway();
    report(&gateway, 10, Life::Running);
    read(&gateway, None).await;
    for round in 0..3 {
        report(&gateway, 3, Life::Running);
        for _ in 0..2 {
            assert_eq!(short(&read_new(&gateway).await).2, CONFLICT, "{round}");
            tokio::time::sleep(FOLLOW.verify_interval / 2 + SECOND).await;
        }
        assert_eq!(short(&read_new(&gateway).await), (Some(3), JobState::Running, None));
        // higher versions are delivered at once
        for version in 4..8 {
            report(&gateway, version, Life::Running);
            let seen = read_new(&gateway).await;
            assert_eq!(short(&seen), (Some(version), JobState::Running, None), "{round}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_reports_of_a_lower_version_are_not_enough() {
    let gateway = gateway();
    report(&gateway, 10, Life::Running);
    read(&gateway, None).await;
    report(&gateway, 4, Life::Running);
    assert_eq!(short(&read_new(&gateway).await).2, CONFLICT);
    tokio::time::sleep(FOLLOW.verify_interval * 3).await;
    assert_eq!(short(&read_new(&gateway).await).2, CONFLICT, "no read in between");
    assert_eq!(short(&read_new(&gateway).await), (Some(4), JobState::Running, None));
}

/// One replica accepts the rollback while the other waits for the answer to an earlier fetch.
#[tokio::test(start_paused = true)]
async fn an_answer_requested_before_a_rollback_loses_to_it() {
    let (clock, store) = (Arc::new(RuntimeClock::default()), Arc::new(MemoryStore::new(retention())));
    let replica = || gateway_on(FOLLOW, Arc::clone(&clock) as _, Arc::clone(&store) as _, Arc::new(NoLedger));
    let [one, other] = [replica(), replica()];
    report(&one, 10, Life::Running);
    read(&one, None).await;
    report(&one, 4, Life::Running);
    for _ in 0..2 {
        assert_eq!(short(&read_new(&one).await).2, CONFLICT);
        tokio::time::sleep(FOLLOW.verify_interval / 2).await;
    }
    report(&other, 10, Life::Running);
    other.mindbridge.takes(SECOND * 5);
    let accepted = (Some(4), JobState::Running, None);
    let (late, now) = tokio::join!(read(&other, Some(Duration::ZERO)), read_new(&one));
    assert_eq!([short(&now), short(&late)], [accepted, accepted]);
    assert_eq!(short(&read_new(&one).await), accepted, "and it does not change");
    // what is fetched after the rollback counts from there
    report(&other, 5, Life::Succeeded);
    assert_eq!(short(&read_new(&other).await), (Some(5), JobState::Succeeded, None));
}

/// A lower version is an answer about the job: the job was found.
#[tokio::test(start_paused = true)]
async fn a_lower_version_starts_the_wait_for_a_vanished_job_anew() {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    let start = Instant::now();
    gateway.mindbridge.respond_with_job(move |_| match start.elapsed().as_secs() {
        0..10 => Ok(versioned(10, Life::Running)),
        60..130 => Ok(versioned(4, Life::Running)),
        _ => Err(FetchError::NotFound),
    });
    let watching = gateway.jobs.watch(Principal::local(), vec![reference("mind", "a")], None);
    let updates: Vec<_> = watching.collect().await;
    let last = updates.last().unwrap();
    let problem = last.answer.as_ref().map(|seen| short(seen)).map_err(|problem| problem.code);
    assert_eq!((problem, last.is_final), (Err(ProblemCode::NotFound), true));
    assert!(start.elapsed() >= SECOND * 130 + FOLLOW.missing_for, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn watchers_receive_the_version_conflict_and_its_resolution() {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    report(&gateway, 10, Life::Running);
    let watching = gateway.jobs.watch(Principal::local(), vec![reference("mind", "a")], None);
    let mut watching = watching.boxed();
    let mut updates = vec![watching.next().await.unwrap()];
    report(&gateway, 4, Life::Succeeded);
    let start = Instant::now();
    updates.extend(watching.collect::<Vec<_>>().await);
    let updates: Vec<_> =
        updates.iter().map(|update| (short(update.answer.as_ref().unwrap()), update.is_final)).collect();
    let expected = [
        ((Some(10), JobState::Running, None), false),
        ((Some(10), JobState::Running, CONFLICT), false),
        ((Some(4), JobState::Succeeded, None), true),
    ];
    assert_eq!(updates, expected);
    let lasted = start.elapsed();
    assert!(lasted < FOLLOW.verify_interval + SECOND * 65, "polls continue at their interval: {lasted:?}");
}

/// Two replicas with one store: an answer to either counts for both. One has received a lower version, and the other
/// the higher one again after the interval.
async fn contradicted() -> [TestGateway; 2] {
    let (clock, store) = (Arc::new(RuntimeClock::default()), Arc::new(MemoryStore::new(retention())));
    let replica = || gateway_on(FOLLOW, Arc::clone(&clock) as _, Arc::clone(&store) as _, Arc::new(NoLedger));
    let [one, other] = [replica(), replica()];
    report(&one, 10, Life::Running);
    read(&one, None).await;
    report(&one, 4, Life::Running);
    assert_eq!(short(&read_new(&one).await).2, CONFLICT);
    tokio::time::sleep(FOLLOW.verify_interval).await;
    report(&other, 10, Life::Running);
    assert_eq!(short(&read_new(&other).await), (Some(10), JobState::Running, None));
    [one, other]
}

/// Lets a replica accept the lower version.
async fn accept(one: &TestGateway) {
    assert_eq!(short(&read_new(one).await).2, CONFLICT);
    tokio::time::sleep(FOLLOW.verify_interval).await;
    assert_eq!(short(&read_new(one).await).2, CONFLICT, "the second of this series");
    assert_eq!(short(&read_new(one).await), (Some(4), JobState::Running, None));
}

#[tokio::test(start_paused = true)]
async fn a_higher_version_restarts_the_interval_of_all_replicas() {
    let [one, _other] = contradicted().await;
    accept(&one).await;
}

#[tokio::test(start_paused = true)]
async fn replicas_share_an_accepted_rollback() {
    let [one, other] = contradicted().await;
    accept(&one).await;
    report(&other, 4, Life::Running);
    for _ in 0..3 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(short(&read_new(&other).await), (Some(4), JobState::Running, None), "accepted at once");
        assert_eq!(short(&read_new(&one).await), (Some(4), JobState::Running, None));
    }
    report(&other, 5, Life::Succeeded);
    assert_eq!(short(&read_new(&other).await), (Some(5), JobState::Succeeded, None));
    assert_eq!(short(&read_new(&one).await), (Some(5), JobState::Succeeded, None));
}

#[tokio::test]
async fn an_accepted_rollback_is_kept_by_every_replica() {
    let redis = Redis::start().await;
    let tier = || SharedStore::new(settings(&redis.url())).unwrap();
    let [one, other, third] = [tier(), tier(), tier()];
    let seen = |version, second: i64, rollbacks| {
        let mut job = versioned(version, Life::Running);
        job.key = key("a");
        let at = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
        Observation::new(Arc::new(job), at, at).after_rollbacks(rollbacks)
    };
    let (before, after) = (seen(10, 1, 0), seen(4, 2, 1));
    assert_eq!(one.store().keep(before.clone()).await, StoreOutcome::New(None));
    assert_eq!(held(&other, "a").await, Some(before.clone()));
    assert_eq!(other.store().keep(after.clone()).await, StoreOutcome::New(Some(before)));
    for tier in [&one, &other, &third] {
        assert_eq!(held(tier, "a").await, Some(after.clone()));
        let late = tier.store().keep(seen(10, 9, 0)).await;
        assert_eq!(late, StoreOutcome::Older(after.clone()), "an earlier record never returns");
    }
    let next = seen(5, 10, 1);
    assert_eq!(one.store().keep(next.clone()).await, StoreOutcome::New(Some(after)));
    assert_eq!(held(&third, "a").await, Some(next));
}

/// 2,000 reads while versions go up and down: an answer marked as fresh is always the last answer of the upstream.
#[tokio::test(start_paused = true)]
async fn no_read_is_wrongly_fresh_while_versions_go_up_and_down() {
    let mut rng = fastrand::Rng::with_seed(20_261_129);
    let gateway = gateway();
    let reported = Arc::new(Mutex::new((10_i64, Instant::now())));
    let now = Arc::clone(&reported);
    gateway.mindbridge.respond_with_job(move |_| Ok(versioned(now.lock().unwrap().0, Life::Running)));
    let (mut fresh, mut stale, mut accepted, mut wrong) = (0, 0, 0, Vec::new());
    let mut served = 10;
    // since when only lower versions than the served one were reported, in any read
    let mut lower_since: Option<Instant> = None;
    for number in 0..2_000 {
        if rng.u32(..100) < 12 {
            let mut reported = reported.lock().unwrap();
            let step = rng.i64(1..6);
            *reported =
                (if rng.bool() { reported.0 + step } else { (reported.0 - step).max(0) }, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..90_000))).await;
        let max = if rng.bool() { Some(Duration::ZERO) } else { None };
        let calls = gateway.mindbridge.calls();
        let seen = read(&gateway, max).await;
        let is_fetched = gateway.mindbridge.calls() > calls;
        let (reported_version, changed) = *reported.lock().unwrap();
        let version = seen.observation.job.counter().unwrap();
        match seen.stale {
            None => {
                fresh += 1;
                let known = if is_fetched {
                    version == reported_version
                } else {
                    version == reported_version || seen.age <= SECOND * 2
                };
                let overtaken = !is_fetched && changed.elapsed() > seen.age && version != reported_version;
                if !known || overtaken {
                    wrong.push((number, version, reported_version));
                }
                if version < served {
                    accepted += 1;
                    let lasted = lower_since.map(|since| since.elapsed());
                    assert!(lasted >= Some(FOLLOW.verify_interval), "{number}: {lasted:?}");
                }
                if is_fetched {
                    (served, lower_since) = (version, None);
                }
            }
            CONFLICT => {
                stale += 1;
                lower_since.get_or_insert_with(Instant::now);
                assert!(
                    version == served && reported_version < served,
                    "{number}: {version} {reported_version} {served}"
                );
            }
            other => assert_eq!(other, CONFLICT, "{number}"),
        }
    }
    assert_eq!(wrong, [], "fresh: {fresh}, stale: {stale}, accepted: {accepted}");
    assert!(
        fresh > 500 && stale > 200 && accepted > 20,
        "fresh: {fresh}, stale: {stale}, accepted: {accepted}"
    );
}
