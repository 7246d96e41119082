//! Rows of a query through GraphQL: none is lost, none is repeated, and missing rows are a problem and not the last
//! page.

use jobgate_simulator::{Endpoint, FaultKind, SimFault, SimUpstream, SupermetricsJob};
use serde_json::{Value, json};

use crate::support::server::{Rig, Setup, external};

const QUERY: &str = "query($ref: JobRef!, $after: String) { job(ref: $ref) { ... on SupermetricsJob {
    rows(first: 100, after: $after) { header nodes { cells } pageInfo { hasNextPage endCursor }
        problem { code message retryable retryAfterMs } } } } }";

/// A succeeded query with `count` rows; `change` modifies the upstream.
async fn rig(count: u64, change: impl FnOnce(&mut Setup)) -> Rig {
    let mut job = SupermetricsJob::new("q", &[(0, "SUCCESS")]);
    job.rows.count = count;
    let mut setup = Setup::with(vec![], vec![job]);
    change(&mut setup);
    setup.start().await
}

async fn page(rig: &Rig, after: Option<&str>) -> Value {
    let variables = json!({ "ref": external("metrics", "q"), "after": after });
    rig.execute(QUERY, variables).await.data()["job"]["rows"].take()
}

/// Reads pages up to the last or to the first problem: all first cells, the last page, and the number of pages.
async fn read(rig: &Rig) -> (Vec<Value>, Value, usize) {
    let (mut cells, mut after, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = page(rig, after.as_deref()).await;
        pages += 1;
        cells.extend(page["nodes"].as_array().unwrap().iter().map(|node| node["cells"][0].clone()));
        if page["problem"].is_object() || page["pageInfo"]["hasNextPage"] == false {
            return (cells, page, pages);
        }
        after = page["pageInfo"]["endCursor"].as_str().map(str::to_owned);
    }
}

#[tokio::test]
async fn a_query_without_a_header_row_returns_all_its_rows() {
    let plain = rig(2_500, |_| {}).await;
    let (expected, ..) = read(&plain).await;
    let rig = rig(2_500, |setup| setup.scenario.supermetrics.jobs[0].query.no_headers = true).await;
    let (cells, last, pages) = read(&rig).await;
    assert_eq!((cells.len(), pages), (2_500, 25));
    assert!(cells == expected, "the same rows as with a header row");
    assert_eq!(last["header"], json!(["Date", "Campaign", "Clicks", "Cost"]));
    assert_eq!(last["problem"], Value::Null);
}

/// A query of two rows whose first three answers contain none: the first is to the status call.
async fn incomplete() -> Rig {
    let rig = rig(2, |_| {}).await;
    let empty = FaultKind::set("/data", json!([]));
    rig.upstreams.push_fault(SimFault::next(SimUpstream::Supermetrics, 3, empty).on(Endpoint::Status));
    rig
}

#[tokio::test]
async fn incomplete_rows_are_a_retryable_problem() {
    let rig = incomplete().await;
    for _ in 0..2 {
        let page = page(&rig, None).await;
        assert_eq!((&page["nodes"], &page["pageInfo"]["hasNextPage"]), (&json!([]), &json!(true)));
        assert_eq!(page["problem"]["code"], "BAD_ANSWER");
        assert_eq!(
            (&page["problem"]["retryable"], &page["problem"]["retryAfterMs"]),
            (&json!(true), &json!(5_000))
        );
        let message = page["problem"]["message"].as_str().unwrap();
        assert!(message.contains("reports 2 rows but returned only 0"), "{message}");
    }
}

#[tokio::test]
async fn incomplete_rows_are_not_cached() {
    let rig = incomplete().await;
    for _ in 0..2 {
        page(&rig, None).await;
    }
    let (cells, last, _) = read(&rig).await;
    assert_eq!((cells.len(), &last["problem"]), (2, &Value::Null));
}

#[tokio::test]
async fn complete_rows_are_cached() {
    let rig = rig(2, |_| {}).await;
    read(&rig).await;
    let count = rig.requests_to(Endpoint::Status).len();
    page(&rig, None).await;
    assert_eq!(rig.requests_to(Endpoint::Status).len(), count);
}

#[tokio::test]
async fn fewer_rows_than_reported_are_a_problem_and_not_the_end() {
    let rig = rig(150, |setup| setup.scenario.supermetrics.jobs[0].rows.readable = Some(120)).await;
    let (cells, last, pages) = read(&rig).await;
    assert_eq!((cells.len(), pages), (120, 2), "the available rows are returned");
    assert_eq!(
        (&last["problem"]["code"], &last["pageInfo"]["hasNextPage"]),
        (&json!("BAD_ANSWER"), &json!(true))
    );
    let again = page(&rig, last["pageInfo"]["endCursor"].as_str()).await;
    assert_eq!((&again["nodes"], &again["problem"]["code"]), (&json!([]), &json!("BAD_ANSWER")));
}

#[tokio::test]
async fn an_upstream_that_ignores_offsets_yields_no_repeated_row() {
    let plain = rig(2_500, |_| {}).await;
    let (expected, ..) = read(&plain).await;
    let all = rig(2_500, |setup| setup.scenario.supermetrics.ignores_offsets = true).await;
    let (cells, last, _) = read(&all).await;
    assert!(cells == expected, "the requested rows come from complete pages each time");
    assert_eq!(last["problem"], Value::Null);

    let some = rig(2_500, |setup| {
        setup.scenario.supermetrics.ignores_offsets = true;
        setup.scenario.supermetrics.rows_per_answer = Some(1_000);
    });
    let (cells, last, _) = read(&some.await).await;
    assert!(cells == expected[..1_000], "the first rows of each page are returned once");
    assert_eq!((&last["nodes"], &last["problem"]["code"]), (&json!([]), &json!("BAD_ANSWER")));
}

#[tokio::test]
async fn rows_of_small_upstream_answers_are_concatenated() {
    let rig = rig(250, |setup| setup.scenario.supermetrics.rows_per_answer = Some(40)).await;
    let (cells, last, pages) = read(&rig).await;
    assert_eq!((cells.len(), pages, &last["problem"]), (250, 3, &Value::Null));
}
