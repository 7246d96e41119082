//! The gate's promises, on a clock that stands still.

mod shared;
mod shares;
mod turns;

use super::*;
use tokio::task::JoinSet;

const SECOND: Duration = Duration::from_secs(1);

fn gate(per_second: u32, per_hour: u32, concurrency: u32, max_wait: Duration) -> Arc<Gate> {
    Gate::new(
        SourceName::parse("s").unwrap(),
        Limits { per_second, per_hour, caller_share: 20, concurrency, max_wait },
        None,
    )
}

fn wide() -> Arc<Gate> {
    gate(1_000, 100_000, 100, SECOND * 2)
}

async fn once(gate: &Arc<Gate>, outcome: Outcome) -> Result<(), Refusal> {
    gate.enter(&Asker::Operator, SECOND * 60).await.map(|permit| permit.finish(outcome))
}

#[tokio::test(start_paused = true)]
async fn no_window_ever_holds_more_calls_than_the_budget() {
    for (per_second, per_hour) in [(5, 1_000), (3, 12), (50, 20)] {
        let gate = gate(per_second, per_hour, 100, SECOND * 100_000);
        let mut calls = JoinSet::new();
        for number in 0..40_u64 {
            let gate = Arc::clone(&gate);
            calls.spawn(async move {
                let patience = SECOND * 100_000;
                let asker = if number % 2 == 0 { Asker::Operator } else { Asker::Background };
                let permit = gate.enter(&asker, patience).await.unwrap();
                permit.finish(Outcome::Answered);
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
async fn never_more_at_once_than_allowed_and_a_dropped_call_frees_its_slot() {
    let gate = gate(1_000, 100_000, 2, SECOND * 2);
    let first = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    let second = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    assert_eq!(gate.snapshot().budget.in_flight, 2);
    let before = Instant::now();
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Throttled(SLOT_WAIT)));
    assert_eq!(before.elapsed(), SECOND * 2);
    drop(first);
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    drop(second);
    assert_eq!(gate.snapshot().budget.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_every_call_exactly_as_long_as_asked() {
    let gate = wide();
    assert_eq!(once(&gate, Outcome::Throttled(SECOND * 30)).await, Ok(()));
    for left in [30, 29, 1] {
        tokio::time::advance(gate.snapshot().closed_for.unwrap().saturating_sub(SECOND * left)).await;
        assert_eq!(gate.snapshot().health, SourceHealth::Throttled);
        let before = Instant::now();
        assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Throttled(SECOND * left)));
        assert_eq!(before.elapsed(), Duration::ZERO, "nobody sleeps through a pause");
    }
    tokio::time::advance(SECOND).await;
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(gate.snapshot().closed_for, None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_reaches_those_who_already_wait() {
    let gate = gate(1_000, 100_000, 1, SECOND * 2);
    let permit = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    let (waiting, background, ()) =
        tokio::join!(once(&gate, Outcome::Answered), gate.enter(&Asker::Background, SECOND), async {
            permit.finish(Outcome::Throttled(SECOND * 9));
        },);
    assert_eq!(waiting, Err(Refusal::Throttled(SECOND * 9)));
    assert_eq!(background.unwrap_err(), Refusal::Throttled(SECOND * 9));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_cannot_end_in_time_is_refused_at_once() {
    let gate = gate(1, 100_000, 10, SECOND * 2);
    let start = Instant::now();
    let results = futures_util::future::join_all((0..6).map(|_| async {
        let result = once(&gate, Outcome::Answered).await;
        (result, start.elapsed())
    }))
    .await;
    let expected = [
        (Ok(()), Duration::ZERO),
        (Ok(()), SECOND),
        (Ok(()), SECOND * 2),
        (Err(Refusal::Throttled(SECOND * 3)), Duration::ZERO),
        (Err(Refusal::Throttled(SECOND * 3)), Duration::ZERO),
        (Err(Refusal::Throttled(SECOND * 3)), Duration::ZERO),
    ];
    assert_eq!(results, expected);
}

#[tokio::test(start_paused = true)]
async fn someone_waiting_goes_before_the_background_and_each_in_order() {
    let gate = gate(1, 100_000, 10, SECOND * 60);
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    let order = Mutex::new(Vec::new());
    let call = |name: &'static str, asker: &'static Asker| {
        let (gate, order) = (&gate, &order);
        async move {
            gate.enter(asker, SECOND * 60).await.unwrap().finish(Outcome::Answered);
            order.lock().unwrap().push(name);
        }
    };
    tokio::join!(
        call("background 1", &Asker::Background),
        call("background 2", &Asker::Background),
        call("waiting 1", &Asker::Operator),
        call("waiting 2", &Asker::Operator),
    );
    assert_eq!(*order.lock().unwrap(), ["waiting 1", "waiting 2", "background 1", "background 2"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_leaves_no_place_behind() {
    let gate = gate(1, 100_000, 1, SECOND * 60);
    let held = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    for asker in &[Asker::Operator, Asker::Background] {
        let given_up = tokio::time::timeout(SECOND, gate.enter(asker, SECOND * 60)).await;
        assert!(given_up.is_err());
    }
    drop(held);
    let before = Instant::now();
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_open_the_breaker_and_one_try_decides() {
    let gate = wide();
    for _ in 0..4 {
        assert_eq!(once(&gate, Outcome::Failed(1.0)).await, Ok(()));
    }
    assert_eq!(once(&gate, Outcome::Throttled(SECOND)).await, Ok(()), "a pause is no failure");
    tokio::time::advance(SECOND).await;
    let stale = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    for _ in 0..5 {
        assert_eq!(once(&gate, Outcome::Failed(1.0)).await, Ok(()));
    }
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Broken(SECOND)));
    stale.finish(Outcome::Failed(1.0));
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Broken(SECOND)), "not lengthened");
    assert_eq!(gate.snapshot().health, SourceHealth::Unavailable);
    tokio::time::advance(SECOND).await;
    let probing = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    assert!(matches!(once(&gate, Outcome::Answered).await, Err(Refusal::Broken(_))), "one try at a time");
    drop(probing);
    assert_eq!(once(&gate, Outcome::Failed(1.0)).await, Ok(()), "a dropped try lets the next one try");
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Broken(SECOND * 2)));
    tokio::time::advance(SECOND * 2).await;
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(gate.snapshot().health, SourceHealth::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_left_alone_then_tried_once() {
    let gate = wide();
    let early = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    assert_eq!(once(&gate, Outcome::Rejected).await, Ok(()));
    early.finish(Outcome::Answered);
    assert_eq!(gate.snapshot().health, SourceHealth::CredentialRejected);
    tokio::time::advance(Duration::from_millis(29_999)).await;
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Rejected));
    tokio::time::advance(Duration::from_millis(1)).await;
    let trial = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Rejected), "one try at a time");
    trial.finish(Outcome::Rejected);
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Rejected), "another 30 s");
    gate.forgive();
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()), "a new credential need not wait");
    assert_eq!(gate.snapshot().health, SourceHealth::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_hour_used_up_shows_and_says_until_when() {
    let gate = gate(100, 2, 10, SECOND * 2);
    assert_eq!(gate.snapshot().health, SourceHealth::Untried);
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(gate.snapshot().budget.left_this_hour, 1);
    tokio::time::advance(SECOND * 600).await;
    assert_eq!(once(&gate, Outcome::Answered).await, Ok(()));
    assert_eq!(gate.snapshot().closed_for, Some(SECOND * 3_000));
    assert_eq!(gate.snapshot().health, SourceHealth::Throttled);
    assert_eq!(once(&gate, Outcome::Answered).await, Err(Refusal::Throttled(SECOND * 3_000)));
}

#[tokio::test(start_paused = true)]
async fn retries_cannot_multiply_an_outage() {
    let gate = wide();
    let mut retries = 0;
    for _ in 0..500 {
        gate.earn_retry();
        while gate.spend_retry() {
            retries += 1;
        }
    }
    assert!((100..=111).contains(&retries), "{retries} retries for 500 calls");
}

#[tokio::test(start_paused = true)]
async fn other_limits_hold_at_once_and_what_was_used_stays_used() {
    let gate = gate(100, 10, 1, SECOND * 2);
    for _ in 0..4 {
        once(&gate, Outcome::Answered).await.unwrap();
    }
    let limits = |per_hour, concurrency| Limits {
        per_second: 100,
        per_hour,
        caller_share: 20,
        concurrency,
        max_wait: SECOND * 2,
    };
    for (per_hour, left) in [(5, 1), (4, 0), (2, 0), (20, 16)] {
        gate.set_limits(limits(per_hour, 1));
        assert_eq!(gate.snapshot().budget.left_this_hour, left, "of {per_hour}");
    }
    gate.set_limits(limits(4, 1));
    assert!(matches!(once(&gate, Outcome::Answered).await, Err(Refusal::Throttled(_))));
    gate.set_limits(limits(20, 1));
    let held = gate.enter(&Asker::Operator, SECOND).await.unwrap();
    let waiting = gate.enter(&Asker::Operator, SECOND);
    let (waited, ()) = tokio::join!(waiting, async { gate.set_limits(limits(20, 2)) });
    assert!(waited.is_ok(), "whoever waits for a slot has it as soon as there is one");
    drop(held);
    gate.forget_the_place();
    assert_eq!(gate.snapshot().health, SourceHealth::Untried);
}
