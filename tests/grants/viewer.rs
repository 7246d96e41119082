//! What a client reads of itself: its own grants, and which of them shows a job; nothing of another client.

use axum::body::Body;
use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt as _;
use jobgate::config::ClientConfig;
use jobgate::domain::principal::{Principal, Scope};
use jobgate::inbound::graphql::schema;
use jobgate::inbound::router::PublicRoutes;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::fixture::{World, key, labels};
use super::tokens::{MAKE, SOURCES, client, execute, external};
use super::*;
use crate::support::public_listener::public;

const VIEWER: &str =
    "{ viewer { name authenticatedBy expiresAt grants { source kinds labels { name value } jobIds } } }";

/// `tax` reads blue exports of `mind` and all of `metrics`; `audit` all of `mind`.
fn two_clients() -> [ClientConfig; 2] {
    let blue = Scope { labels: labels(&[("team", "blue")]), ..of_kinds(&["EXPORT", "ANALYSIS"]) };
    [
        client("tax", &[("mind", blue), ("metrics", Scope::default())]),
        client("audit", &[("mind", Scope::default())]),
    ]
}

/// The use cases with both clients and a blue export of `mind`.
async fn world() -> World {
    let world = World::with_clients(&SOURCES, &two_clients());
    world.put("mind", "export1", Some("EXPORT"));
    let blue = labels(&[("team", "blue")]);
    world.jobs.track(&Principal::local(), &[reference("mind", "export1")], &blue).await.unwrap();
    world
}

fn with_key(world: &World, name: &str) -> Principal {
    world.jobs.authenticate(Some(&format!("jg_{name}").as_str().into())).unwrap()
}

async fn viewer(world: &World, principal: &Principal) -> Value {
    let answer = execute(&schema::build(world.jobs.clone(), true), principal, VIEWER, json!({})).await;
    assert!(answer.get("errors").is_none(), "{answer}");
    answer["data"]["viewer"].clone()
}

/// A grant of all jobs of a source.
fn all_of(source: Option<&str>) -> Value {
    json!({ "source": source, "kinds": null, "labels": null, "jobIds": null })
}

/// The grant of `tax` for `mind`.
fn blue_exports() -> Value {
    let labels = json!([{ "name": "team", "value": "blue" }]);
    json!({ "source": "mind", "kinds": ["ANALYSIS", "EXPORT"], "labels": labels, "jobIds": null })
}

#[tokio::test(start_paused = true)]
async fn a_viewer_is_the_client_of_the_key_and_no_other() {
    let world = world().await;
    for (name, grants) in
        [("tax", json!([all_of(Some("metrics")), blue_exports()])), ("audit", json!([all_of(Some("mind"))]))]
    {
        let expected =
            json!({ "name": name, "authenticatedBy": "CLIENT_KEY", "expiresAt": null, "grants": grants });
        assert_eq!(viewer(&world, &with_key(&world, name)).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn without_clients_the_viewer_may_read_every_source() {
    let world = World::new(&SOURCES);
    let anonymous = world.jobs.authenticate(None).unwrap();
    let expected = json!({
        "name": "local", "authenticatedBy": "NONE", "expiresAt": null, "grants": [all_of(None)]
    });
    assert_eq!(viewer(&world, &anonymous).await, expected);
}

#[tokio::test(start_paused = true)]
async fn the_viewer_of_a_watch_token_has_its_jobs_only() {
    let world = world().await;
    let schema = schema::build(world.jobs.clone(), true);
    let refs = json!([external("mind", "export1"), external("metrics", "query1")]);
    let made = execute(&schema, &with_key(&world, "tax"), MAKE, json!({ "refs": refs, "ttl": "15m" })).await;
    let token = made["data"]["createWatchToken"]["token"].as_str().unwrap();
    let holder = world.jobs.authenticate(Some(&token.into())).unwrap();
    let job_of = |source: &str, id: &str| json!({ "source": source, "kinds": null, "labels": null, "jobIds": [key(source, id).node_id()] });
    let expected = json!({
        "name": "tax", "authenticatedBy": "WATCH_TOKEN", "expiresAt": "1970-01-01T00:15:00Z",
        "grants": [job_of("metrics", "query1"), job_of("mind", "export1")],
    });
    assert_eq!(viewer(&world, &holder).await, expected);
    let query = "query($ref: JobRef!) { job(ref: $ref) { ... on Job { viewerGrant { source kinds labels { name value } jobIds } } } }";
    let job = execute(&schema, &holder, query, json!({ "ref": external("mind", "export1") })).await;
    assert_eq!(job["data"]["job"]["viewerGrant"], job_of("mind", "export1"));
}

#[tokio::test(start_paused = true)]
async fn no_grant_shows_a_job_whose_access_was_lost() {
    let world = world().await;
    let client = with_key(&world, "tax");
    let seen = world.jobs.lookup_one(&client, reference("mind", "export1"), None).await.unwrap();
    let shown = world.jobs.viewer_grant(&client, &seen).unwrap();
    assert_eq!(shown.source, Some(name("mind")));
    assert_eq!(world.jobs.untrack(&Principal::local(), &[reference("mind", "export1")]).await, 1);
    assert_eq!(world.jobs.viewer_grant(&client, &seen), None);
    assert!(world.jobs.viewer_grant(&with_key(&world, "audit"), &seen).is_some());
}

/// The grants in what a subscriber of the job receives until it is terminal.
async fn watched_grants(routes: PublicRoutes, client: &str) -> Vec<Value> {
    let query = "subscription($ref: JobRef!) { jobUpdates(refs: [$ref]) { result { ... on Job {
        state viewerGrant { source kinds labels { name value } jobIds } } } } }";
    let body = json!({ "query": query, "variables": { "ref": external("mind", "export1") } });
    let request = Request::post("/graphql")
        .header("authorization", format!("Bearer jg_{client}"))
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = routes.oneshot(request).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let updates = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let grant = |update: &str| {
        let mut update: Value = serde_json::from_str(update).unwrap();
        update["data"]["jobUpdates"]["result"]["viewerGrant"].take()
    };
    updates.map(grant).collect()
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_one_job_receive_their_own_grants() {
    let world = world().await;
    world.follow();
    let (routes, _) = public(&world.jobs);
    let clients = ["tax", "audit", "tax", "audit"];
    let receiving = join_all(clients.map(|client| watched_grants(routes.clone(), client)));
    let completing = async {
        tokio::time::sleep(SECOND * 10).await;
        world.end("mind", "export1");
    };
    let (received, ()) = tokio::join!(receiving, completing);
    for (client, grants) in clients.into_iter().zip(received) {
        let own = if client == "tax" { blue_exports() } else { all_of(Some("mind")) };
        assert!(grants.len() >= 2, "a snapshot and the terminal update: {grants:?}");
        assert!(grants.iter().all(|grant| *grant == own), "{client}: {grants:?}");
    }
}
