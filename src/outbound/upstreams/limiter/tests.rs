//! The limiter's guarantees, on a paused clock.

mod order;
mod shared;
mod shares;

use super::*;
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(per_second: u32, per_hour: u32, concurrency: u32, max_wait: Duration) -> Arc<UpstreamLimiter> {
    UpstreamLimiter::new(
        SourceName::parse("s").unwrap(),
        LimiterSettings { per_second, per_hour, caller_share: 20, concurrency, max_wait },
        None,
    )
}

fn wide() -> Arc<UpstreamLimiter> {
    limiter(1_000, 100_000, 100, SECOND * 2)
}

async fn once(limiter: &Arc<UpstreamLimiter>, outcome: CallOutcome) -> Result<(), LimiterRefusal> {
    limiter.acquire(&FetchTrigger::Operator, SECOND * 60).await.map(|permit| permit.finish(outcome))
}

#[tokio::test(start_paused = true)]
async fn no_window_contains_more_calls_than_the_budget() {
    for (per_second, per_hour) in [(5, 1_000), (3, 12), (50, 20)] {
        let limiter = limiter(per_second, per_hour, 100, SECOND * 100_000);
        let mut calls = JoinSet::new();
        for number in 0..40_u64 {
            let limiter = Arc::clone(&limiter);
            calls.spawn(async move {
                let max_wait = SECOND * 100_000;
                let trigger = if number % 2 == 0 { FetchTrigger::Operator } else { FetchTrigger::Background };
                let permit = limiter.acquire(&trigger, max_wait).await.unwrap();
                permit.finish(CallOutcome::Answered);
                Instant::now()
            });
        }
        let mut started: Vec<Instant> = calls.join_all().await;
        started.sort();
        assert_eq!(started.len(), 40);
        for (index, first) in started.iter().enumerate() {
            let within =
                |window: Duration| started[index..].iter().filter(|at| **at < *first + window).count();
            assert!(within(SECOND) <= per_second as usize);
            assert!(within(SECOND * 3_600) <= per_hour as usize);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited() {
    let limiter = limiter(1_000, 100_000, 2, SECOND * 2);
    let _first = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    let _second = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    assert_eq!(limiter.snapshot().budget.in_flight, 2);
    let before = Instant::now();
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Throttled(SLOT_WAIT)));
    assert_eq!(before.elapsed(), SECOND * 2);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_frees_its_slot() {
    let limiter = limiter(1_000, 100_000, 2, SECOND * 2);
    let first = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    let second = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    drop(first);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    drop(second);
    assert_eq!(limiter.snapshot().budget.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_pause_applies_to_every_call_for_its_duration() {
    let limiter = wide();
    assert_eq!(once(&limiter, CallOutcome::Throttled(SECOND * 30)).await, Ok(()));
    for left in [30, 29, 1] {
        tokio::time::advance(limiter.snapshot().closed_for.unwrap().saturating_sub(SECOND * left)).await;
        assert_eq!(limiter.snapshot().health, SourceHealth::Throttled);
        let before = Instant::now();
        assert_eq!(
            once(&limiter, CallOutcome::Answered).await,
            Err(LimiterRefusal::Throttled(SECOND * left))
        );
        assert_eq!(before.elapsed(), Duration::ZERO, "no caller waits through a pause");
    }
    tokio::time::advance(SECOND).await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(limiter.snapshot().closed_for, None);
}

#[tokio::test(start_paused = true)]
async fn throttling_pause_refuses_calls_that_already_wait() {
    let limiter = limiter(1_000, 100_000, 1, SECOND * 2);
    let permit = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    let (waiting, background, ()) = tokio::join!(
        once(&limiter, CallOutcome::Answered),
        limiter.acquire(&FetchTrigger::Background, SECOND),
        async {
            permit.finish(CallOutcome::Throttled(SECOND * 9));
        },
    );
    assert_eq!(waiting, Err(LimiterRefusal::Throttled(SECOND * 9)));
    assert_eq!(background.unwrap_err(), LimiterRefusal::Throttled(SECOND * 9));
}

#[tokio::test(start_paused = true)]
async fn call_that_cannot_start_in_time_is_refused_at_once() {
    let limiter = limiter(1, 100_000, 10, SECOND * 2);
    let start = Instant::now();
    let results = futures_util::future::join_all((0..6).map(|_| async {
        let result = once(&limiter, CallOutcome::Answered).await;
        (result, start.elapsed())
    }))
    .await;
    let expected = [
        (Ok(()), Duration::ZERO),
        (Ok(()), SECOND),
        (Ok(()), SECOND * 2),
        (Err(LimiterRefusal::Throttled(SECOND * 3)), Duration::ZERO),
        (Err(LimiterRefusal::Throttled(SECOND * 3)), Duration::ZERO),
        (Err(LimiterRefusal::Throttled(SECOND * 3)), Duration::ZERO),
    ];
    assert_eq!(results, expected);
}

#[tokio::test(start_paused = true)]
async fn caller_calls_run_before_background_calls_in_fifo_order() {
    let limiter = limiter(1, 100_000, 10, SECOND * 60);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    let order = Mutex::new(Vec::new());
    let call = |name: &'static str, trigger: &'static FetchTrigger| {
        let (limiter, order) = (&limiter, &order);
        async move {
            limiter.acquire(trigger, SECOND * 60).await.unwrap().finish(CallOutcome::Answered);
            order.lock().unwrap().push(name);
        }
    };
    tokio::join!(
        call("background 1", &FetchTrigger::Background),
        call("background 2", &FetchTrigger::Background),
        call("waiting 1", &FetchTrigger::Operator),
        call("waiting 2", &FetchTrigger::Operator),
    );
    assert_eq!(*order.lock().unwrap(), ["waiting 1", "waiting 2", "background 1", "background 2"]);
}

#[tokio::test(start_paused = true)]
async fn canceled_wait_leaves_no_queue_entry() {
    let limiter = limiter(1, 100_000, 1, SECOND * 60);
    let held = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    for trigger in &[FetchTrigger::Operator, FetchTrigger::Background] {
        let given_up = tokio::time::timeout(SECOND, limiter.acquire(trigger, SECOND * 60)).await;
        assert!(given_up.is_err());
    }
    drop(held);
    let before = Instant::now();
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

/// A source whose circuit breaker has just opened, after five failures.
async fn broken() -> Arc<UpstreamLimiter> {
    let limiter = wide();
    for _ in 0..5 {
        assert_eq!(once(&limiter, CallOutcome::Failed(1.0)).await, Ok(()));
    }
    limiter
}

#[tokio::test(start_paused = true)]
async fn five_failures_open_the_breaker_until_a_probe_succeeds() {
    let limiter = broken().await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Broken(SECOND)));
    assert_eq!(limiter.snapshot().health, SourceHealth::Unavailable);
    tokio::time::advance(SECOND).await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(limiter.snapshot().health, SourceHealth::Healthy);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn throttling_resets_the_failures_of_the_breaker() {
    let limiter = wide();
    for _ in 0..4 {
        assert_eq!(once(&limiter, CallOutcome::Failed(1.0)).await, Ok(()));
    }
    assert_eq!(once(&limiter, CallOutcome::Throttled(SECOND)).await, Ok(()), "a pause is not a failure");
    tokio::time::advance(SECOND).await;
    for _ in 0..5 {
        assert_eq!(once(&limiter, CallOutcome::Failed(1.0)).await, Ok(()));
    }
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Broken(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn late_failure_does_not_extend_an_open_breaker() {
    let limiter = wide();
    let stale = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    for _ in 0..5 {
        assert_eq!(once(&limiter, CallOutcome::Failed(1.0)).await, Ok(()));
    }
    stale.finish(CallOutcome::Failed(1.0));
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Broken(SECOND)));
}

#[tokio::test(start_paused = true)]
async fn open_breaker_permits_one_probe_at_a_time() {
    let limiter = broken().await;
    tokio::time::advance(SECOND).await;
    let probing = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    assert!(matches!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Broken(_))));
    drop(probing);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()), "a dropped probe permits the next one");
}

#[tokio::test(start_paused = true)]
async fn failed_probe_doubles_the_pause_of_the_breaker() {
    let limiter = broken().await;
    tokio::time::advance(SECOND).await;
    assert_eq!(once(&limiter, CallOutcome::Failed(1.0)).await, Ok(()));
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Broken(SECOND * 2)));
    tokio::time::advance(SECOND * 2).await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
}

/// A source that has just rejected its credential.
async fn rejected() -> Arc<UpstreamLimiter> {
    let limiter = wide();
    assert_eq!(once(&limiter, CallOutcome::Rejected).await, Ok(()));
    limiter
}

#[tokio::test(start_paused = true)]
async fn rejected_credential_is_probed_once_after_thirty_seconds() {
    let limiter = rejected().await;
    tokio::time::advance(Duration::from_millis(29_999)).await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Rejected));
    tokio::time::advance(Duration::from_millis(1)).await;
    let probe = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    assert_eq!(
        once(&limiter, CallOutcome::Answered).await,
        Err(LimiterRefusal::Rejected),
        "one probe at a time"
    );
    probe.finish(CallOutcome::Rejected);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Rejected), "another 30 s");
}

#[tokio::test(start_paused = true)]
async fn answer_to_an_earlier_call_does_not_accept_a_credential() {
    let limiter = wide();
    let early = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    assert_eq!(once(&limiter, CallOutcome::Rejected).await, Ok(()));
    early.finish(CallOutcome::Answered);
    assert_eq!(limiter.snapshot().health, SourceHealth::CredentialRejected);
}

#[tokio::test(start_paused = true)]
async fn new_credential_is_used_at_once() {
    let limiter = rejected().await;
    limiter.reset_auth_failure();
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(limiter.snapshot().health, SourceHealth::Healthy);
}

#[tokio::test(start_paused = true)]
async fn exhausted_hourly_budget_reports_when_it_resets() {
    let limiter = limiter(100, 2, 10, SECOND * 2);
    assert_eq!(limiter.snapshot().health, SourceHealth::Untried);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(limiter.snapshot().budget.left_this_hour, 1);
    tokio::time::advance(SECOND * 600).await;
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    assert_eq!(limiter.snapshot().closed_for, Some(SECOND * 3_000));
    assert_eq!(limiter.snapshot().health, SourceHealth::Throttled);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Throttled(SECOND * 3_000)));
}

#[tokio::test(start_paused = true)]
async fn retries_are_limited_to_a_share_of_the_calls() {
    let limiter = wide();
    let mut retries = 0;
    for _ in 0..500 {
        limiter.earn_retry();
        while limiter.spend_retry() {
            retries += 1;
        }
    }
    assert!((100..=111).contains(&retries), "{retries} retries for 500 calls");
}

const fn limits(per_hour: u32, concurrency: u32) -> LimiterSettings {
    LimiterSettings {
        per_second: 100,
        per_hour,
        caller_share: 20,
        concurrency,
        max_wait: SECOND.saturating_mul(2),
    }
}

#[tokio::test(start_paused = true)]
async fn changed_limits_keep_the_used_budget() {
    let limiter = limiter(100, 10, 1, SECOND * 2);
    for _ in 0..4 {
        once(&limiter, CallOutcome::Answered).await.unwrap();
    }
    for (per_hour, left) in [(5, 1), (4, 0), (2, 0), (20, 16)] {
        limiter.set_limits(limits(per_hour, 1));
        assert_eq!(limiter.snapshot().budget.left_this_hour, left, "of {per_hour}");
    }
    limiter.set_limits(limits(4, 1));
    assert!(matches!(once(&limiter, CallOutcome::Answered).await, Err(LimiterRefusal::Throttled(_))));
}

#[tokio::test(start_paused = true)]
async fn changed_concurrency_applies_to_a_waiting_call() {
    let limiter = limiter(100, 20, 1, SECOND * 2);
    let _held = limiter.acquire(&FetchTrigger::Operator, SECOND).await.unwrap();
    let waiting = limiter.acquire(&FetchTrigger::Operator, SECOND);
    let (waited, ()) = tokio::join!(waiting, async { limiter.set_limits(limits(20, 2)) });
    assert!(waited.is_ok());
}

#[tokio::test(start_paused = true)]
async fn source_at_another_endpoint_has_no_health_yet() {
    let limiter = wide();
    once(&limiter, CallOutcome::Answered).await.unwrap();
    assert_eq!(limiter.snapshot().health, SourceHealth::Healthy);
    limiter.reset_endpoint_state();
    assert_eq!(limiter.snapshot().health, SourceHealth::Untried);
}
