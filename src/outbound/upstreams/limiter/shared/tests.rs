//! The shares of replicas while the shared count is unavailable, and the knowledge of its calls.

use super::*;
use proptest::prelude::*;

fn limits(per_second: u32, per_hour: u32) -> LimiterSettings {
    LimiterSettings { per_second, per_hour, caller_share: 20, concurrency: 1, max_wait: SECOND }
}

/// A window that starts in the fallback.
fn alone() -> SharedWindow {
    let mut window = SharedWindow::default();
    window.fall_back(Duration::ZERO);
    window
}

proptest! {
    #[test]
    fn the_shares_of_all_replicas_together_stay_within_the_budget(
        per_second in 1_u32..20, replicas in 1_u32..6, gaps in proptest::collection::vec(0_u64..300, 1..200)
    ) {
        let limits = limits(per_second, 1_000_000);
        let (mut window, mut now, mut started) = (alone(), Duration::ZERO, Vec::new());
        for gap in gaps {
            now += Duration::from_millis(gap);
            now += window.wait(now, &limits, replicas);
            window.take_local(now);
            started.push(now);
        }
        // Every replica does the same as this one: in a long enough period, all together keep the rate.
        let stretch = SECOND * replicas;
        for (index, first) in started.iter().enumerate() {
            let within = started[index..].iter().take_while(|at| **at < *first + stretch).count();
            let all = u32::try_from(within).unwrap() * replicas;
            prop_assert!(all <= per_second * replicas, "{all} calls in {stretch:?} at {per_second}");
        }
    }

    #[test]
    fn no_hour_exceeds_its_budget_when_the_shared_count_is_lost(
        per_hour in 3_u32..40, replicas in 1_usize..4,
        steps in proptest::collection::vec((prop_oneof![0_u64..3, 0_u64..600], 0_usize..4, 0_u32..12), 1..200)
    ) {
        let (limits, number) = (limits(1_000, per_hour), u32::try_from(replicas).unwrap());
        let mut windows: Vec<SharedWindow> = (0..replicas).map(|_| SharedWindow::default()).collect();
        let (mut now, mut sequence, mut calls) = (SECOND * 10, 0_u64, Vec::<Duration>::new());
        for window in &mut windows {
            window.begin(now, 0, &[]);
        }
        // Since when the shared count is available, and when each replica last exchanged its calls with it.
        let (mut available, mut exchanged) = (Some(now), vec![now; replicas]);
        for (gap, who, what) in steps {
            now += Duration::from_secs(gap);
            let who = who % replicas;
            // Every replica exchanges its calls once a second, one of them a little later.
            for (index, window) in windows.iter_mut().enumerate() {
                let Some(available) = available else { break };
                let due = exchanged[index].max(available) + SECOND;
                if now < due || (index == who && what == 2 && now == due) {
                    continue;
                }
                let unreported = window.unreported();
                window.reported(&unreported);
                sequence += unreported.len() as u64;
                window.confirm(now, sequence, unreported.len());
                window.is_back(now);
                exchanged[index] = now;
            }
            match what {
                0 if available.is_some() => {
                    available = None;
                    for window in &mut windows {
                        window.fall_back(now);
                    }
                }
                1 => available = available.or(Some(now)),
                _ => {}
            }
            let window = &mut windows[who];
            if !window.wait(now, &limits, number).is_zero() {
                continue;
            }
            let counted = calls.iter().filter(|at| **at + HOUR > now).count();
            if available.is_none_or(|available| exchanged[who] < available) {
                window.take_local(now);
            } else if counted < per_hour as usize {
                sequence += 1;
                window.take(now);
                window.confirm(now, sequence, 0);
            } else {
                continue;
            }
            calls.push(now);
            let within = calls.iter().filter(|at| **at + HOUR > now).count();
            prop_assert!(within <= per_hour as usize, "{within} of {per_hour}");
        }
    }
}

/// Four replicas of a budget of 100 an hour that share one count.
fn four() -> [SharedWindow; 4] {
    [(); 4].map(|()| {
        let mut window = SharedWindow::default();
        window.begin(SECOND, 0, &[]);
        window
    })
}

/// Makes as many local calls as are permitted.
fn spend_locally(window: &mut SharedWindow, now: Duration) -> u32 {
    let mut made = 0;
    while window.wait(now, &limits(1_000, 100), 4).is_zero() {
        window.take_local(now);
        made += 1;
    }
    made
}

#[test]
fn calls_shortly_before_a_loss_count_once_per_replica() {
    // The loss is detected at once, or by the timeout of a command.
    for detected in [SECOND * 11, SECOND * 16] {
        let mut windows = four();
        for sequence in 1..=10 {
            windows[0].take(SECOND * 10);
            windows[0].confirm(SECOND * 10, sequence, 0);
        }
        let alone = windows.iter_mut().map(|window| {
            window.fall_back(detected);
            spend_locally(window, detected)
        });
        let alone: u32 = alone.sum();
        assert!((80..=90).contains(&alone), "{alone} calls after 10 that the others do not know");
    }
}

#[test]
fn shares_of_a_loss_remain_after_a_short_return() {
    let mut windows = four();
    let mut made = 0;
    for window in &mut windows {
        window.fall_back(SECOND * 10);
        made += spend_locally(window, SECOND * 10);
    }
    assert_eq!(made, 100);
    // The first one reports its calls, and then the count is lost again before the others have reported theirs.
    let first = &mut windows[0];
    let unreported = first.unreported();
    first.reported(&unreported);
    first.confirm(SECOND * 11, 25, 25);
    first.is_back(SECOND * 11);
    first.fall_back(SECOND * 12);
    assert_eq!(spend_locally(first, SECOND * 12), 0);
}

#[test]
fn a_replica_without_calls_forgets_calls_after_the_hour() {
    let mut window = SharedWindow::default();
    window.begin(Duration::ZERO, 0, &[]);
    for second in 0..3 * 3_600 {
        window.confirm(Duration::from_secs(second), second, 0);
    }
    assert!(window.all.len() <= 3_601, "{} entries", window.all.len());
}

#[test]
fn an_impossible_number_of_calls_leaves_none() {
    let mut window = SharedWindow::default();
    window.begin(Duration::ZERO, 0, &[]);
    for sequence in 1..=2_u32 {
        window.confirm(SECOND * sequence, u64::from(sequence) << 40, 0);
    }
    assert_eq!((window.left(SECOND * 3, 100), window.sure(SECOND * 3)), (0, u32::MAX));
}

#[test]
fn remaining_hourly_budget_is_divided_among_replicas() {
    let (limits, mut window) = (limits(100, 300), SharedWindow::default());
    window.begin(Duration::ZERO, 0, &[]);
    window.confirm(Duration::ZERO, 291, 0);
    let now = SECOND * 100;
    window.confirm(now, 291, 0);
    window.fall_back(now);
    for _ in 0..3 {
        assert_eq!(window.wait(now, &limits, 3), Duration::ZERO);
        window.take_local(now);
    }
    assert_eq!(window.wait(now, &limits, 3), Duration::from_secs(3_501), "a third of nine");
    assert_eq!(window.left(now, 300), 6, "of all calls, as far as it knows");
    assert_eq!(window.wait(HOUR + SECOND, &limits, 3), Duration::ZERO, "after the hour it is a third of all");
}

#[test]
fn local_share_applies_until_other_replicas_have_reported() {
    let (limits, mut window) = (limits(100, 30), SharedWindow::default());
    window.fall_back(Duration::ZERO);
    for _ in 0..10 {
        window.take_local(Duration::ZERO);
    }
    window.is_back(SECOND);
    assert!(!window.wait(SECOND, &limits, 3).is_zero());
    window.is_back(SECOND + GRACE);
    assert_eq!(window.wait(SECOND + GRACE, &limits, 3), Duration::ZERO, "the shared count decides");
}

#[test]
fn reported_calls_are_counted_once() {
    let mut window = SharedWindow::default();
    window.begin(Duration::ZERO, 7, &[(Duration::ZERO, 4)]);
    window.take_local(SECOND);
    assert_eq!(window.left(SECOND, 10), 5);
    let reported = window.unreported();
    window.reported(&reported);
    window.confirm(SECOND * 2, 9, 1);
    assert_eq!((window.left(SECOND * 2, 10), window.unreported().len()), (4, 0), "and one of another");
    assert_eq!(window.newest_first(HOUR + SECOND * 2).len(), 1, "the last second");
}

#[test]
fn calls_from_before_the_start_leave_the_hour_in_time() {
    let (mut window, now) = (SharedWindow::default(), HOUR);
    window.begin(now, 60, &[(SECOND * 3_000, 40), (SECOND * 100, 20)]);
    assert_eq!(window.by_age(now, 3), [(SECOND * 2_990, 40), (SECOND * 90, 20)]);
    assert_eq!((window.left(now, 100), window.left(now + SECOND * 602, 100)), (40, 80));
}

#[test]
fn what_replicas_call_alone_is_taken_to_be_alike() {
    let (mut window, now) = (SharedWindow::default(), HOUR);
    window.begin(now, 5, &[(SECOND * 100, 5)]);
    window.fall_back(now);
    window.take_local(now);
    assert_eq!(window.by_age(now, 3), [(SECOND * 90, 5), (Duration::ZERO, 3)]);
}
