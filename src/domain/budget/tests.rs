//! Tests of the shares of the hourly budget.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(3);

/// Makes background calls as often as they are allowed, at most one per step, and returns their times.
fn saturate(
    shares: &mut HourShares,
    from: Duration,
    to: Duration,
    mut at: impl FnMut(&mut HourShares, Duration),
) -> Vec<Duration> {
    let (mut now, mut calls): (_, Vec<Duration>) = (from, Vec::new());
    while now < to {
        at(shares, now);
        let spaced = calls.last().is_none_or(|last| *last + shares.spacing(now) <= now);
        if spaced && shares.wait(now, CallOrigin::Background).is_zero() {
            shares.take(now, CallOrigin::Background);
            calls.push(now);
        }
        now += STEP;
    }
    calls
}

fn most_within_an_hour(calls: &[Duration]) -> usize {
    let within = |(index, first): (usize, &Duration)| {
        calls[index..].iter().take_while(|at| **at < *first + HOUR).count()
    };
    calls.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn hourly_budget_reserves_a_share_for_callers() {
    for (per_hour, share, background) in
        [(250, 20, 200), (5_000, 20, 4_000), (100, 0, 100), (10, 90, 1), (1, 20, 1)]
    {
        let mut shares = HourShares::new(per_hour, share);
        let mut made = 0;
        while shares.wait(SECOND, CallOrigin::Background).is_zero() {
            shares.take(SECOND, CallOrigin::Background);
            made += 1;
        }
        assert_eq!(made, background, "of {per_hour} at {share} %");
        for _ in 0..per_hour - background {
            assert_eq!(shares.wait(SECOND, CallOrigin::Caller), Duration::ZERO);
            shares.take(SECOND, CallOrigin::Caller);
        }
    }
}

#[test]
fn callers_cannot_use_the_calls_that_polls_need() {
    for (demand, most) in [(0, 250), (30, 220), (10_000, 150)] {
        let mut shares = HourShares::new(250, 20);
        shares.set_demand(demand);
        let mut made = 0;
        while made < 250 && shares.wait(SECOND, CallOrigin::Caller).is_zero() {
            shares.take(SECOND, CallOrigin::Caller);
            made += 1;
        }
        assert_eq!(made, most, "with a demand of {demand}");
    }
}

#[test]
fn calls_are_not_spaced_while_the_budget_is_plentiful() {
    let mut shares = HourShares::new(5_000, 20);
    for call in 0..500 {
        let now = Duration::from_millis(call * 200);
        assert_eq!(shares.spacing(now), Duration::ZERO, "after {call} calls");
        shares.take(now, CallOrigin::Background);
    }
}

#[test]
fn background_calls_below_their_share_are_not_spaced() {
    let mut shares = HourShares::new(5_000, 20);
    let mut now = Duration::ZERO;
    while now < HOUR * 3 {
        assert_eq!(shares.spacing(now), Duration::ZERO, "at {now:?}");
        shares.take(now, CallOrigin::Background);
        now += SECOND;
    }
}

#[test]
fn calls_of_other_replicas_count_against_the_hourly_budget() {
    let mut shares = HourShares::new(3_000, 20);
    let ago = SECOND * 60;
    let mut used = |calls, others_callers| {
        let calls = vec![(ago, calls)];
        shares.set_shared(HOUR, SharedUse { calls, others_demand: 0, others_callers });
        let left = shares.for_background(shares.used(HOUR));
        (left, shares.wait(HOUR, CallOrigin::Background), shares.wait(HOUR, CallOrigin::Caller))
    };
    assert_eq!(used(2_380, 0), (20, Duration::ZERO, Duration::ZERO));
    assert_eq!(used(2_400, 0), (0, SECOND * 3_540, Duration::ZERO), "the rest is reserved for callers");
    assert_eq!(used(2_400, 100), (100, Duration::ZERO, Duration::ZERO), "callers have used a part of it");
}

#[test]
fn each_replica_takes_the_part_that_its_polls_need() {
    let mut shares = HourShares::new(1_000, 20);
    let calls = vec![(SECOND * 60, 700)];
    shares.set_demand(900);
    shares.set_shared(HOUR, SharedUse { calls: calls.clone(), ..SharedUse::default() });
    let alone = shares.spacing(HOUR);
    assert!(alone > SECOND * 4, "{alone:?}");
    shares.set_shared(HOUR, SharedUse { calls, others_demand: 100, others_callers: 0 });
    assert_eq!(shares.spacing(HOUR), alone.mul_f64(10.0 / 9.0));
    shares.set_demand(100);
    assert_eq!(shares.spacing(HOUR), alone * 2, "half of the rate each");
}

#[test]
fn one_call_known_twice_counts_once() {
    let mut shares = HourShares::new(100, 20);
    for _ in 0..30 {
        shares.take(HOUR, CallOrigin::Background);
    }
    shares.set_shared(HOUR, SharedUse { calls: vec![(Duration::ZERO, 40)], ..SharedUse::default() });
    assert_eq!(shares.used(HOUR), CountedCalls { callers: 0, background: 40 });
    assert_eq!(
        shares.used(HOUR * 2),
        CountedCalls { callers: 0, background: 30 },
        "within its slice of ten seconds"
    );
}

/// The longest time between polls while callers take every call that they are given, and its bound: half of the
/// background's share is guaranteed whatever callers do, so it is twice the spacing, plus what callers use meanwhile.
fn longest_gap_under_caller_load(per_hour: u32, share: u32) -> (Duration, Duration) {
    let mut shares = HourShares::new(per_hour, share);
    shares.set_demand(u32::MAX);
    let calls = saturate(&mut shares, Duration::ZERO, HOUR * 3, |shares, now| {
        for _ in 0..5 {
            if shares.wait(now, CallOrigin::Caller).is_zero() && shares.free(shares.used(now)) > 0 {
                shares.take(now, CallOrigin::Caller);
            }
        }
    });
    let longest = calls.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(HOUR * 3);
    (longest, HOUR * 4 / (per_hour - per_hour * share / 100) + STEP * 2)
}

#[test]
fn early_polls_leave_no_gap_under_caller_load() {
    for (per_hour, share) in [(403, 57), (397, 56), (124, 58)] {
        let (longest, bound) = longest_gap_under_caller_load(per_hour, share);
        assert!(longest <= bound, "{longest:?} of {bound:?} with {per_hour} at {share} %");
    }
}

#[test]
fn rechecks_use_a_bounded_share_of_spaced_calls() {
    let mut shares = HourShares::new(1_000, 20);
    let mut rechecks = Vec::new();
    let polls = saturate(&mut shares, Duration::ZERO, HOUR * 2, |shares, now| {
        if now > HOUR && !shares.spacing(now).is_zero() && shares.take_recheck(now) {
            shares.take(now, CallOrigin::Background);
            rechecks.push(now);
        }
    });
    let polls = polls.iter().filter(|at| **at > HOUR).count();
    // Polls are made at whole steps here, so there are fewer of them than their spacing allows.
    assert!(rechecks.len() >= 20 && rechecks.len() <= polls / 6, "{} beside {polls}", rechecks.len());
}

/// Background calls beside callers that keep to their share.
struct BesideCallers {
    calls: Vec<Duration>,
    /// When a caller was refused.
    refused: Option<Duration>,
    /// The calls an hour that are not reserved for callers.
    background: u32,
}

/// Three hours of background calls. Callers come in bursts, at times derived from the seed, and keep to their share of
/// any 61 minutes.
fn beside_callers(per_hour: u32, share: u32, seed: u64, bursts: u32) -> BesideCallers {
    let mut shares = HourShares::new(per_hour, share);
    shares.set_demand(u32::MAX);
    let kept = per_hour * share / 100;
    let (mut made, mut refused) = (Vec::<Duration>::new(), None);
    let calls = saturate(&mut shares, Duration::ZERO, HOUR * 3, |shares, now| {
        let bursts_now = (now.as_secs() ^ seed) % 200 < u64::from(bursts);
        let recent = made.iter().filter(|at| **at + HOUR + SECOND * 60 > now).count();
        for _ in recent..if bursts_now { kept as usize } else { 0 } {
            if !shares.wait(now, CallOrigin::Caller).is_zero() {
                refused = Some(now);
            }
            shares.take(now, CallOrigin::Caller);
            made.push(now);
        }
    });
    BesideCallers { calls, refused, background: per_hour - kept }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn background_calls_never_use_the_share_of_callers(
        per_hour in 20_u32..600, share in 0_u32..60, seed in any::<u64>(), bursts in 0_u32..20
    ) {
        let BesideCallers { calls, refused, background } = beside_callers(per_hour, share, seed, bursts);
        prop_assert_eq!(refused, None, "callers keep to their share");
        prop_assert!(most_within_an_hour(&calls) <= background as usize);
    }

    #[test]
    fn background_calls_use_their_share_without_long_gaps(
        per_hour in 20_u32..600, share in 0_u32..60, seed in any::<u64>(), bursts in 0_u32..20
    ) {
        let BesideCallers { calls, background, .. } = beside_callers(per_hour, share, seed, bursts);
        let longest = calls.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(HOUR * 3);
        let bound = HOUR.mul_f64(4.0 / 3.0 * 1.05) / background + STEP * 2;
        prop_assert!(longest <= bound, "{longest:?} of {bound:?}");
        let expected = background as usize * 5 / 2;
        prop_assert!(calls.len() + 2 >= expected, "{} in three hours of {background}", calls.len());
    }

    #[test]
    fn polls_continue_under_maximum_caller_load(per_hour in 40_u32..600, share in 0_u32..60) {
        let (longest, bound) = longest_gap_under_caller_load(per_hour, share);
        prop_assert!(longest <= bound, "{longest:?} of {bound:?}");
    }
}
