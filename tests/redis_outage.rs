//! Redis unavailable, hanging or without its data: answers come from memory and from the upstream, no client gets an error, no
//! older state returns, and the gateway recovers by itself.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use jobgate::domain::job::Life;
use jobgate::outbound::redis::{RedisSettings, SharedStore};
use jobgate::ports::feed::{FeedEvent, NotificationFeed as _};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager as _, SkipIf};
use jobgate::ports::ledger::{Labels, Ledger as _};
use jobgate::ports::store::{JobStore as _, StoreOutcome};
use jobgate_simulator::{MindBridgeJob, SimUpstream};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use crate::redis_shared_store::{LEASE, TIMEOUT, held, key, run, seen, settings, until};
use crate::support::redis::Redis;
use crate::support::scale::{report, scale};
use crate::support::scratch::Scratch;
use crate::support::server::{Rig, Setup};
use crate::support::wire;

/// A gateway on this Redis, with these jobs upstream.
async fn gateway(redis: &Redis, url: &Scratch, jobs: Vec<MindBridgeJob>) -> Rig {
    std::fs::write(url.path(), redis.url()).unwrap();
    let store =
        format!("store: {{ kind: redis, redis: {{ url: {{ file: \"{}\" }}, lease: 2s }} }}", url.path());
    Setup { rest: store, ..Setup::with(jobs, Vec::new()) }.start().await
}

/// Waits until so many replicas are registered under this prefix: only a replica that has connected to the server once
/// can detect that another one is empty.
async fn registered(redis: &Redis, prefix: &str, count: u64) {
    until("the replica is registered", || async {
        let there: u64 = redis.execute(redis::cmd("ZCARD").arg(format!("{prefix}:v1:{{members}}"))).await;
        (there == count).then_some(())
    })
    .await;
}

/// A store with a succeeded job `a` and a running job `b`, whose Redis is killed after that.
async fn killed() -> (Redis, SharedStore, DropGuard) {
    let mut redis = Redis::start().await;
    let one = SharedStore::new(settings(&redis.url())).unwrap();
    let runs = run(&one);
    one.store().keep(seen("a", Life::Succeeded, 1)).await;
    one.store().keep(seen("b", Life::Running, 1)).await;
    registered(&redis, "test", 1).await;
    redis.kill();
    (redis, one, runs)
}

#[tokio::test]
async fn a_redis_outage_is_served_from_memory_without_a_wait() {
    let (_redis, one, _runs) = killed().await;
    let began = Instant::now();
    let later = seen("c", Life::Canceled, 2);
    assert_eq!(one.store().keep(later).await, StoreOutcome::New(None));
    assert_eq!(
        one.store().keep(seen("b", Life::Queued, 0)).await,
        StoreOutcome::Older(seen("b", Life::Running, 1))
    );
    assert_eq!(held(&one, "b").await, Some(seen("b", Life::Running, 1)));
    assert_eq!(held(&one, "nothing").await, None);
    assert_eq!(one.leases().claim(&[key("b")], SkipIf::Never).await, [Claim::Acquired(FencingToken::Alone)]);
    assert!(began.elapsed() < TIMEOUT, "{:?} for all of it", began.elapsed());
}

#[tokio::test]
async fn the_store_health_counts_unwritten_jobs_until_recovery() {
    let (mut redis, one, _runs) = killed().await;
    one.store().keep(seen("c", Life::Canceled, 2)).await;
    until("it reports that", || async {
        let health = one.store().health();
        (health.degraded && health.unwritten == 1).then_some(())
    })
    .await;
    redis.restart_empty().await;
    until("it is healthy", || async {
        let health = one.store().health();
        (!health.degraded && health.unwritten == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn writes_during_a_redis_outage_are_written_back_afterwards() {
    let (mut redis, one, _runs) = killed().await;
    let later = seen("c", Life::Canceled, 2);
    one.store().keep(later.clone()).await;
    redis.restart_empty().await;
    let other = SharedStore::new(settings(&redis.url())).unwrap();
    for end in [seen("a", Life::Succeeded, 1), later] {
        let id = end.job.key.external_id.clone();
        until("it is written again", || async {
            (held(&other, id.as_str()).await.as_ref() == Some(&end)).then_some(())
        })
        .await;
    }
}

/// A process that stops drops the task that writes back, and writes the rest itself.
#[tokio::test]
async fn a_dropped_write_back_leaves_the_jobs_unwritten() {
    let mut redis = Redis::start().await;
    let one = SharedStore::new(settings(&redis.url())).unwrap();
    redis.kill();
    one.store().keep(seen("a", Life::Succeeded, 1)).await;
    redis.restart_empty().await;
    assert!(one.store().close().now_or_never().is_none(), "it waits for redis");
    assert_eq!(one.store().health().unwritten, 1);
}

/// A suspended Redis accepts every connection and answers none: the worst kind of outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_answered_while_redis_hangs() {
    let pause = Duration::from_secs(scale("JOBGATE_LOAD_STOP_SECONDS", 3).try_into().unwrap());
    let (redis, url) = (Redis::start().await, Scratch::new(""));
    let jobs = (0..20).map(|number| {
        let state = if number % 2 == 0 { "COMPLETE" } else { "IN_PROGRESS" };
        MindBridgeJob::new(&format!("job-{number}"), &[(0, state)])
    });
    let jobs: Vec<MindBridgeJob> = jobs.collect();
    let rig = gateway(&redis, &url, jobs.clone()).await;
    // Without Redis, and at the same time: the current speed of this machine.
    let control = Setup::with(jobs, Vec::new()).start().await;
    let question = async |rig: &Rig, number: usize| {
        let number = number % 20;
        let began = Instant::now();
        let stored = rig.lookup_within("mind", &format!("job-{number}"), Some("1s")).await;
        let right = stored == if number.is_multiple_of(2) { "SUCCEEDED" } else { "RUNNING" };
        (right, stored, began.elapsed())
    };
    for number in 0..200 {
        question(&rig, number).await;
    }
    redis.signal("STOP");
    let stopped = Instant::now();
    let (mut failed, mut during, mut before) = (Vec::new(), Vec::new(), Vec::new());
    while stopped.elapsed() < pause || during.len() < 50 {
        let first = during.len();
        let some = join_all((first..first + 5).map(|number| question(&rig, number))).await;
        for (right, stored, took) in some {
            during.push(took);
            if !right {
                failed.push(stored);
            }
        }
        let usual = join_all((first..first + 5).map(|number| question(&control, number))).await;
        before.extend(usual.into_iter().map(|(_, _, took)| took));
    }
    assert_eq!(wire::get(rig.admin, "/readyz").await.status, 200, "ready throughout");
    until("it reports the outage", || async { rig.serving.store_health().degraded.then_some(()) }).await;
    redis.signal("CONT");
    until("it recovers by itself", || async { (!rig.serving.store_health().degraded).then_some(()) }).await;
    for number in 0..20 {
        assert!(question(&rig, number).await.0);
    }
    let p99 = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() * 99 / 100]
    };
    report("answers that failed while redis hung", failed.len(), during.len());
    report_p99(p99(&mut before), p99(&mut during));
    assert_eq!(failed, Vec::<String>::new());
    // Each request that waits for an unavailable Redis waits for the timeout of a command, which is 500 ms.
    let median = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
    let (usual, now) = (median(&before), median(&during));
    assert!(
        now < usual * 4 + Duration::from_millis(250),
        "{now:?}, and {usual:?} without Redis: requests wait for an unavailable Redis"
    );
}

#[expect(clippy::print_stderr, reason = "the output of the tool")]
fn report_p99(before: Duration, during: Duration) {
    eprintln!("p99 of an answer: {before:?} without any redis, {during:?} while it hung");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_flush_does_not_lose_a_terminal_state() {
    let (redis, url) = (Redis::start().await, Scratch::new(""));
    let rig = gateway(&redis, &url, vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])]).await;
    assert_eq!(rig.lookup("mind", "a").await, "SUCCEEDED");
    rig.upstreams.forget(SimUpstream::MindBridge, "a");
    registered(&redis, "jobgate", 1).await;
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    assert_eq!(rig.lookup("mind", "a").await, "SUCCEEDED");
    until("it is written again", || async {
        let there: bool = redis.execute(redis::cmd("HEXISTS").arg("jobgate:v1:{mind/a}").arg("r")).await;
        there.then_some(())
    })
    .await;
}

const UP: [&str; 3] =
    ["jobgate_redis_up 1.0", "jobgate_redis_breaker_open 0.0", "jobgate_redis_replicas 1.0"];
const DOWN: [&str; 3] =
    ["jobgate_redis_up 0.0", "jobgate_redis_breaker_open 1.0", "jobgate_redis_budget_fallback 1.0"];

/// Waits until the metrics have these lines.
async fn until_metrics(rig: &Rig, lines: &[&str]) {
    until("the metrics", || async {
        let metrics_text = wire::get(rig.admin, "/metrics").await.body;
        lines.iter().all(|line| metrics_text.lines().any(|one| one == *line)).then_some(())
    })
    .await;
}

/// A gateway that reports Redis as available, with one completed job upstream.
async fn available() -> (Redis, Rig, Scratch) {
    let (redis, url) = (Redis::start().await, Scratch::new(""));
    let rig = gateway(&redis, &url, vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])]).await;
    until_metrics(&rig, &UP).await;
    (redis, rig, url)
}

/// The same after Redis was suspended, and the outage was detected.
async fn suspended() -> (Redis, Rig, Scratch) {
    let (redis, rig, url) = available().await;
    redis.signal("STOP");
    until_metrics(&rig, &DOWN).await;
    (redis, rig, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_hang_is_reported_in_the_metrics_until_recovery() {
    let (redis, rig, _url) = suspended().await;
    redis.signal("CONT");
    until_metrics(&rig, &UP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_names_a_redis_hang_and_the_gateway_stays_ready() {
    let (redis, rig, _url) = suspended().await;
    let ready = wire::get(rig.admin, "/readyz").await;
    assert!(ready.status == 200 && ready.body.contains("redis: unavailable for "), "{ready:?}");
    redis.signal("CONT");
    until("it is available again", || async {
        let ready = wire::get(rig.admin, "/readyz").await;
        let expected = (200, "ready\nredis: available, 1 replicas\n");
        ((ready.status, ready.body.as_str()) == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_during_a_redis_hang_uses_the_local_budget() {
    let (_redis, rig, _url) = suspended().await;
    assert_eq!(rig.lookup("mind", "a").await, "SUCCEEDED", "fetched from the upstream");
    let store = rig.serving.store_health().shared_store.unwrap();
    assert!(store.unavailable_for.is_some() && store.local_budget > 0, "{store:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_health_counts_the_reconnect_after_a_redis_hang() {
    let (redis, rig, _url) = suspended().await;
    redis.signal("CONT");
    until("it is available again", || async {
        rig.serving.store_health().shared_store.unwrap().unavailable_for.is_none().then_some(())
    })
    .await;
    let store = rig.serving.store_health().shared_store.unwrap();
    assert!(store.connections >= 2, "{store:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_commands_are_counted_by_their_outcome() {
    let (_redis, rig, _url) = suspended().await;
    // of the whole process, in which other tests use Redis as well: only "more than zero" can be asserted
    for counted in [
        "jobgate_redis_commands_total{outcome=\"timed_out\"}",
        "jobgate_redis_commands_total{outcome=\"ok\"}",
        "jobgate_redis_command_duration_seconds_count",
    ] {
        let value = |line: &str| Some(line.strip_prefix(counted)?.trim().parse::<f64>().unwrap());
        let metrics = wire::get(rig.admin, "/metrics").await.body;
        assert!(metrics.lines().find_map(value).unwrap() >= 1.0, "{counted}");
    }
}

/// A store with the tracked jobs `a` and `b`.
async fn tracking() -> (Redis, SharedStore, DropGuard) {
    let redis = Redis::start().await;
    let one = SharedStore::new(settings(&redis.url())).unwrap();
    let runs = run(&one);
    let labels = Labels::from([("team".to_owned(), "x".to_owned())]);
    let all = ["a", "b"].map(|id| (key(id), Some(labels.clone())));
    one.ledger().track(all.to_vec()).await.unwrap();
    registered(&redis, "test", 1).await;
    assert_eq!(tracked(&redis).await, ["a", "b"]);
    (redis, one, runs)
}

/// The tracked jobs that a new replica reads from Redis.
async fn tracked(redis: &Redis) -> Vec<String> {
    let fresh = SharedStore::new(settings(&redis.url())).unwrap();
    let read = fresh.ledger().remembered().await;
    let tracked = read.map(|read| read.tracked).unwrap_or_default();
    tracked.into_iter().map(|(key, _)| key.external_id.to_string()).collect()
}

#[tokio::test]
async fn a_reader_restores_tracked_jobs_after_a_redis_flush() {
    let (redis, one, _runs) = tracking().await;
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    assert_eq!(one.ledger().remembered().await.unwrap().tracked.len(), 2);
    assert_eq!(tracked(&redis).await, ["a", "b"]);
}

#[tokio::test]
async fn tracked_jobs_are_restored_without_a_reader_after_a_flush() {
    let (redis, _one, _runs) = tracking().await;
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    until("they are restored", || async { (tracked(&redis).await == ["a", "b"]).then_some(()) }).await;
}

#[tokio::test]
async fn a_job_untracked_during_a_redis_outage_stays_untracked() {
    let (redis, one, _runs) = tracking().await;
    redis.signal("STOP");
    one.ledger().track(vec![(key("a"), None)]).await.unwrap_err();
    redis.signal("CONT");
    until("it is untracked", || async { (tracked(&redis).await == ["b"]).then_some(()) }).await;
}

/// Waits until a lease of this moment has expired.
async fn until_expired() {
    let claimed = Instant::now();
    until("the lease has expired", || async { (claimed.elapsed() > LEASE).then_some(()) }).await;
}

/// A store with a lease for the job `a`, whose Redis is killed after that.
async fn leased() -> (Redis, SharedStore, FencingToken) {
    let mut redis = Redis::start().await;
    let one = SharedStore::new(RedisSettings { lease: LEASE, ..settings(&redis.url()) }).unwrap();
    let token = match one.leases().claim(&[key("a")], SkipIf::Never).await.pop().unwrap() {
        Claim::Acquired(token) => Some(token),
        Claim::HeldElsewhere { .. } | Claim::Unneeded => None,
    };
    let token = token.unwrap();
    assert!(matches!(token, FencingToken::Epoch(_)));
    redis.kill();
    (redis, one, token)
}

/// Claims the job `b`, which is possible without Redis.
async fn claim_alone(one: &SharedStore) {
    let claims = one.leases().claim(&[key("b")], SkipIf::Never).await;
    assert_eq!(claims, [Claim::Acquired(FencingToken::Alone)]);
}

/// An owner that was suspended past its lease, and resumes while Redis is unavailable, cannot ask Redis for the lease.
/// Its own clock shows that the lease has expired.
#[tokio::test]
async fn an_expired_lease_writes_nothing_during_a_redis_outage() {
    let (_redis, one, late) = leased().await;
    until_expired().await;
    let stale = seen("a", Life::Running, 1);
    assert_eq!(one.store().keep_under(stale, late).await, None);
    assert_eq!(held(&one, "a").await, None);
    assert!(!one.store().note_missing_under(&key("a"), late).await);
}

/// A fetch without a lease may not take longer than one with a lease either: others may have fetched meanwhile.
#[tokio::test]
async fn a_late_fetch_without_a_lease_writes_nothing() {
    let (_redis, one, _) = leased().await;
    claim_alone(&one).await;
    until_expired().await;
    one.leases().renew(&[(key("b"), FencingToken::Alone)]).await;
    let stale = seen("b", Life::Running, 1);
    assert_eq!(one.store().keep_under(stale, FencingToken::Alone).await, None);
    assert_eq!(held(&one, "b").await, None);
}

#[tokio::test]
async fn a_fetch_without_a_lease_is_stored_if_it_is_in_time() {
    let (_redis, one, _) = leased().await;
    let fresh = seen("b", Life::Succeeded, 2);
    // a busy machine may be too slow for this one as well: then once more
    until("a fetch in time is stored", || async {
        claim_alone(&one).await;
        one.store().keep_under(fresh.clone(), FencingToken::Alone).await.map(drop)
    })
    .await;
    assert_eq!(held(&one, "b").await, Some(fresh));
}

/// Data that Redis lost, as a server that restarts with an older state, is compared after the reconnect: also a
/// terminal state that was written long ago, and on all replicas.
#[tokio::test]
async fn terminal_states_are_reconciled_after_a_reconnect() {
    let redis = Redis::start().await;
    let [one, other] = [(), ()].map(|()| SharedStore::new(settings(&redis.url())).unwrap());
    let _run = [run(&one), run(&other)];
    let (worse, better) = (seen("a", Life::Canceled, 1), seen("a", Life::Succeeded, 2));
    one.store().keep(better.clone()).await;
    registered(&redis, "test", 2).await;
    let () = redis.execute(redis::cmd("DEL").arg("test:v1:{mind/a}")).await;
    other.store().keep(worse.clone()).await;
    assert_eq!(held(&other, "a").await, Some(worse), "a terminal state is answered from memory");
    let _: u64 = redis.execute(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
    until("the other gets the better answer", || async {
        // The jobs react so to a notification.
        let received = tokio::time::timeout(Duration::from_millis(100), other.leases().next()).await;
        if let Ok(FeedEvent::Notifications(notifications)) = received {
            let keys: Vec<_> = notifications.into_iter().map(|notification| notification.key).collect();
            other.store().refresh(&keys).await.unwrap();
        }
        (held(&other, "a").await.as_ref() == Some(&better)).then_some(())
    })
    .await;
    assert_eq!(held(&SharedStore::new(settings(&redis.url())).unwrap(), "a").await, Some(better));
}
