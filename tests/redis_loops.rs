//! A few turns of the loops that `cargo bench --bench crashes -- --loop NAME` runs at full size.

use crate::support::loops::disagreements::{self, Outage};
use crate::support::loops::outages::Blow;
use crate::support::loops::{Outcome, kills, outages, stops};

fn assert_good(outcome: &Outcome, tries: usize) {
    assert_eq!((outcome.tries, outcome.bad.as_slice()), (tries, [].as_slice()), "{:?}", outcome.notes);
    assert!(outcome.checked > tries, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_outlives_the_sudden_death_of_a_replica_under_load() {
    assert_good(&kills::run(2, |_, _| {}).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stopped_beyond_its_lease_writes_nothing() {
    assert_good(&stops::run(3, |_, _| {}).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_redis_loses_no_answer_goes_back() {
    for blow in [Blow::Kill, Blow::Flush, Blow::Empty, Blow::Evict] {
        assert_good(&outages::run(blow, 1, |_, _| {}).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_agree_after_an_outage_and_keep_the_budget() {
    for outage in [Outage::Kill, Outage::Stop, Outage::Flush, Outage::ReadOnly, Outage::OutOfMemory] {
        assert_good(&disagreements::run(outage, 1, |_, _| {}).await, 1);
    }
}
