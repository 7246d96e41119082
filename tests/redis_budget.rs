//! The budget of a source that replicas share, on a real Redis: one count for all of them, also after the data or the
//! server was lost. Each replica is its own shared store in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use jobgate::domain::id::SourceName;
use jobgate::outbound::upstreams::limiter::LimiterSettings;
use jobgate::outbound::upstreams::limiter::shared::{SharedBudget, SharedDecision};
use jobgate::ports::store::JobStore as _;
use tokio::time::Instant;

use crate::redis_shared_store::{run, running, tier, until};
use crate::support::redis::Redis;
use crate::support::streams::LIMIT;

const fn limits(per_second: u32, per_hour: u32, concurrency: u32) -> LimiterSettings {
    LimiterSettings { per_second, per_hour, caller_share: 20, concurrency, max_wait: LIMIT }
}

const fn is_go(taken: &SharedDecision) -> bool {
    matches!(taken, SharedDecision::Go { .. })
}

/// Two replicas that took the calls of one second together; the decisions, and how many calls were permitted at most.
async fn taken(redis: &Redis) -> ([Arc<dyn SharedBudget>; 2], Vec<SharedDecision>, usize) {
    let source = SourceName::parse("mind").unwrap();
    let [one, other] = [tier(redis).budget(&source), tier(redis).budget(&source)];
    let wide = limits(6, 1_000, 100);
    let began = Instant::now();
    let taken =
        join_all((0..20).map(|number| if number % 2 == 0 { one.take(&wide) } else { other.take(&wide) }))
            .await;
    // Six in any second: if the machine took longer for the twenty it may be more.
    let most = 6 * (usize::try_from(began.elapsed().as_secs()).unwrap() + 1);
    ([one, other], taken, most)
}

#[tokio::test]
async fn replicas_share_the_calls_of_a_second() {
    let redis = Redis::start().await;
    let (_, taken, most) = taken(&redis).await;
    let gone = taken.iter().filter(|taken| is_go(taken)).count();
    assert!((6..=most).contains(&gone), "{gone} of at most {most}: {taken:?}");
    assert!(taken.iter().all(|taken| is_go(taken)
        || matches!(taken, SharedDecision::Wait(wait) if *wait <= Duration::from_secs(1))));
}

#[tokio::test]
async fn replicas_share_the_calls_of_an_hour() {
    let redis = Redis::start().await;
    let ([one, _], ..) = taken(&redis).await;
    let hour = one.take(&limits(1_000, 6, 100)).await;
    assert!(matches!(hour, SharedDecision::Wait(wait) if wait > Duration::from_mins(59)), "{hour:?}");
}

#[tokio::test]
async fn replicas_share_the_concurrency() {
    let redis = Redis::start().await;
    let ([one, _], ..) = taken(&redis).await;
    let decision = one.take(&limits(1_000, 1_000, 6)).await;
    assert!(matches!(decision, SharedDecision::Wait(_)), "six are in flight: {decision:?}");
}

#[tokio::test]
async fn replicas_share_a_pause() {
    let redis = Redis::start().await;
    let source = SourceName::parse("mind").unwrap();
    let other = tier(&redis).budget(&source);
    let (running, _runs) = running(&redis);
    running.budget(&source).pause(Duration::from_mins(5));
    until("the pause is shared", || async {
        matches!(other.take(&limits(1_000, 1_000, 100)).await, SharedDecision::Paused(left) if left > Duration::from_mins(4)).then_some(())
    })
    .await;
}

/// Makes as many calls as are permitted at once, and returns their number.
async fn spend(budgets: &[Arc<dyn SharedBudget>], limits: &LimiterSettings, at_most: usize) -> usize {
    let mut went = 0;
    for number in 0..200 {
        if went >= at_most {
            break;
        }
        if let SharedDecision::Go(slot) = budgets[number % budgets.len()].take(limits).await {
            went += 1;
            if let Some(slot) = slot {
                budgets[number % budgets.len()].give_back(slot);
            }
        }
    }
    went
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_flush_does_not_refill_the_hourly_budget() {
    const PER_HOUR: u32 = 30;
    let limits = LimiterSettings {
        per_second: 10_000,
        per_hour: PER_HOUR,
        caller_share: 20,
        concurrency: 500,
        max_wait: Duration::from_secs(10),
    };
    let redis = Redis::start().await;
    let tiers = [(), (), ()].map(|()| tier(&redis));
    let source = SourceName::parse("tight").unwrap();
    let budgets = tiers.each_ref().map(|tier| tier.budget(&source));
    let _run = tiers.each_ref().map(run);
    until("all know each other, and share one count", || async {
        let known = tiers
            .iter()
            .all(|tier| tier.store().health().shared_store.is_some_and(|tier| tier.replicas == 3));
        known.then_some(())
    })
    .await;
    let spent = AtomicUsize::new(0);
    until("most of the hour is spent", || async {
        let more = spend(&budgets, &limits, 21_usize.saturating_sub(spent.load(Ordering::Relaxed))).await;
        (spent.fetch_add(more, Ordering::Relaxed) + more >= 21).then_some(())
    })
    .await;
    until("each knows the rest of the budget", || async {
        budgets.iter().all(|budget| budget.left(&limits) == 9).then_some(())
    })
    .await;
    let flushed = Instant::now();
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    // Long enough for every replica to restore its counts, and for the shared count to decide again.
    while flushed.elapsed() < Duration::from_secs(12) {
        spent.fetch_add(spend(&budgets, &limits, 100).await, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let went = spent.load(Ordering::Relaxed);
    assert!(went <= usize::try_from(PER_HOUR).unwrap(), "{went} calls of {PER_HOUR}");
    assert!(went >= 27, "the rest of the budget is still available: {went}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_during_a_redis_outage_count_after_recovery() {
    let limits = LimiterSettings {
        per_second: 10_000,
        per_hour: 30,
        caller_share: 20,
        concurrency: 500,
        max_wait: Duration::from_secs(10),
    };
    let redis = Redis::start().await;
    let tiers = [(), ()].map(|()| tier(&redis));
    let source = SourceName::parse("tight").unwrap();
    let budgets = tiers.each_ref().map(|tier| tier.budget(&source));
    let _run = tiers.each_ref().map(run);
    until("both know each other", || async {
        tiers
            .iter()
            .all(|tier| tier.store().health().shared_store.is_some_and(|tier| tier.replicas == 2))
            .then_some(())
    })
    .await;
    let () =
        redis.execute(&redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(1).to_owned()).await;
    let went = spend(&budgets, &limits, 100).await;
    assert!(went > 20 && went <= 30, "each its share: {went}");
    let () =
        redis.execute(&redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(0).to_owned()).await;
    let back = Instant::now();
    let mut more = 0;
    while back.elapsed() < Duration::from_secs(12) {
        more += spend(&budgets, &limits, 100).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(went + more <= 30, "{went} without redis, and {more} after");
}

/// The calls that the replicas other than the one of this budget need for polls, and used for callers.
fn others(budget: &Arc<dyn SharedBudget>) -> (u32, u32) {
    let used = budget.used();
    (used.others_demand, used.others_callers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replica_learns_what_the_live_others_need() {
    let redis = Redis::start().await;
    let source = SourceName::parse("mind").unwrap();
    let tiers = [(), (), ()].map(|()| tier(&redis));
    let budgets = tiers.each_ref().map(|tier| tier.budget(&source));
    budgets[0].report(90, 5);
    budgets[1].report(10, 0);
    let [first, _second, _third] = tiers.each_ref().map(run);
    until("each knows the needs of the others", || async {
        (budgets.each_ref().map(others) == [(10, 0), (90, 5), (100, 5)]).then_some(())
    })
    .await;
    drop(first);
    until("a lost one needs no more calls", || async {
        ([1, 2].map(|number| others(&budgets[number]).0) == [0, 10]).then_some(())
    })
    .await;
    let new = tier(&redis);
    let budget = new.budget(&source);
    budget.report(50, 1);
    let _runs = run(&new);
    until("a new one is known, and knows the others", || async {
        (others(&budget).0 == 10 && others(&budgets[2]).0 == 60).then_some(())
    })
    .await;
    let (_, callers) = others(&budget);
    assert!((4..=5).contains(&callers), "the calls of the lost one still count: {callers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_learns_when_earlier_calls_leave_the_hour() {
    const CALLS: &str = "
        local t = redis.call('TIME')
        for i = 1, 20 do redis.call('ZADD', KEYS[1], (t[1] - 3000) * 1000000 + i, 'call ' .. i) end
        return 20";
    let redis = Redis::start().await;
    let calls = redis::cmd("EVAL").arg(CALLS).arg(1).arg("test:v1:{budget/mind}:calls").to_owned();
    let made: usize = redis.execute(&calls).await;
    let new = tier(&redis);
    let budget = new.budget(&SourceName::parse("mind").unwrap());
    let _runs = run(&new);
    let known = until("it knows the calls of the hour", || async {
        let calls = budget.used().calls;
        (!calls.is_empty()).then_some(calls)
    })
    .await;
    assert_eq!(known.iter().map(|(_, count)| *count as usize).sum::<usize>(), made);
    // At most two slices late, plus the delay of the machine.
    assert!(known.iter().all(|(ago, _)| *ago >= Duration::from_secs(2_975)), "{known:?}");
}

/// Neither replica runs its loop: each learns of the other's calls only with its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_known_to_one_replica_are_restored_beside_reports() {
    let redis = Redis::start().await;
    let source = SourceName::parse("mind").unwrap();
    let limits = LimiterSettings {
        per_second: 10_000,
        per_hour: 100,
        caller_share: 20,
        concurrency: 100,
        max_wait: LIMIT,
    };
    let (one, other) = (tier(&redis).budget(&source), tier(&redis).budget(&source));
    let accept_writes = async |accepts: bool| {
        let replicas = usize::from(!accepts);
        let set = redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(replicas).to_owned();
        let () = redis.execute(&set).await;
    };
    let mut made = spend(&[Arc::clone(&one)], &limits, 1).await;
    made += spend(&[Arc::clone(&other)], &limits, 5).await;
    accept_writes(false).await;
    made += spend(&[Arc::clone(&one)], &limits, 5).await;
    accept_writes(true).await;
    let () = redis.execute(&redis::cmd("FLUSHALL")).await;
    for budget in [one, other] {
        made += spend(&[budget], &limits, 1).await;
    }
    assert_eq!(made, 13);
    let counted: usize =
        redis.execute(&redis::cmd("ZCARD").arg("test:v1:{budget/mind}:calls").to_owned()).await;
    assert_eq!(counted, made);
}
