//! A limiter with a shared budget, and a script instead of the other replicas.

use std::collections::VecDeque;

use super::*;
use crate::domain::budget::SharedUse;
use crate::ports::BoxFuture;

/// A scripted shared budget that records its calls.
#[derive(Debug, Default)]
struct SharedBudgetScript {
    responses: Mutex<VecDeque<SharedDecision>>,
    left: Option<u32>,
    used: Mutex<SharedUse>,
    reported: Mutex<Vec<(u32, u32)>>,
    given_back: Mutex<Vec<String>>,
    paused: Mutex<Vec<Duration>>,
}

impl SharedBudget for SharedBudgetScript {
    fn take<'a>(&'a self, _: &'a LimiterSettings) -> BoxFuture<'a, SharedDecision> {
        let scripted = self.responses.lock().unwrap().pop_front();
        Box::pin(async move { scripted.unwrap() })
    }

    fn left(&self, _: &LimiterSettings) -> u32 {
        self.left.unwrap_or(7)
    }

    fn report(&self, demand: u32, callers: u32) {
        self.reported.lock().unwrap().push((demand, callers));
    }

    fn used(&self) -> SharedUse {
        self.used.lock().unwrap().clone()
    }

    fn give_back(&self, slot: String) {
        self.given_back.lock().unwrap().push(slot);
    }

    fn pause(&self, pause: Duration) {
        self.paused.lock().unwrap().push(pause);
    }
}

fn gate_that(
    responses: impl IntoIterator<Item = SharedDecision>,
) -> (Arc<UpstreamLimiter>, Arc<SharedBudgetScript>) {
    gate_with(None, responses)
}

fn gate_with(
    left: Option<u32>,
    responses: impl IntoIterator<Item = SharedDecision>,
) -> (Arc<UpstreamLimiter>, Arc<SharedBudgetScript>) {
    let script = Arc::new(SharedBudgetScript { left, ..SharedBudgetScript::default() });
    script.responses.lock().unwrap().extend(responses);
    let limits = LimiterSettings {
        per_second: 6,
        per_hour: 600,
        caller_share: 20,
        concurrency: 100,
        max_wait: SECOND * 10,
    };
    let shared = Some(Arc::clone(&script) as Arc<dyn SharedBudget>);
    (UpstreamLimiter::new(SourceName::parse("s").unwrap(), limits, shared), script)
}

fn go() -> SharedDecision {
    SharedDecision::Go(Some("slot".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn call_waits_for_the_shared_budget() {
    let (limiter, _) = gate_that([SharedDecision::Wait(SECOND), SharedDecision::Wait(SECOND), go()]);
    let before = Instant::now();
    let _permit = limiter.acquire(&FetchTrigger::Operator, SECOND * 10).await.unwrap();
    assert_eq!(before.elapsed(), SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn finished_call_releases_its_shared_slot() {
    let (limiter, script) = gate_that([go()]);
    let permit = limiter.acquire(&FetchTrigger::Operator, SECOND * 10).await.unwrap();
    assert_eq!(*script.given_back.lock().unwrap(), Vec::<String>::new());
    permit.finish(CallOutcome::Answered);
    assert_eq!(*script.given_back.lock().unwrap(), ["slot"]);
    assert_eq!(limiter.snapshot().budget.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_of_this_replica_is_reported_to_the_others() {
    let (limiter, script) = gate_that([go()]);
    assert_eq!(once(&limiter, CallOutcome::Throttled(SECOND * 5)).await, Ok(()));
    assert_eq!(*script.paused.lock().unwrap(), [SECOND * 5]);
}

#[tokio::test(start_paused = true)]
async fn throttling_of_another_replica_pauses_this_one() {
    let (limiter, script) = gate_that([SharedDecision::Paused(SECOND * 30)]);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Throttled(SECOND * 30)));
    assert_eq!(script.paused.lock().unwrap().len(), 0, "their pause is not reported again");
    assert_eq!(
        once(&limiter, CallOutcome::Answered).await,
        Err(LimiterRefusal::Throttled(SECOND * 30)),
        "without another request"
    );
}

#[tokio::test(start_paused = true)]
async fn remaining_hourly_budget_is_that_of_all_replicas() {
    let (limiter, _script) = gate_that([]);
    assert_eq!(limiter.snapshot().budget.left_this_hour, 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_by_the_shared_budget_is_not_counted() {
    let refusals = (0..50).map(|_| SharedDecision::Wait(SECOND * 60));
    let (limiter, _script) = gate_with(Some(600), refusals);
    for number in 0..50 {
        let trigger = if number % 2 == 0 { FetchTrigger::Operator } else { FetchTrigger::Background };
        let refused = limiter.acquire(&trigger, SECOND * 10).await.map(drop);
        assert_eq!(refused, Err(LimiterRefusal::Throttled(SECOND * 60)));
    }
    assert_eq!(limiter.snapshot().budget.left_this_hour, 600);
}

#[tokio::test(start_paused = true)]
async fn call_dropped_before_its_permit_is_not_counted() {
    let (limiter, _script) = gate_with(Some(600), [SharedDecision::Wait(SECOND * 5)]);
    let entered = tokio::time::timeout(SECOND, limiter.acquire(&FetchTrigger::Operator, SECOND * 10)).await;
    assert!(entered.is_err(), "it still waits for the shared budget");
    assert_eq!(limiter.snapshot().budget.left_this_hour, 600);
}

const NEED: PollDemand = PollDemand { calls_per_hour: 100, awaited: true };

#[tokio::test(start_paused = true)]
async fn demand_of_polls_is_reported_to_the_other_replicas() {
    let (limiter, script) = gate_that([]);
    assert_eq!(limiter.pace_polls(NEED), PollPacing::default(), "nothing is used");
    assert_eq!(*script.reported.lock().unwrap(), [(100, 0)]);
}

#[tokio::test(start_paused = true)]
async fn polls_are_paced_by_what_all_replicas_used() {
    let (limiter, script) = gate_that([]);
    let used = |calls, others_demand| SharedUse {
        calls: vec![(SECOND * 60, calls)],
        others_demand,
        others_callers: 0,
    };
    limiter.pace_polls(NEED);
    *script.used.lock().unwrap() = used(360, 0);
    let alone = limiter.pace_polls(NEED);
    assert!(alone.spacing > SECOND * 20 && alone.closed_for.is_zero(), "a quarter is left: {alone:?}");
    *script.used.lock().unwrap() = used(360, 300);
    assert_eq!(limiter.pace_polls(NEED).spacing, alone.spacing * 4, "and a quarter of it is its own");
    *script.used.lock().unwrap() = used(480, 300);
    assert_eq!(limiter.pace_polls(NEED).closed_for, SECOND * 3_540, "the rest is reserved for callers");
}

#[tokio::test(start_paused = true)]
async fn a_granted_call_teaches_what_all_replicas_used() {
    let (limiter, script) = gate_that([go()]);
    let calls = vec![(SECOND * 60, 481)];
    *script.used.lock().unwrap() = SharedUse { calls, ..SharedUse::default() };
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(*script.reported.lock().unwrap(), [(0, 1)], "one call for a caller");
    let refused = limiter.acquire(&FetchTrigger::Background, SECOND * 10).await.map(drop);
    assert!(matches!(refused, Err(LimiterRefusal::Throttled(wait)) if wait > SECOND * 3_500), "{refused:?}");
}
