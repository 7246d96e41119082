//! The shares of the hourly budget in the limiter.

use super::*;

async fn calls_until_refused(
    limiter: &Arc<UpstreamLimiter>,
    trigger: &FetchTrigger,
) -> (usize, LimiterRefusal) {
    let mut calls = 0;
    loop {
        match limiter.acquire(trigger, SECOND).await {
            Ok(permit) => permit.finish(CallOutcome::Answered),
            Err(refusal) => return (calls, refusal),
        }
        calls += 1;
    }
}

fn refused_for_most_of_the_hour(refusal: LimiterRefusal) -> bool {
    matches!(refusal, LimiterRefusal::Throttled(wait) if wait > SECOND * 3_540)
}

#[tokio::test(start_paused = true)]
async fn background_calls_leave_callers_their_share() {
    let limiter = limiter(1_000, 50, 100, SECOND * 2);
    let (calls, refusal) = calls_until_refused(&limiter, &FetchTrigger::Background).await;
    assert_eq!(calls, 40, "of 50, of which 20 % are reserved");
    assert!(refused_for_most_of_the_hour(refusal), "{refusal:?}");
    let (calls, _) = calls_until_refused(&limiter, &FetchTrigger::Client("c".into())).await;
    assert_eq!(calls, 10);
}

#[tokio::test(start_paused = true)]
async fn callers_leave_polls_what_they_need() {
    let limiter = limiter(1_000, 50, 100, SECOND * 2);
    limiter.pace_polls(PollDemand { calls_per_hour: 1_000, awaited: true });
    let (calls, refusal) = calls_until_refused(&limiter, &FetchTrigger::Client("c".into())).await;
    assert_eq!(calls, 30, "half of the polls' share stays");
    assert!(refused_for_most_of_the_hour(refusal), "{refusal:?}");
    let (calls, _) = calls_until_refused(&limiter, &FetchTrigger::Background).await;
    assert_eq!(calls, 20);
}

#[tokio::test(start_paused = true)]
async fn rechecks_are_few_while_polls_are_spaced() {
    let limiter = limiter(1_000, 5_000, 100, SECOND * 2);
    assert!((0..100).all(|_| limiter.take_recheck()), "any number while the budget is ample");
    for _ in 0..3_000 {
        limiter.acquire(&FetchTrigger::Background, SECOND * 10).await.unwrap().finish(CallOutcome::Answered);
    }
    let spacing = limiter.pace_polls(PollDemand::default()).spacing;
    assert!(spacing > SECOND * 3, "{spacing:?}");
    let mut rechecks = 0;
    for _ in 0..600 {
        tokio::time::advance(SECOND).await;
        rechecks += usize::from(limiter.take_recheck());
    }
    assert!((12..=18).contains(&rechecks), "{rechecks} in ten minutes, one a poll in ten of {spacing:?}");
}
