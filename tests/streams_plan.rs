//! A subscription is answered without the engine, byte for byte as the engine would answer it.

use std::time::Duration;

use async_graphql::{Request as GraphqlRequest, Variables};
use axum::body::Body;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt as _;
use jobgate::domain::job::Life;
use jobgate::domain::principal::Principal;
use jobgate::inbound::graphql::schema;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::support::ports::{TestGateway, failed, gateway};
use crate::support::public_listener::{public, public_with};

/// A gateway with jobs that run for a while: `good`, `bad` which fails, and a completed query of `metrics`.
fn running() -> TestGateway {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    let start = Instant::now();
    gateway.mindbridge.respond_with(move |id| {
        Ok(match (id.as_str(), start.elapsed() < Duration::from_secs(20)) {
            (_, true) => Life::Running,
            ("bad", false) => failed(),
            (_, false) => Life::Succeeded,
        })
    });
    gateway.supermetrics.respond_with(|_| Ok(Life::Succeeded));
    gateway
}

async fn by_the_engine(query: &str, variables: &Value) -> Vec<Value> {
    let gateway = running();
    let schema = schema::build(gateway.jobs.clone(), true);
    let request = GraphqlRequest::new(query).variables(Variables::from_json(variables.clone()));
    let responses = schema.execute_stream(request.data(Principal::local()));
    responses.map(|response| serde_json::to_value(response).unwrap()).collect().await
}

async fn through_endpoint(query: &str, variables: &Value) -> Vec<Value> {
    let gateway = running();
    let (app, _) = public(&gateway.jobs);
    let body = json!({ "query": query, "variables": variables }).to_string();
    let request = Request::post("/graphql")
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .body(Body::from(body))
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.ends_with("event: complete\ndata:\n\n"), "{text}");
    let answers = text.lines().filter_map(|line| line.strip_prefix("data: "));
    answers.map(|answer| serde_json::from_str(answer).unwrap()).collect()
}

const MIND: &str = r#"refs: [{ external: { source: "mind", externalId: "good" } }]"#;

#[tokio::test(start_paused = true)]
async fn subscriptions_are_answered_like_the_graphql_engine() {
    let refs = |source: &str, ids: &[&str]| {
        let refs: Vec<Value> =
            ids.iter().map(|id| json!({ "external": { "source": source, "externalId": id } })).collect();
        json!(refs)
    };
    let all = "kind sequence isFinal result { __typename ...J ... on JobProblem { code message retryable ref { source id } } }";
    let job = "fragment J on Job { id state nativeState freshness { observedAt ageMs isStale nextPollAt } ...S \
               ... on MindBridgeJob { version failure { code message } entity { type } } } \
               fragment S on Job { source { name health budget { inFlight } } }";
    let rows =
        "... on SupermetricsJob { rows(first: $first) { header nodes { cells } pageInfo { endCursor } } }";
    for (query, variables, answers) in [
        (
            format!("subscription($refs: [JobRef!]!) {{ jobUpdates(refs: $refs) {{ {all} }} }} {job}"),
            json!({ "refs": refs("mind", &["good", "bad", "good"]) }),
            6,
        ),
        // aliases at every level, and omitted arguments
        (
            format!(
                "subscription A($no: Boolean!, $refs: [JobRef!]!) {{ mine: jobUpdates(refs: $refs) @include(if: true) {{ \
                  n: sequence kind @skip(if: true) r: result {{ t: __typename ...J @skip(if: $no) }} }} }} {job}"
            ),
            json!({ "refs": refs("mind", &["good"]), "no": true }),
            2,
        ),
        (format!("subscription A {{ jobUpdates({MIND}) {{ sequence }} }} "), json!({}), 2),
        // arguments below the root, valid and invalid ones
        (
            format!(
                "subscription($refs: [JobRef!]!, $first: Int! = 2) {{ jobUpdates(refs: $refs) {{ result {{ {rows} }} }} }}"
            ),
            json!({ "refs": refs("metrics", &["q"]) }),
            1,
        ),
        (
            format!(
                "subscription($refs: [JobRef!]!, $first: Int! = 2) {{ jobUpdates(refs: $refs) {{ sequence result {{ {rows} }} }} }}"
            ),
            json!({ "refs": refs("metrics", &["q", "r"]), "first": 0 }),
            2,
        ),
        // what a resolver rejects, and what cannot be watched
        (
            format!("subscription($refs: [JobRef!]!) {{ jobUpdates(refs: $refs) {{ {all} }} }} {job}"),
            json!({ "refs": [] }),
            1,
        ),
        (
            format!("subscription($refs: [JobRef!]!) {{ jobUpdates(refs: $refs) {{ {all} }} }} {job}"),
            json!({ "refs": refs("nobody", &["x"]) }),
            1,
        ),
        // what only the engine delivers in its way
        (
            format!("subscription {{ ...F }} fragment F on Subscription {{ jobUpdates({MIND}) {{ kind }} }}"),
            json!({}),
            0,
        ),
        (
            format!("subscription {{ jobUpdates({MIND}) {{ kind }} jobUpdates({MIND}) {{ isFinal }} }}"),
            json!({}),
            4,
        ),
        // several root fields
        (
            format!(
                "subscription($refs: [JobRef!]!) {{ a: jobUpdates(refs: []) {{ sequence }} b: jobUpdates({MIND}) {{ kind }} \
                  c: jobUpdates(refs: $refs) {{ isFinal result {{ __typename }} }} }}"
            ),
            json!({ "refs": refs("metrics", &["q"]) }),
            4,
        ),
    ] {
        let mut engine = by_the_engine(&query, &variables).await;
        let mut by_endpoint = through_endpoint(&query, &variables).await;
        // the order is undefined between jobs, and between root fields
        for received in [&mut engine, &mut by_endpoint] {
            received.sort_by_key(ToString::to_string);
        }
        assert_eq!(engine.len(), answers, "{query}: {engine:?}");
        assert_eq!(by_endpoint, engine, "{query}");
    }
}

/// What concurrent subscribers of one job receive: two that send the same request, those with other selections, of which one
/// depends on the present state of the source and one on its constants, and one that subscribes later.
async fn concurrently(by_plans: bool) -> Vec<String> {
    let gateway = running();
    let (app, _, _) = public_with(&gateway.jobs, by_plans.then(|| gateway.jobs.clone()));
    let all = "kind sequence isFinal result { __typename ... on Job { id state freshness { observedAt ageMs isStale } } \
               ... on MindBridgeJob { version kind } }";
    let source = "kind result { ... on Job { id source { name health budget { inFlight } } } }";
    let constant = "kind result { ... on Job { id source { __typename upstream n: name name } } }";
    let subscriptions = [
        (all, 0),
        (all, 0),
        ("number: sequence", 0),
        (source, 0),
        (source, 0),
        (constant, 0),
        (constant, 0),
        (all, 5),
    ];
    let answers = subscriptions.map(|(selection, after)| {
        let (app, query) = (app.clone(), format!("subscription {{ jobUpdates({MIND}) {{ {selection} }} }}"));
        async move {
            tokio::time::sleep(Duration::from_secs(after)).await;
            let request = Request::post("/graphql")
                .header("content-type", "application/json")
                .header("accept", "text/event-stream")
                .body(Body::from(json!({ "query": query }).to_string()))
                .unwrap();
            let response = app.oneshot(request).await.unwrap();
            let text = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(text.to_vec()).unwrap()
        }
    });
    join_all(answers).await
}

#[tokio::test(start_paused = true)]
async fn concurrent_subscribers_get_the_answers_of_the_engine() {
    let answers = concurrently(true).await;
    assert_eq!(answers, concurrently(false).await);
    let [first, second, numbers, _, _, _, _, late] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(first, second);
    assert!(first.contains("\"kind\":\"SNAPSHOT\"") && first.contains("\"kind\":\"ENDED\""), "{first}");
    assert!(numbers.contains(r#"{"data":{"jobUpdates":{"number":1}}}"#), "{numbers}");
    // its snapshot is older than that of the others, and its last update is theirs
    let last = |text: &str| text.split_once("ENDED").map(|(_, rest)| rest.to_owned());
    assert!(first != late && last(first).is_some() && last(first) == last(late), "{first}\n{late}");
}
