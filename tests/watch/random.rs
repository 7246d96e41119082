//! One job in random runs: whatever happens, each watcher receives an ordered sequence with one terminal state.

use futures_util::stream::StreamExt as _;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::jobs::watch::UpdateKind;
use jobgate::ports::upstream::FetchError;
use proptest::prelude::*;

use super::{SECOND, following, watch};
use crate::support::ports::reference;

/// What happens to one job in a random run.
#[derive(Clone, Copy, Debug)]
enum Event {
    Reports(u8),
    Watch,
    Leave,
    Lookup,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..6).prop_map(Event::Reports),
        Just(Event::Watch),
        Just(Event::Leave),
        Just(Event::Lookup),
        (1_u8..40).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the watchers run on a runtime that ends with the test")]
    fn each_watcher_receives_ordered_updates_and_one_final_one(events in proptest::collection::vec(event(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let gateway = following();
            let mut watchers = Vec::new();
            for event in events {
                match event {
                    Event::Reports(word) => gateway.mindbridge.respond_with(move |_| match word {
                        0 => Ok(Life::Queued),
                        1 => Ok(Life::Running),
                        2 => Err(FetchError::TimedOut),
                        3 => Err(FetchError::NotFound),
                        4 => Err(FetchError::Throttled { retry_after: SECOND * 5 }),
                        _ => panic!("planted"),
                    }),
                    Event::Watch => watchers.push(tokio::spawn(watch(&gateway, &[("mind", "a")]).collect::<Vec<_>>())),
                    Event::Leave => watchers.pop().into_iter().for_each(|watcher| watcher.abort()),
                    Event::Lookup => drop(gateway.jobs.lookup_one(&Principal::local(), reference("mind", "a"), None).await),
                    Event::Wait(seconds) => tokio::time::sleep(SECOND * u32::from(seconds)).await,
                }
            }
            gateway.mindbridge.respond_with(|_| Ok(Life::Succeeded));
            for watcher in watchers {
                let updates = watcher.await.unwrap();
                assert_eq!(updates.iter().filter(|update| update.is_final).count(), 1);
                assert!(updates.last().unwrap().is_final);
                assert_eq!(updates.iter().filter(|update| update.kind == UpdateKind::Snapshot).count(), 1);
                assert!(updates.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
            }
        });
    }
}
