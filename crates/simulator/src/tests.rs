//! The simulator's own tests: scripts on a paused clock without a socket, and what needs a socket.

mod anomalies;
mod faults;
mod lists;
mod progress;
mod sockets;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    Auth, Endpoint, FaultKind, Handle, MindBridgeJob, RecordedRequest, Scenario, SimFault, SimList,
    SimUpstream, SupermetricsJob,
};

use super::listener::respond;

use super::request::Incoming;

use super::world::SimWorld;

const TOKEN: &str = "planted-mindbridge-token";
const KEY: &str = "planted-supermetrics-key";

/// A scenario with known credentials and these jobs.
fn scenario(mindbridge: Vec<MindBridgeJob>, supermetrics: Vec<SupermetricsJob>) -> Scenario {
    let mut scenario =
        Scenario { seed: 1, start: "2026-01-01T00:00:00Z".parse().ok(), ..Scenario::default() };
    scenario.mindbridge.token = TOKEN.into();
    scenario.mindbridge.jobs = mindbridge;
    scenario.supermetrics.api_key = KEY.into();
    scenario.supermetrics.jobs = supermetrics;
    scenario
}

/// A simulator without sockets, so that a paused clock advances only where a test advances it.
struct SimulatorFixture {
    world: Arc<SimWorld>,
    handle: Handle,
}

/// An answer as a client receives it.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: http::HeaderMap,
    text: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl SimulatorFixture {
    fn new(scenario: Scenario) -> Self {
        scenario.check().unwrap();
        let world = Arc::new(SimWorld::new(scenario));
        Self { handle: Handle::new(Arc::clone(&world)), world }
    }

    async fn send(
        &self,
        upstream: SimUpstream,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Seen {
        let local = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, body) = request.body(body.to_owned()).unwrap().into_parts();
        let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
        let incoming = Incoming { method, uri, headers, body: body.into(), peer: local, local };
        let response = respond(Arc::clone(&self.world), upstream, incoming).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Seen { status: parts.status.as_u16(), headers: parts.headers, text }
    }

    /// `GET` of one async result, as a correct client sends it.
    async fn one(&self, id: &str) -> Seen {
        let bearer = format!("Bearer {TOKEN}");
        let uri = format!("/api/v1/async-results/{id}");
        self.send(SimUpstream::MindBridge, "GET", &uri, &[("authorization", &bearer)], "").await
    }

    /// The collection query, as a correct client sends it.
    async fn query(&self, page_and_size: &str, filter: &Value) -> Seen {
        let bearer = format!("Bearer {TOKEN}");
        let uri = format!("/api/v1/async-results/query{page_and_size}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(SimUpstream::MindBridge, "POST", &uri, &headers, &filter.to_string()).await
    }

    /// The status call, as a correct client sends it.
    async fn status(&self, id: &str, start: u64, end: u64) -> Seen {
        let bearer = format!("Bearer {KEY}");
        let uri = status_uri(&json!({"schedule_id": id, "offset_start": start, "offset_end": end}));
        self.send(SimUpstream::Supermetrics, "GET", &uri, &[("authorization", &bearer)], "").await
    }

    /// The query history, as a correct client requests it.
    async fn history(&self, parameters: &Value) -> Seen {
        let bearer = format!("Bearer {KEY}");
        let uri = call_uri("history", parameters);
        self.send(SimUpstream::Supermetrics, "GET", &uri, &[("authorization", &bearer)], "").await
    }

    /// The ids and states in the list of an upstream, sorted.
    async fn list(&self, upstream: SimUpstream) -> Vec<String> {
        let (list, id, state) = match upstream {
            SimUpstream::MindBridge => (self.query("?size=1000", &json!({})).await, "id", "status"),
            SimUpstream::Supermetrics => {
                let seen = self.history(&json!({"ds_ids": "GAWA", "limit": 1000})).await;
                (seen, "schedule_id", "status_code")
            }
        };
        assert_eq!(list.status, 200, "{list:?}");
        let items =
            [list.at("/content"), list.at("/data")].into_iter().filter_map(|it| it.as_array().cloned());
        let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
        let mut found: Vec<String> =
            items.flatten().map(|it| format!("{} {}", text(&it, id), text(&it, state))).collect();
        found.sort();
        found
    }

    /// The ids on each page of the list of an upstream, until one that is not full.
    async fn pages(&self, upstream: SimUpstream, size: usize) -> Vec<Vec<String>> {
        let mut pages: Vec<Vec<String>> = Vec::new();
        while pages.last().is_none_or(|page| page.len() == size) {
            let page = pages.len();
            let (seen, pointer, id) = match upstream {
                SimUpstream::MindBridge => {
                    let seen = self.query(&format!("?page={page}&size={size}"), &json!({})).await;
                    (seen, "/content", "id")
                }
                SimUpstream::Supermetrics => {
                    let page = json!({"ds_ids": "GAWA", "offset": page * size, "limit": size});
                    (self.history(&page).await, "/data", "schedule_id")
                }
            };
            let items = seen.at(pointer);
            let ids = items.as_array().unwrap_or_else(|| panic!("{seen:?}")).iter();
            pages.push(ids.map(|it| it[id].as_str().unwrap().to_owned()).collect());
        }
        pages
    }

    /// Reads the state of a job by its id.
    async fn state_of(&self, upstream: SimUpstream, id: &str) -> Value {
        match upstream {
            SimUpstream::MindBridge => self.one(id).await.at("/status"),
            SimUpstream::Supermetrics => self.status(id, 0, 0).await.at("/meta/status_code"),
        }
    }
}

fn status_uri(parameters: &Value) -> String {
    call_uri("status", parameters)
}

fn call_uri(call: &str, parameters: &Value) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("/enterprise/v2/query/{call}?{}", query.append_pair("json", &parameters.to_string()).finish())
}

/// The ids on a page of the collection query.
fn ids(seen: &Seen) -> Vec<String> {
    let content = seen.at("/content");
    let ids = content.as_array().into_iter().flatten().filter_map(|job| job.get("id")?.as_str());
    ids.map(str::to_owned).collect()
}

#[test]
fn example_scenario_loads() {
    let example = Scenario::from_yaml(include_str!("../../../config/scenario.example.yaml")).unwrap();
    assert_eq!(
        (example.mindbridge.jobs.len(), example.supermetrics.jobs.len(), example.faults.len()),
        (3, 2, 2)
    );
}

#[test]
fn demo_scenario_has_the_documented_jobs() {
    let demo = Scenario::demo();
    assert!(demo.mindbridge.jobs.iter().any(|job| job.id == "65f0c0ffee00000000000001"));
    assert!(demo.supermetrics.jobs.iter().any(|job| job.id == "demo_sales_2026"));
}

#[test]
fn invalid_scenario_error_names_the_field() {
    let steps = "steps: [{status: RUNNING}]";
    // (document, path, part of the problem)
    let table = [
        ("speed: 1".to_owned(), "speed", "unknown field"),
        ("mindbridge: {jobs: [{id: a, stats: 1}]}".to_owned(), "mindbridge.jobs[0].stats", "unknown field"),
        ("mindbridge: {latency: soon}".to_owned(), "mindbridge.latency", "duration"),
        ("mindbridge: {token: ''}".to_owned(), "mindbridge.token", "empty"),
        ("mindbridge: {max_page_size: 0}".to_owned(), "mindbridge.max_page_size", "1 or more"),
        (format!("supermetrics: {{jobs: [{{{steps}}}]}}"), "supermetrics.jobs[0].id", "missing"),
        (
            format!("supermetrics: {{jobs: [{{id: a, {steps}}}, {{id: a, {steps}}}]}}"),
            "supermetrics.jobs[1].id",
            "twice",
        ),
        (format!("supermetrics: {{jobs: [{{id: a, every: 5s, {steps}}}]}}"), "supermetrics.jobs[0].id", "#"),
        (format!("supermetrics: {{jobs: [{{id: a#, {steps}}}]}}"), "supermetrics.jobs[0].every", "missing"),
        ("mindbridge: {jobs: [{id: a}]}".to_owned(), "mindbridge.jobs[0].steps", "0s"),
        (
            "mindbridge: {jobs: [{id: a, steps: [{status: A}, {at: 5s, status: B}, {at: 5s, status: C}]}]}"
                .to_owned(),
            "mindbridge.jobs[0].steps",
            "order",
        ),
        (
            "supermetrics: {jobs: [{id: a, rerun_every: 5s, steps: [{status: A}, {at: 5s, status: B}]}]}"
                .to_owned(),
            "supermetrics.jobs[0].rerun_every",
            "later",
        ),
        (
            "supermetrics: {jobs: [{id: a, rows: {count: 1000001}, steps: [{status: A}]}]}".to_owned(),
            "supermetrics.jobs[0].rows.count",
            "1000000",
        ),
        ("mindbridge: {list: {refuse: 200}}".to_owned(), "mindbridge.list.refuse", "403"),
        ("supermetrics: {list: {late: 5s}}".to_owned(), "supermetrics.list.late", "unknown field"),
        ("mindbridge: {clock_skew: much}".to_owned(), "mindbridge.clock_skew", "duration"),
        ("faults: [{upstream: mindbridge, kind: explode}]".to_owned(), "faults[0].kind", "explode"),
    ];
    for (document, path, problem) in table {
        let error = Scenario::from_yaml(&document).expect_err(&document);
        let found = error.faults.iter().any(|fault| fault.path == path && fault.problem.contains(problem));
        assert!(found, "{document}\n{error}");
    }
}

#[test]
fn clock_skew_and_anomalies_of_the_list_are_read() {
    let document =
        "mindbridge: {clock_skew: -90s, list: {refuse: 403, delay: 5s, shift: 2, omit: [a], freeze: [b]}}
supermetrics: {clock_skew: 2m}";
    let read = Scenario::from_yaml(document).unwrap();
    let skews = [read.mindbridge.clock_skew, read.supermetrics.clock_skew];
    assert_eq!(skews.map(|skew| skew.as_secs()), [-90, 120]);
    let expected = SimList {
        refuse: Some(403),
        delay: Duration::from_secs(5),
        shift: 2,
        omit: vec!["a".to_owned()],
        freeze: vec!["b".to_owned()],
    };
    assert_eq!((read.mindbridge.list, read.supermetrics.list), (expected, SimList::default()));
}

#[test]
fn scenario_error_does_not_print_the_token() {
    let error = Scenario::from_yaml(&format!("mindbridge:\n  token: {TOKEN}\n  tokn: x\n")).unwrap_err();
    assert!(!error.to_string().contains(TOKEN) && !format!("{error:?}").contains(TOKEN), "{error}");
    let scenario = scenario(vec![], vec![]);
    assert!(!format!("{scenario:?}").contains("planted"));
}

#[test]
fn the_recipes_in_the_manual_load() {
    let manual = include_str!("../../../docs/simulator.md");
    let (_, recipes) = manual.split_once("Some recipes").unwrap();
    let (recipes, _) = recipes.split_once("## Control").unwrap();
    let kinds = recipes.split('`').filter(|text| text.starts_with("answer:") || text.starts_with("edit:"));
    let kinds: Vec<&str> = kinds.collect();
    assert!(kinds.len() >= 6, "{kinds:?}");
    for kind in kinds {
        let document = format!("faults: [{{upstream: mindbridge, kind: {{{kind}}}}}]");
        Scenario::from_yaml(&document).expect(&document);
    }
}
