//! The endpoint with a schema of its own: requests, and the status, the media type and the code of the responses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_graphql::{Context, EmptySubscription, InputObject, Object, OneofObject, Schema};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::domain::principal::Principal;
use crate::inbound::graphql::document::admission::Admission;
use crate::inbound::graphql::document::coercion::InputTypes;
use crate::inbound::graphql::document::limits::DocumentLimits;
use crate::inbound::graphql::document::operation::OperationInfo;
use crate::inbound::graphql::schema::costs;
use crate::inbound::graphql::testing;
use crate::inbound::streams::StreamRegistry;

mod any_input;
mod limits;
mod requests;
mod revalidation;

const GRAPHQL: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const SECRET: &str = "canary-7f3a";

struct EndpointQuery;

#[Object(name = "Query")]
impl EndpointQuery {
    async fn hello(&self, ctx: &Context<'_>) -> String {
        ctx.data_unchecked::<Arc<AtomicUsize>>().fetch_add(1, Ordering::SeqCst);
        format!("hello {}", ctx.data_unchecked::<Principal>().name())
    }
    async fn kind(&self, ctx: &Context<'_>) -> String {
        format!("{:?}", ctx.data_unchecked::<OperationInfo>())
    }
    async fn refused(&self) -> Option<async_graphql::Result<String>> {
        Some(Err(HttpRefusal::new(RefusalKind::BadInput, "n is odd").with("field", "n").into()))
    }
    async fn bug(&self) -> Option<async_graphql::Result<String>> {
        Some(Err(std::io::Error::other(SECRET).into()))
    }
    async fn must(&self) -> async_graphql::Result<String> {
        std::future::ready(Err(async_graphql::Error::new("no"))).await
    }
    async fn nested(&self) -> Self {
        Self
    }
    /// A list that is counted as 200 items.
    async fn list(&self) -> Vec<Self> {
        Vec::new()
    }
    async fn jobs(&self, refs: Vec<i32>, #[graphql(validator(maximum = 9))] n: Option<i32>) -> i32 {
        i32::try_from(refs.len()).unwrap() + n.unwrap_or(0)
    }
}

struct EndpointMutation;

#[Object(name = "Mutation")]
impl EndpointMutation {
    async fn touch(&self, ctx: &Context<'_>, n: Option<i32>) -> bool {
        ctx.data_unchecked::<Arc<AtomicUsize>>().fetch_add(1, Ordering::SeqCst);
        n.is_none()
    }

    async fn add(&self, ctx: &Context<'_>, input: Batch) -> bool {
        ctx.data_unchecked::<Arc<AtomicUsize>>().fetch_add(1, Ordering::SeqCst);
        input.refs.iter().all(|EndpointRef::Id(id)| *id == 0)
    }
}

#[derive(InputObject)]
struct Batch {
    refs: Vec<EndpointRef>,
}

#[derive(OneofObject)]
enum EndpointRef {
    Id(i32),
}

struct EndpointFixture {
    app: Router,
    endpoint: GraphqlEndpoint,
    calls: Arc<AtomicUsize>,
}

fn fixture() -> EndpointFixture {
    fixture_with(Admission::default())
}

fn fixture_with(admission: Admission) -> EndpointFixture {
    let calls = Arc::new(AtomicUsize::new(0));
    let schema =
        Schema::build(EndpointQuery, EndpointMutation, EmptySubscription).data(Arc::clone(&calls)).finish();
    let authenticate = |token: Option<&SecretString>| match token.map(ExposeSecret::expose_secret) {
        None | Some("key") => Ok(Principal::local()),
        Some("busy") => Ok(Principal::new("busy", [])),
        Some(_) => Err(HttpRefusal::unauthenticated("the presented client key is not known here")),
    };
    let streams = StreamRegistry::new(crate::inbound::streams::StreamSettings::default(), drop);
    let types = InputTypes::from_sdl(&schema.sdl(), &[]).unwrap().with_costs(costs::all());
    let endpoint = GraphqlEndpoint::new(
        schema,
        types,
        authenticate,
        DocumentLimits::default(),
        admission,
        Duration::from_secs(10),
        streams,
    );
    EndpointFixture { app: testing::router(endpoint.clone()), endpoint, calls }
}

struct EndpointAnswer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl EndpointAnswer {
    fn content_type(&self) -> &str {
        self.headers[header::CONTENT_TYPE].to_str().unwrap()
    }
    fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or("-")
    }
}

impl EndpointFixture {
    async fn send(&self, request: Request) -> EndpointAnswer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        EndpointAnswer { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    async fn post(&self, body: impl Into<Body>) -> EndpointAnswer {
        self.send(post("application/graphql-response+json", body)).await
    }

    async fn post_as(&self, token: &str, body: impl Into<Body>) -> EndpointAnswer {
        let mut request = post("application/json", body);
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.send(request).await
    }

    async fn get(&self, query: &str) -> EndpointAnswer {
        let request = Request::get(format!("/graphql?{query}"));
        self.send(request.header("accept", "application/graphql-response+json").body(Body::empty()).unwrap())
            .await
    }
}

fn post(accept: &str, body: impl Into<Body>) -> Request {
    let request =
        Request::post("/graphql").header("content-type", "application/json").header("accept", accept);
    request.body(body.into()).unwrap()
}

fn query(text: &str) -> String {
    json!({ "query": text }).to_string()
}

#[tokio::test]
async fn response_status_follows_from_data_and_errors() {
    let fixture = fixture();
    for (body, status, code, data) in [
        (query("{hello}"), 200, "-", Some(json!({ "hello": "hello local" }))),
        (query("mutation{touch}"), 200, "-", Some(json!({ "touch": true }))),
        (query("{__type(name:\"Run🏃\"){name}}"), 200, "-", Some(json!({ "__type": null }))),
        (
            query("{hello refused}"),
            294,
            "BAD_USER_INPUT",
            Some(json!({ "hello": "hello local", "refused": null })),
        ),
        (query("{must}"), 294, "BAD_USER_INPUT", Some(Value::Null)),
        (query("{bug}"), 294, "INTERNAL_SERVER_ERROR", Some(json!({ "bug": null }))),
        (query("{jobs(refs:[],n:10)}"), 294, "BAD_USER_INPUT", Some(Value::Null)),
        (query("{"), 400, "GRAPHQL_PARSE_FAILED", None),
        (query(""), 400, "GRAPHQL_PARSE_FAILED", None),
        (query("{unknown}"), 422, "GRAPHQL_VALIDATION_FAILED", None),
        (query("{hello} {hello}"), 422, "GRAPHQL_VALIDATION_FAILED", None),
        (query("query A{hello} query A{hello}"), 422, "GRAPHQL_VALIDATION_FAILED", None),
        (query("fragment F on Query{hello}"), 422, "GRAPHQL_VALIDATION_FAILED", None),
        (query("{...F} fragment F on Query{...F}"), 422, "GRAPHQL_VALIDATION_FAILED", None),
        (query("query A{hello} query B{hello}"), 422, "OPERATION_RESOLUTION_FAILURE", None),
        (
            json!({ "query": "query A{hello}", "operationName": "B" }).to_string(),
            422,
            "OPERATION_RESOLUTION_FAILURE",
            None,
        ),
        (
            json!({ "query": "{hello}", "operationName": "B" }).to_string(),
            422,
            "OPERATION_RESOLUTION_FAILURE",
            None,
        ),
        (query("query($r:[Int!]!){jobs(refs:$r)}"), 422, "BAD_USER_INPUT", None),
        (
            json!({ "query": "query($r:[Int!]!){jobs(refs:$r)}", "variables": { "r": null } }).to_string(),
            422,
            "BAD_USER_INPUT",
            None,
        ),
        (
            json!({ "query": "query($r:[Int!]!){jobs(refs:$r)}", "variables": { "r": ["x"] } }).to_string(),
            422,
            "BAD_USER_INPUT",
            None,
        ),
        (query("subscription{x}"), 422, "SUBSCRIPTION_NEEDS_STREAM", None),
    ] {
        for (accept, media) in [("application/graphql-response+json", GRAPHQL), ("application/json", JSON)] {
            let answer = fixture.send(post(accept, body.clone())).await;
            let (status, media) = match status {
                294 if media == JSON => (200, JSON),
                400.. => (status, GRAPHQL),
                _ => (status, media),
            };
            assert_eq!((answer.status, answer.code()), (status, code), "{body} {}", answer.text);
            assert_eq!(answer.content_type(), media, "{body}");
            assert_eq!(answer.body.get("data"), data.as_ref(), "{body}");
            assert!(!answer.text.contains(SECRET), "{body}");
        }
    }
}

#[tokio::test]
async fn resolver_error_code_and_extensions_reach_the_client() {
    let answer = fixture().post(query("{refused}")).await;
    let error = &answer.body["errors"][0];
    assert_eq!(error["message"], "n is odd");
    assert_eq!(error["extensions"], json!({ "code": "BAD_USER_INPUT", "field": "n" }));
    assert_eq!(error["path"], json!(["refused"]));
}

#[tokio::test]
async fn parse_error_gives_the_location_without_the_source_text() {
    let answer = fixture().post(query(&format!("{{ {SECRET}\n"))).await;
    assert_eq!(answer.body["errors"][0]["locations"][0]["line"], 1);
    assert!(!answer.text.contains(SECRET) && !answer.text.contains("\\n"), "{}", answer.text);
}

#[tokio::test]
async fn cached_document_is_checked_with_each_requests_variables() {
    let fixture = fixture();
    let text = "query Q($r:[Int!]!){jobs(refs:$r)}";
    let send = |refs: usize| json!({ "query": text, "variables": { "r": vec![1; refs] } }).to_string();
    for (refs, status) in [(2, 200), (3, 200), (1001, 422), (1, 200)] {
        assert_eq!(fixture.post(send(refs)).await.status, status, "{refs}");
    }
    assert!(fixture.endpoint.has_cached(text));
}

#[tokio::test]
async fn invalid_document_is_not_cached() {
    let fixture = fixture();
    assert_eq!(fixture.post(query("{unknown}")).await.status, 422);
    assert!(!fixture.endpoint.has_cached("{unknown}"));
}

/// The engine accepts any whole number for an `Int`, and fails when it calls the resolver.
#[tokio::test]
async fn operation_with_an_invalid_value_is_never_run_in_part() {
    let bad = "mutation B{a:touch b:touch(n:99999999999)}";
    let with_fragment = "mutation B{...F} fragment F on Mutation{a:touch b:touch(n:99999999999)}";
    for bad in [bad, with_fragment] {
        let fixture = fixture();
        let text = format!("query A{{kind}} {bad} mutation C($n:Int){{a:touch b:touch(n:$n)}}");
        let send = |name: &str, n: Value| {
            json!({ "query": text, "operationName": name, "variables": { "n": n } }).to_string()
        };
        for name in ["A", "B", "A", "B", "C"] {
            let answer = fixture.post(send(name, json!(1))).await;
            let is = (answer.status, answer.code());
            assert_eq!(is, (422, "GRAPHQL_VALIDATION_FAILED"), "{name} {}", answer.text);
            let stream =
                fixture.app.clone().oneshot(post("text/event-stream", send(name, json!(1)))).await.unwrap();
            let events = stream.into_body().collect().await.unwrap().to_bytes();
            let events = String::from_utf8(events.to_vec()).unwrap();
            assert!(events.contains("GRAPHQL_VALIDATION_FAILED"), "{name} {events}");
        }
        assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test]
async fn mutation_with_an_invalid_variable_is_never_run_in_part() {
    let fixture = fixture();
    let text = "query A{kind} mutation C($n:Int!){a:touch b:touch(n:$n)}";
    for (name, n, status) in
        [("A", json!(1), 200), ("C", json!(99_999_999_999_u64), 422), ("C", json!(null), 422)]
    {
        let body = json!({ "query": text, "operationName": name, "variables": { "n": n } });
        assert_eq!(fixture.post(body.to_string()).await.status, status, "{name}");
    }
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

/// The engine compares the types of variables and of their positions loosely, and runs the first field of such a
/// mutation.
#[tokio::test]
async fn variable_of_a_wrong_type_prevents_the_whole_mutation() {
    let fixture = fixture();
    let text = "mutation($r:[Ref!]!){a:add(input:{refs:$r}) b:add(input:{refs:[$r]})}";
    for round in ["new", "cached"] {
        let body = json!({ "query": text, "variables": { "r": [{ "id": 1 }] } });
        let answer = fixture.post(body.to_string()).await;
        let is = (answer.status, answer.code());
        assert_eq!(is, (422, "GRAPHQL_VALIDATION_FAILED"), "{round} {}", answer.text);
    }
    assert_eq!(fixture.calls.load(Ordering::SeqCst), 0);
}

/// A request for the operation `A` of a document with two, and what is known of that operation.
fn named_operation() -> (String, OperationInfo) {
    let body = json!({ "query": "query A{kind} query B{hello}", "operationName": "A" });
    (body.to_string(), OperationInfo { kind: OperationType::Query, name: Some("A".into()) })
}

#[tokio::test]
async fn resolvers_read_the_operation_type_and_name() {
    let (body, expected) = named_operation();
    let answer = fixture().send(post("*/*", body)).await;
    assert_eq!(answer.body["data"]["kind"], format!("{expected:?}"));
}
