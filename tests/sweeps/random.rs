//! Random histories against the truth of the upstream: every change is delivered once, and none later than the
//! verification interval.

use jobgate::domain::job::Life;
use jobgate::domain::state::JobState;
use proptest::prelude::*;
use tokio::time::Instant;

use super::{Change, Ground, JOBS, Lists, MINUTE, SECOND};

/// What happens to one job: when it ends, and how much later that appears in lists.
type End = Option<(u32, u32)>;

/// A history: the jobs, the clocks of the upstream, and the periods in which its lists are as given.
#[derive(Clone, Debug)]
struct History {
    ends: Vec<End>,
    skew: (i64, i64),
    lists: Vec<(u32, Lists)>,
    restarts: Option<u32>,
}

fn history() -> impl Strategy<Value = History> {
    // Mostly within the overlap, now and then far beyond it.
    let late = prop_oneof![9 => 0_u32..55, 1 => 55_u32..900];
    let end = prop_oneof![1 => Just(None), 3 => (60_u32..1_200, late).prop_map(Some)];
    let lists = prop_oneof![
        4 => Just(Lists::Complete),
        1 => Just(Lists::Empty),
        1 => Just(Lists::Broken),
        1 => Just(Lists::Refused(405)),
    ];
    let periods = proptest::collection::vec((60_u32..400, lists), 0..5);
    let skew = (-400_i64..400, -400_i64..400);
    (proptest::collection::vec(end, JOBS), skew, periods, proptest::option::of(300_u32..1_000))
        .prop_map(|(ends, skew, lists, restarts)| History { ends, skew, lists, restarts })
}

/// Runs one history for 35 minutes, and checks what watchers received.
async fn run(history: &History) {
    let ground = Ground::new().with_jobs(JOBS, |job| {
        let end = history.ends[job].into_iter();
        end.map(|(at, late)| Change { at: SECOND * at, late: SECOND * late, life: Life::Succeeded }).collect()
    });
    *ground.upstream.skew.lock().unwrap() = history.skew;
    let start = Instant::now();
    let mut running = ground.start();
    running.watch(0..JOBS, None);
    let mut steps: Vec<(u32, Option<Lists>)> = Vec::new();
    let mut at = 0;
    for (lasts, lists) in &history.lists {
        steps.push((at, Some(*lists)));
        at += lasts;
    }
    steps.push((at, Some(Lists::Complete)));
    steps.extend(history.restarts.map(|at| (at, None)));
    steps.sort_by_key(|(at, _)| *at);
    let mut before = None;
    for (at, step) in steps {
        tokio::time::sleep_until(start + SECOND * at).await;
        if let Some(lists) = step {
            *ground.upstream.lists.lock().unwrap() = lists;
            continue;
        }
        let seen = running.seen.clone();
        running.stop().await;
        before = Some((seen, Instant::now()));
        running = ground.start();
        running.watch(0..JOBS, None);
    }
    tokio::time::sleep_until(start + MINUTE * 35).await;
    for (job, end) in history.ends.iter().enumerate() {
        let id = format!("j{job}");
        let ended_before = before.as_ref().and_then(|(seen, _)| seen.ended(&id));
        let states = running.seen.states(&id);
        let Some((at, _)) = end else {
            assert_eq!(states, [JobState::Running], "{id}");
            continue;
        };
        let ended = ended_before.or_else(|| running.seen.ended(&id));
        assert!(ended.is_some(), "{id} ended at {at} s and no watcher knows");
        let ended = ended.unwrap();
        let truth = (start + SECOND * *at).max(
            before.as_ref().map_or(
                start,
                |(_, restart)| {
                    if ended_before.is_some() { start } else { *restart }
                },
            ),
        );
        let late = ended.saturating_duration_since(truth);
        assert!(late <= MINUTE * 10 + SECOND, "{id} was delivered {late:?} late");
        assert!(ended >= start + SECOND * *at, "{id} was delivered before it ended");
        let ends = states.iter().filter(|state| **state == JobState::Succeeded).count();
        assert_eq!(ends, 1, "{id} {states:?}");
        assert!(states.len() <= 2, "{id} {states:?}");
    }
    running.stop().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_missed_for_the_verification_interval(history in history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(&history));
    }
}
