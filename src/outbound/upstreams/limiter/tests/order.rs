//! Waiting calls are served round robin by client, and are rejected early by their own position.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;

use super::super::queue::CallQueue;
use super::*;

/// The outcome of a call: permitted, rejected, or dropped.
type End = Option<Result<(), LimiterRefusal>>;

fn trigger(name: &str) -> FetchTrigger {
    match name {
        "background" => FetchTrigger::Background,
        client => FetchTrigger::Client(client.into()),
    }
}

/// Makes these calls at once, in this order, and returns in order of completion: the client, the number of its call,
/// the time and the outcome. A name with `!` is of a call that is dropped after half a second.
async fn ends(
    limiter: &Arc<UpstreamLimiter>,
    names: &[&'static str],
) -> Vec<(&'static str, usize, Duration, End)> {
    let start = Instant::now();
    let ended = Mutex::new(Vec::new());
    let mut made = BTreeMap::new();
    let calls: Vec<_> = names
        .iter()
        .map(|name| {
            let stays = name.trim_end_matches('!');
            let max_wait = if stays == *name { SECOND * 1_000 } else { SECOND / 2 };
            let number = made.entry(stays).and_modify(|made| *made += 1).or_insert(0_usize);
            (stays, *number, max_wait)
        })
        .collect();
    join_all(calls.into_iter().map(|(name, number, stays)| {
        let ended = &ended;
        async move {
            let trigger = trigger(name);
            let entered = tokio::time::timeout(stays, limiter.acquire(&trigger, SECOND * 1_000)).await;
            let end = entered.ok().map(|entered| entered.map(|permit| permit.finish(CallOutcome::Answered)));
            ended.lock().unwrap().push((name, number, start.elapsed(), end));
        }
    }))
    .await;
    ended.into_inner().unwrap()
}

/// A limiter for one call a second that has just permitted one, so that the next call waits.
async fn passed() -> Arc<UpstreamLimiter> {
    let limiter = limiter(1, 100_000, 10, SECOND * 1_000);
    assert_eq!(once(&limiter, CallOutcome::Answered).await, Ok(()));
    limiter
}

#[tokio::test(start_paused = true)]
async fn single_call_waits_for_only_one_call_of_another_client() {
    let limiter = passed().await;
    let mut names = vec!["alice"; 200];
    names.push("bob");
    let ends = ends(&limiter, &names).await;
    assert_eq!(ends.len(), 201);
    assert_eq!(ends[1], ("bob", 0, SECOND * 2, Some(Ok(()))));
    assert_eq!(ends[200], ("alice", 199, SECOND * 201, Some(Ok(()))), "no slot is lost");
}

#[tokio::test(start_paused = true)]
async fn clients_alternate_and_each_keeps_its_fifo_order() {
    let (a, b, c, background) = ("a", "b", "c", "background");
    for (names, order) in [
        (vec![a, a, a, b, b, b], "a0 b0 a1 b1 a2 b2"),
        (vec![a, a, a, a, b, b, c], "a0 b0 c0 a1 b1 a2 a3"),
        (vec![background, b, a, a, background, c], "b0 a0 c0 a1 background0 background1"),
    ] {
        let ends = ends(&passed().await, &names).await;
        let went: Vec<String> = ends.iter().map(|(name, number, ..)| format!("{name}{number}")).collect();
        assert_eq!(went.join(" "), order);
        for (position, (.., when, end)) in (1..).zip(&ends) {
            assert_eq!((*when, *end), (SECOND * position, Some(Ok(()))), "{order}: every slot is used");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_call_leaves_the_round_robin_order_unchanged() {
    let ends = ends(&passed().await, &["a!", "a", "b", "b!", "b", "c!", "background!"]).await;
    let dropped = |name, number| (name, number, SECOND / 2, None);
    let went = |name, number, seconds| (name, number, SECOND * seconds, Some(Ok(())));
    let (gone, rest) = ends.split_at(4);
    for one in [dropped("a", 0), dropped("b", 1), dropped("c", 0), dropped("background", 0)] {
        assert!(gone.contains(&one), "{one:?}");
    }
    assert_eq!(rest, [went("a", 1, 1), went("b", 0, 2), went("b", 2, 3)]);
}

#[tokio::test(start_paused = true)]
async fn predicted_wait_uses_the_round_robin_queue_position() {
    let limiter = limiter(5, 100_000, 100, Duration::from_millis(10_500));
    let mut names = vec!["alice"; 200];
    names.extend(["bob", "background"]);
    let ends = ends(&limiter, &names).await;
    let count = |name: &str, when: Duration, end: Result<(), LimiterRefusal>| {
        ends.iter().filter(|(who, _, at, how)| *who == name && *at == when && *how == Some(end)).count()
    };
    let throttled = |seconds| Err(LimiterRefusal::Throttled(SECOND * seconds));
    assert_eq!(count("alice", Duration::ZERO, Ok(())), 5);
    assert_eq!(count("alice", Duration::ZERO, throttled(11)), 145, "too far back in her own line");
    assert_eq!(count("bob", SECOND, Ok(())), 1, "in the next second, like her next ones");
    assert_eq!(count("background", Duration::ZERO, throttled(11)), 1, "behind all others");
    let later: usize = (1..=10).map(|second| count("alice", SECOND * second, Ok(()))).sum();
    assert_eq!(later, 49);
    assert_eq!(count("alice", SECOND * 10, throttled(1)), 1, "the one that bob's call displaced");
}

proptest! {
    #[test]
    fn queued_calls_start_in_the_predicted_order(steps in proptest::collection::vec((0_u8..6, 0_usize..8), 0..60)) {
        let mut queue = CallQueue::default();
        let mut waiting: Vec<(FetchTrigger, u64)> = Vec::new();
        for (step, pick) in steps {
            let place = waiting.get(pick).cloned();
            match (step, place) {
                (0, Some((trigger, id))) => {
                    queue.quit(&trigger, id);
                    waiting.remove(pick);
                }
                (1, Some(_)) => {
                    let next = waiting.iter().position(|(trigger, id)| queue.ahead(trigger, *id) == 0).unwrap();
                    let (trigger, id) = waiting.remove(next);
                    queue.go(&trigger, id);
                }
                _ => {
                    let trigger = trigger(["a", "b", "c", "background"][pick % 4]);
                    let id = queue.join(&trigger, Arc::default());
                    waiting.push((trigger, id));
                }
            }
        }
        waiting.sort_by_key(|(trigger, id)| queue.ahead(trigger, *id));
        for (position, (trigger, id)) in waiting.iter().enumerate() {
            for (later, (trigger, id)) in waiting[position..].iter().enumerate() {
                prop_assert_eq!(queue.ahead(trigger, *id), later);
            }
            queue.go(trigger, *id);
        }
    }
}
