//! Redis unavailable, hanging or emptied: answers come from memory and from the upstream, no client gets an error, no
//! older state returns, and the gateway recovers by itself.

use std::time::Duration;

use futures_util::future::join_all;
use jobgate::domain::job::Life;
use jobgate::outbound::redis::{RedisSettings, SharedStore};
use jobgate::ports::feed::{FeedEvent, NotificationFeed as _};
use jobgate::ports::leases::{Claim, FencingToken, LeaseManager as _, SkipIf};
use jobgate::ports::ledger::{Labels, Ledger as _};
use jobgate::ports::store::{JobStore as _, StoreOutcome};
use jobgate::simulator::{MindBridgeJob, SimUpstream};
use tokio::time::Instant;

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

#[tokio::test]
async fn writes_during_a_redis_outage_are_written_back_afterwards() {
    let mut redis = Redis::start().await;
    let one = SharedStore::new(settings(&redis.url())).unwrap();
    let _runs = run(&one);
    let stored = seen("a", Life::Succeeded, 1);
    one.store().keep(stored.clone()).await.unwrap();
    one.store().keep(seen("b", Life::Running, 1)).await.unwrap();
    // So that it has connected to the server once, and can detect that another one is empty.
    until("the replica is registered", || async {
        let there: u64 = redis.execute(redis::cmd("ZCARD").arg("test:v1:{members}")).await;
        (there == 1).then_some(())
    })
    .await;
    redis.kill();
    let began = Instant::now();
    let later = seen("c", Life::Canceled, 2);
    assert_eq!(one.store().keep(later.clone()).await.unwrap(), StoreOutcome::New(None));
    assert_eq!(
        one.store().keep(seen("b", Life::Queued, 0)).await.unwrap(),
        StoreOutcome::Older(seen("b", Life::Running, 1))
    );
    assert_eq!(held(&one, "b").await, Some(seen("b", Life::Running, 1)));
    assert_eq!(held(&one, "nothing").await, None);
    assert_eq!(one.leases().claim(&[key("b")], SkipIf::Never).await, [Claim::Acquired(FencingToken::Alone)]);
    assert!(began.elapsed() < TIMEOUT, "{:?} for all of it", began.elapsed());
    until("it reports that", || async {
        let health = one.store().health();
        (health.degraded && health.unwritten == 1).then_some(())
    })
    .await;

    redis.restart_empty().await;
    let other = SharedStore::new(settings(&redis.url())).unwrap();
    for end in [stored, later] {
        let id = end.job.key.external_id.clone();
        until("it is written again", || async {
            (held(&other, id.as_str()).await.as_ref() == Some(&end)).then_some(())
        })
        .await;
    }
    until("it is healthy", || async { (!one.store().health().degraded).then_some(()) }).await;
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
    until("the replica is registered", || async {
        let there: u64 = redis.execute(redis::cmd("ZCARD").arg("jobgate:v1:{members}")).await;
        (there == 1).then_some(())
    })
    .await;
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    assert_eq!(rig.lookup("mind", "a").await, "SUCCEEDED");
    until("it is written again", || async {
        let there: bool = redis.execute(redis::cmd("HEXISTS").arg("jobgate:v1:{mind/a}").arg("r")).await;
        there.then_some(())
    })
    .await;
}

/// The metrics show a Redis outage, and the load balancer keeps sending requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_hang_is_reported_in_the_metrics_until_recovery() {
    let (redis, url) = (Redis::start().await, Scratch::new(""));
    let rig = gateway(&redis, &url, vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])]).await;
    let has_lines = async |lines: &[&str]| {
        let metrics_text = wire::get(rig.admin, "/metrics").await.body;
        lines.iter().all(|line| metrics_text.lines().any(|one| one == *line)).then_some(())
    };
    let up = ["jobgate_redis_up 1.0", "jobgate_redis_breaker_open 0.0", "jobgate_redis_replicas 1.0"];
    until("it is available", || has_lines(&up)).await;
    redis.signal("STOP");
    let down =
        ["jobgate_redis_up 0.0", "jobgate_redis_breaker_open 1.0", "jobgate_redis_budget_fallback 1.0"];
    until("the breaker is open", || has_lines(&down)).await;
    assert_eq!(
        rig.lookup("mind", "a").await,
        "SUCCEEDED",
        "fetched from the upstream, within the local budget"
    );
    let ready = wire::get(rig.admin, "/readyz").await;
    assert!(ready.status == 200 && ready.body.contains("redis: unavailable for "), "{ready:?}");
    let tier = rig.serving.store_health().shared_store.unwrap();
    assert!(tier.unavailable_for.is_some() && tier.local_budget > 0, "{tier:?}");
    redis.signal("CONT");
    until("it is available again", || has_lines(&up)).await;
    until("it is healthy", || async {
        let ready = wire::get(rig.admin, "/readyz").await;
        let well = (ready.status, ready.body.as_str()) == (200, "ready\nredis: available, 1 replicas\n");
        (well && rig.serving.store_health().shared_store.unwrap().unavailable_for.is_none()).then_some(())
    })
    .await;
    let tier = rig.serving.store_health().shared_store.unwrap();
    assert!(tier.connections >= 2, "{tier:?}");
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

#[tokio::test]
async fn tracking_changes_survive_a_redis_flush_and_outage() {
    let redis = Redis::start().await;
    let one = SharedStore::new(settings(&redis.url())).unwrap();
    let _runs = run(&one);
    let labels = Labels::from([("team".to_owned(), "x".to_owned())]);
    let all = ["a", "b"].map(|id| (key(id), Some(labels.clone())));
    one.store().track(all.to_vec()).await.unwrap();
    until("the replica is registered", || async {
        let there: u64 = redis.execute(redis::cmd("ZCARD").arg("test:v1:{members}")).await;
        (there == 1).then_some(())
    })
    .await;
    let remembered = async || {
        let fresh = SharedStore::new(settings(&redis.url())).unwrap();
        let read = fresh.store().remembered().await;
        let tracked = read.map(|read| read.tracked).unwrap_or_default();
        tracked.into_iter().map(|(key, _)| key.external_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(remembered().await, ["a", "b"]);
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    assert_eq!(one.store().remembered().await.unwrap().tracked.len(), 2, "the first reader restores it");
    assert_eq!(remembered().await, ["a", "b"]);
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    until("it is restored without a reader", || async { (remembered().await == ["a", "b"]).then_some(()) })
        .await;
    redis.signal("STOP");
    one.store().track(vec![(key("a"), None)]).await.unwrap_err();
    redis.signal("CONT");
    until("an untracked job is not restored", || async { (remembered().await == ["b"]).then_some(()) }).await;
}

/// An owner that was suspended past its lease, and resumes while Redis is unavailable, cannot ask Redis for the lease.
/// Its own clock shows that the lease has expired.
#[tokio::test]
async fn an_expired_lease_writes_nothing_during_a_redis_outage() {
    let mut redis = Redis::start().await;
    let one = SharedStore::new(RedisSettings { lease: LEASE, ..settings(&redis.url()) }).unwrap();
    let Claim::Acquired(late) = one.leases().claim(&[key("a")], SkipIf::Never).await.pop().unwrap() else {
        panic!("the first has the lease")
    };
    let claimed = Instant::now();
    assert!(matches!(late, FencingToken::Epoch(_)));
    redis.kill();
    until("the lease has expired", || async { (claimed.elapsed() > LEASE).then_some(()) }).await;
    let stale = seen("a", Life::Running, 1);
    assert_eq!(one.store().keep_under(stale, late).await.unwrap(), None);
    assert_eq!(held(&one, "a").await, None);
    assert!(!one.store().note_missing_under(&key("a"), late).await.unwrap());
    // A fetch without a lease may not take longer than one with a lease either: others may have fetched meanwhile.
    let alone = async || {
        let claims = one.leases().claim(&[key("b")], SkipIf::Never).await;
        assert_eq!(claims, [Claim::Acquired(FencingToken::Alone)]);
        Instant::now()
    };
    let claimed = alone().await;
    until("as long as a lease", || async { (claimed.elapsed() > LEASE).then_some(()) }).await;
    one.leases().renew(&[(key("b"), FencingToken::Alone)]).await;
    let stale = seen("b", Life::Running, 1);
    assert_eq!(one.store().keep_under(stale, FencingToken::Alone).await.unwrap(), None);
    let fresh = seen("b", Life::Succeeded, 2);
    // a busy machine may be too slow for this one as well: then once more
    until("a fetch in time is stored", || async {
        alone().await;
        one.store().keep_under(fresh.clone(), FencingToken::Alone).await.unwrap().map(drop)
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
    one.store().keep(better.clone()).await.unwrap();
    until("both are connected", || async {
        let there: u64 = redis.execute(redis::cmd("ZCARD").arg("test:v1:{members}")).await;
        (there == 2).then_some(())
    })
    .await;
    let () = redis.execute(redis::cmd("DEL").arg("test:v1:{mind/a}")).await;
    other.store().keep(worse.clone()).await.unwrap();
    assert_eq!(held(&other, "a").await, Some(worse), "a terminal state is answered from memory");
    let _: u64 = redis.execute(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await;
    until("the other gets the better answer", || async {
        // The jobs react so to a notification.
        let received = tokio::time::timeout(Duration::from_millis(100), other.leases().next()).await;
        if let Ok(FeedEvent::Hints(hints)) = received {
            let keys: Vec<_> = hints.into_iter().map(|hint| hint.key).collect();
            other.store().refresh(&keys).await.unwrap();
        }
        (held(&other, "a").await.as_ref() == Some(&better)).then_some(())
    })
    .await;
    assert_eq!(held(&SharedStore::new(settings(&redis.url())).unwrap(), "a").await, Some(better));
}
