//! Sharing, caching and revalidation: the number of upstream requests that queries cost, counted by the upstreams.

use futures_util::future::join_all;
use jobgate_simulator::{
    Endpoint, FaultKind, MindBridgeJob, SimFault, SimUpstream, SupermetricsJob, SupermetricsStep,
};
use serde_json::{Value, json};

use crate::support::server::{Rig, Setup, external};
use crate::support::streams::room_for;

const MIND: SimUpstream = SimUpstream::MindBridge;
const METRICS: SimUpstream = SimUpstream::Supermetrics;

/// A completed job in the one upstream, and a running one in the other.
fn two() -> Setup {
    Setup::with(
        vec![MindBridgeJob::new("ended", &[(0, "COMPLETE")])],
        vec![SupermetricsJob::new("growing", &[(0, "RUNNING")])],
    )
}

fn many(count: usize) -> (Vec<MindBridgeJob>, Vec<Value>) {
    let ids: Vec<String> = (0..count).map(|number| format!("{number:024x}")).collect();
    let jobs = ids.iter().map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).collect();
    (jobs, ids.iter().map(|id| external("mind", id)).collect())
}

fn endpoints(rig: &Rig) -> (usize, usize) {
    (rig.requests_to(Endpoint::Query).len(), rig.requests_to(Endpoint::One).len())
}

#[tokio::test]
async fn two_hundred_jobs_of_a_source_cost_one_request_per_page() {
    let (jobs, refs) = many(200);
    for (page, expected) in [(None, 2), (Some(30), 8)] {
        let mut setup = Setup::with(jobs.clone(), vec![]);
        setup.scenario.mindbridge.max_page_size = page;
        let rig = setup.start().await;
        assert_eq!(rig.lookup_all(&refs).await, vec!["RUNNING"; 200]);
        assert_eq!(endpoints(&rig), (expected, 0), "pages of {page:?}");
        rig.assert_well_behaved();
    }
}

#[tokio::test]
async fn a_rejected_batch_query_falls_back_to_single_fetches() {
    let (jobs, refs) = many(30);
    for status in [403, 404, 405] {
        let mut setup = Setup::with(jobs.clone(), vec![]);
        setup.scenario.mindbridge.refuse_query = Some(status);
        let rig = setup.start().await;
        assert_eq!(rig.lookup_all(&refs[..10]).await, vec!["RUNNING"; 10]);
        assert_eq!(rig.lookup_all(&refs[10..20]).await, vec!["RUNNING"; 10]);
        assert_eq!(rig.lookup_all(&refs[20..]).await, vec!["RUNNING"; 10]);
        assert_eq!(endpoints(&rig), (2, 30), "{status}: two rejections in a row");
        rig.assert_well_behaved();
    }
}

/// Where 0 and 0 are read as "not set", a poll would download every row: observed once, avoided from then on.
#[tokio::test]
async fn zero_offsets_that_return_all_rows_are_sent_only_once() {
    let jobs = ["one", "two"].map(|id| {
        let mut job = SupermetricsJob::new(id, &[(0, "SUCCESS")]);
        job.rows.count = 30_000;
        job
    });
    let mut setup = Setup::with(vec![], jobs.into());
    setup.scenario.supermetrics.zero_offsets_mean_all = true;
    let rig = setup.start().await;
    assert_eq!(rig.lookup("metrics", "one").await, "SUCCEEDED");
    assert_eq!(rig.lookup("metrics", "two").await, "SUCCEEDED");
    let ends: Vec<_> = rig.upstreams.record().iter().map(|request| request.offsets.1).collect();
    assert_eq!(ends, [Some(0), Some(1), Some(1)]);
}

#[tokio::test]
async fn a_thousand_concurrent_queries_share_one_upstream_request() {
    room_for(3_000);
    // no call times out on a slow machine
    let rest = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, header_timeout: 5m, request_timeout: 10m }\n\
                cache: { fresh_for: 1h }";
    let source = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 9m";
    let rig = Setup { source, rest: rest.to_owned(), ..two() }.start().await;
    for upstream in [MIND, METRICS] {
        rig.upstreams.push_fault(SimFault::next(upstream, 1, FaultKind::Hold));
    }
    let refs = json!([external("mind", "ended"), external("metrics", "growing")]);
    let query = "query($refs: [JobRef!]!) { jobs(refs: $refs) { ... on Job { state } } }";
    let asking = join_all((0..1_000).map(|_| rig.execute(query, json!({ "refs": refs }))));
    let release = async {
        rig.upstreams.wait_for_requests(2).await;
        rig.upstreams.release();
    };
    let (answers, ()) = tokio::join!(asking, release);
    let expected = json!({ "jobs": [{ "state": "SUCCEEDED" }, { "state": "RUNNING" }] });
    assert!(answers.iter().all(|answer| answer.data() == expected));
    assert_eq!((rig.calls(MIND), rig.calls(METRICS)), (1, 1));
}

#[tokio::test]
async fn max_staleness_refetches_only_unfinished_jobs() {
    let rig = Setup { rest: "cache: { fresh_for: 1h }".to_owned(), ..two() }.start().await;
    for (max, calls) in [(None, 1), (Some("1h"), 1), (Some("0ms"), 2), (None, 2)] {
        assert_eq!(rig.lookup_within("metrics", "growing", max).await, "RUNNING");
        assert_eq!(rig.calls(METRICS), calls, "{max:?}");
    }
    rig.upstreams.set_state("growing", SupermetricsStep::new("SUCCESS")).unwrap();
    assert_eq!(rig.lookup("metrics", "growing").await, "RUNNING", "as old as allowed");
    for _ in 0..3 {
        assert_eq!(rig.lookup_within("metrics", "growing", Some("0ms")).await, "SUCCEEDED");
    }
    assert_eq!(rig.calls(METRICS), 3, "a terminal job is never fetched again");
}

#[tokio::test]
async fn external_ids_are_case_sensitive() {
    let jobs =
        [("AbC", "IN_PROGRESS"), ("abc", "COMPLETE")].map(|(id, word)| MindBridgeJob::new(id, &[(0, word)]));
    let queries =
        [("AbC", "RUNNING"), ("abc", "FAILURE")].map(|(id, word)| SupermetricsJob::new(id, &[(0, word)]));
    let rig = Setup::with(jobs.into(), queries.into()).start().await;
    let refs = [("mind", "AbC"), ("mind", "abc"), ("mind", "ABC"), ("metrics", "AbC"), ("metrics", "abc")];
    let refs = refs.map(|(source, id)| external(source, id));
    assert_eq!(
        rig.lookup_all(&refs).await,
        ["RUNNING", "SUCCEEDED", "NOT_FOUND after 5s", "RUNNING", "FAILED ()"]
    );
}
