//! A few iterations of the loops that `cargo bench --bench crashes -- --loop NAME` runs at full size.

use crate::support::loops::convergence::{self, Outage};
use crate::support::loops::outages::DataLoss;
use crate::support::loops::{Outcome, kills, outages, stops};

fn assert_good(outcome: &Outcome, tries: usize) {
    assert_eq!((outcome.tries, outcome.bad.as_slice()), (tries, [].as_slice()), "{:?}", outcome.notes);
    assert!(outcome.checked > tries, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_kill_under_load_loses_no_delivered_state() {
    assert_good(&kills::run(2, |_, _| {}).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_paused_beyond_its_lease_writes_nothing() {
    assert_good(&stops::run(3, |_, _| {}).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redis_data_loss_makes_an_answer_regress() {
    for loss in [DataLoss::Kill, DataLoss::Flush, DataLoss::Empty, DataLoss::Evict] {
        assert_good(&outages::run(loss, 1, |_, _| {}).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_converge_after_an_outage_within_the_budget() {
    for outage in [Outage::Kill, Outage::Stop, Outage::Flush, Outage::ReadOnly, Outage::OutOfMemory] {
        assert_good(&convergence::run(outage, 1, |_, _| {}).await, 1);
    }
}
