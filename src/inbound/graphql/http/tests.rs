//! The door over a schema of its own: what is sent, and the status, the media type and the code that come back.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql::{Context, EmptySubscription, Object, Schema};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any as anything, prop_assert, prop_oneof, proptest};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;

const GRAPHQL: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";
const SECRET: &str = "canary-7f3a";

struct Query;

#[Object]
impl Query {
    async fn hello(&self, ctx: &Context<'_>) -> String {
        ctx.data_unchecked::<Arc<AtomicUsize>>().fetch_add(1, Ordering::SeqCst);
        format!("hello {}", ctx.data_unchecked::<Principal>().name())
    }
    async fn kind(&self, ctx: &Context<'_>) -> String {
        format!("{:?}", ctx.data_unchecked::<Operation>())
    }
    async fn refused(&self) -> Option<async_graphql::Result<String>> {
        Some(Err(Refusal::new(Kind::BadInput, "n is odd").with("field", "n").into()))
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
    async fn jobs(&self, refs: Vec<i32>, #[graphql(validator(maximum = 9))] n: Option<i32>) -> i32 {
        i32::try_from(refs.len()).unwrap() + n.unwrap_or(0)
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn touch(&self) -> bool {
        true
    }
}

struct House {
    app: Router,
    door: Door,
    calls: Arc<AtomicUsize>,
}

fn house() -> House {
    let calls = Arc::new(AtomicUsize::new(0));
    let schema = Schema::build(Query, Mutation, EmptySubscription).data(Arc::clone(&calls)).finish();
    let authenticate = |token: Option<&SecretString>| match token.map(ExposeSecret::expose_secret) {
        None | Some("key") => Ok(Principal::local()),
        Some(_) => Err(Refusal::unauthenticated("the presented client key is not known here")),
    };
    let door = Door::new(schema, authenticate, Limits::default(), Duration::from_secs(10));
    House { app: Router::new().route("/graphql", door.clone().route()), door, calls }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
    text: String,
}

impl Answer {
    fn content_type(&self) -> &str {
        self.headers[header::CONTENT_TYPE].to_str().unwrap()
    }
    fn code(&self) -> &str {
        self.body["errors"][0]["extensions"]["code"].as_str().unwrap_or("-")
    }
}

impl House {
    async fn ask(&self, request: Request) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, text }
    }

    async fn post(&self, body: impl Into<Body>) -> Answer {
        self.ask(post("application/graphql-response+json", body)).await
    }

    async fn get(&self, query: &str) -> Answer {
        let request = Request::get(format!("/graphql?{query}"));
        self.ask(request.header("accept", "application/graphql-response+json").body(Body::empty()).unwrap())
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
async fn the_shape_of_the_answer_decides_the_status_and_both_media_types_agree_but_for_294() {
    let house = house();
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
            "GRAPHQL_VALIDATION_FAILED",
            None,
        ),
        (query("subscription{x}"), 422, "SUBSCRIPTION_NEEDS_STREAM", None),
    ] {
        for (accept, media) in [("application/graphql-response+json", GRAPHQL), ("application/json", JSON)] {
            let answer = house.ask(post(accept, body.clone())).await;
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
async fn a_resolvers_own_code_and_members_reach_the_client() {
    let answer = house().post(query("{refused}")).await;
    let error = &answer.body["errors"][0];
    assert_eq!(error["message"], "n is odd");
    assert_eq!(error["extensions"], json!({ "code": "BAD_USER_INPUT", "field": "n" }));
    assert_eq!(error["path"], json!(["refused"]));
}

#[tokio::test]
async fn a_parse_failure_points_and_does_not_repeat_the_source() {
    let answer = house().post(query(&format!("{{ {SECRET}\n"))).await;
    assert_eq!(answer.body["errors"][0]["locations"][0]["line"], 1);
    assert!(!answer.text.contains(SECRET) && !answer.text.contains("\\n"), "{}", answer.text);
}

#[tokio::test]
async fn a_body_that_is_no_request_is_refused_by_what_is_wrong_with_it() {
    let house = house();
    let deep =
        format!(r#"{{"query":"{{hello}}","variables":{{"x":{}{}}}}}"#, "[".repeat(500), "]".repeat(500));
    for (body, status, said) in [
        ("", 400, "not json"),
        ("NONSENSE", 400, "not json"),
        (r#"{"query":"#, 400, "line 1, column 9"),
        ("[{", 400, "not json"),
        ("[]", 422, "batches"),
        (r#"[{"query":"{hello}"}]"#, 422, "batches"),
        ("7", 422, "object"),
        ("null", 422, "object"),
        ("{}", 422, "query is missing"),
        (r#"{"qeury":"{hello}"}"#, 422, "query is missing"),
        (r#"{"query":null}"#, 422, "query is missing"),
        (r#"{"query":7}"#, 422, "query must be a string"),
        (r#"{"query":["{hello}"]}"#, 422, "query must be a string"),
        (r#"{"query":"{hello}","query":"{hello}"}"#, 422, "twice"),
        (r#"{"query":"{hello}","variables":[7]}"#, 422, "variables must be"),
        (r#"{"query":"{hello}","variables":"{}"}"#, 422, "variables must be"),
        (r#"{"query":"{hello}","variables":{"x":1e999}}"#, 422, "variables must be"),
        (deep.as_str(), 422, "variables must be"),
        (r#"{"query":"{hello}","operationName":7}"#, 422, "operationName must be"),
        (r#"{"query":"{hello}","extensions":[]}"#, 422, "extensions must be"),
    ] {
        let answer = house.post(body.to_owned()).await;
        assert_eq!((answer.status, answer.code()), (status, "BAD_REQUEST"), "{body}");
        assert!(
            answer.body["errors"][0]["message"].as_str().unwrap().contains(said),
            "{body} {}",
            answer.text
        );
        assert_eq!(answer.body.get("data"), None, "{body}");
    }
    assert_eq!(house.post(b"{\"query\":\"\xff\"}".as_slice()).await.status, 400);
    let odd = r#"{"query":"{hello}","variables":null,"operationName":null,"extensions":null,"other":{}}"#;
    assert_eq!(house.post(odd).await.status, 200);
    assert_eq!(house.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn get_serves_queries_and_nothing_else() {
    let house = house();
    for (query, status, said) in [
        ("query=%7Bhello%7D", 200, "hello local"),
        ("query=%7Bhello%7D&operationName=&variables=&extensions=&other=1&other=2", 200, "hello local"),
        ("query=query%20null%7Bhello%7D&operationName=null", 200, "hello local"),
        ("query=query($r:[Int!]!)%7Bjobs(refs:$r)%7D&variables=%7B%22r%22:[1,2]%7D", 200, "\"jobs\":2"),
        ("query=query%20A%7Bhello%7D%20mutation%20B%7Btouch%7D&operationName=A", 200, "hello local"),
        ("query=query%20A%7Bhello%7D%20mutation%20B%7Btouch%7D&operationName=B", 405, "by POST"),
        ("query=mutation%7Btouch%7D", 405, "by POST"),
        ("query=subscription%7Bx%7D", 405, "stream"),
        ("", 422, "query is missing"),
        ("query=", 422, "query is missing"),
        ("query=%7Bhello%7D&query=%7Bhello%7D", 422, "query is given twice"),
        ("query=%7Bhello%7D&variables=%5B%5D", 422, "variables must be"),
        ("query=%7Bhello%7D&variables=%7B", 422, "variables must be"),
        ("query=%7Bhello%7D&extensions=7", 422, "extensions must be"),
        ("query=%FF", 400, "does not parse"),
    ] {
        let answer = house.get(query).await;
        assert_eq!(answer.status, status, "{query} {}", answer.text);
        assert!(answer.text.contains(said), "{query} {}", answer.text);
        assert_eq!(
            answer.headers.get(header::ALLOW).is_some_and(|allow| allow == "POST"),
            status == 405,
            "{query}"
        );
    }
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"] {
        let request = Request::builder().method(method).uri("/graphql?query=%7Bhello%7D").body(Body::empty());
        let answer = house.ask(request.unwrap()).await;
        assert_eq!((answer.status, answer.code()), (405, "METHOD_NOT_ALLOWED"), "{method}");
        assert_eq!(answer.headers[header::ALLOW], "GET, HEAD, POST");
    }
}

/// The body of each request never arrives: what is refused here is refused before it is read.
#[tokio::test(start_paused = true)]
async fn nothing_is_read_before_the_client_is_known_and_the_types_fit() {
    let house = house();
    for (name, value, status, code) in [
        ("authorization", "Bearer wrong", 401, "UNAUTHENTICATED"),
        ("authorization", "Basic key", 401, "UNAUTHENTICATED"),
        ("accept", "text/html", 406, "NOT_ACCEPTABLE"),
        ("content-type", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("content-encoding", "gzip", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("authorization", "Bearer key", 408, "REQUEST_TIMEOUT"),
    ] {
        let never =
            Body::from_stream(futures_util::stream::once(pending::<Result<Vec<u8>, std::io::Error>>()));
        let mut request = post("*/*", never);
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = house.ask(request).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{name}: {value}");
        assert_eq!(answer.content_type(), GRAPHQL, "{name}: {value}");
        assert_eq!(answer.headers.contains_key(header::WWW_AUTHENTICATE), status == 401, "{name}: {value}");
        assert!(!answer.text.contains("wrong"), "{}", answer.text);
    }
    assert_eq!(house.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_exceeds_a_limit_runs_nothing_and_names_the_limit() {
    let house = house();
    let nested = |depth: usize| format!("{}hello{}", "{nested".repeat(depth) + "{", "}".repeat(depth + 1));
    let refs = |count: usize| format!("{{hello jobs(refs:[{}])}}", "1,".repeat(count));
    for (text, code, limit, value) in [
        (format!("{{hello{}}}", " @skip(if:false)".repeat(20_000)), "DOCUMENT_TOO_LARGE", "max_tokens", 2000),
        (format!("{{hello{}}}", " a:hello".repeat(10_000)), "DOCUMENT_TOO_LARGE", "max_tokens", 2000),
        (format!("{{hello(x:{})}}", "[".repeat(900)), "DOCUMENT_TOO_LARGE", "max_nesting", 64),
        (nested(12), "DOCUMENT_TOO_COMPLEX", "max_depth", 12),
        (format!("{{nested{{{}}}}}", " a:hello".repeat(51)), "DOCUMENT_TOO_COMPLEX", "max_aliases", 50),
        (format!("{{{}}}", " hello".repeat(21)), "DOCUMENT_TOO_COMPLEX", "max_root_fields", 20),
        (format!("{{hello{}}}", " @skip(if:false)".repeat(21)), "DOCUMENT_TOO_COMPLEX", "max_directives", 20),
        (refs(1001), "DOCUMENT_TOO_COMPLEX", "max_cost", 1000),
    ] {
        let answer = house.post(query(&text)).await;
        assert_eq!((answer.status, answer.code()), (422, code), "{}", answer.text);
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!((extensions["limit"].as_str(), extensions["value"].as_u64()), (Some(limit), Some(value)));
        assert!(answer.text.len() < 500, "{}", answer.text);
    }
    assert_eq!(house.calls.load(Ordering::SeqCst), 0);
    assert_eq!(house.post(query(&refs(1000))).await.status, 200);
    assert_eq!(house.post(query(&nested(11))).await.status, 200);
}

#[tokio::test]
async fn a_document_of_mistakes_gets_a_short_answer() {
    let long = "x".repeat(100_000);
    let mistakes = (0..500).map(|index| format!(" nested{{e{index}}}")).collect::<Vec<_>>().concat();
    for text in [format!("{{{long}}}"), format!("{{nested{{{mistakes}}}}}")] {
        let answer = house().post(query(&text)).await;
        assert_eq!(answer.status, 422);
        assert!(answer.text.len() < 15_000, "{}", answer.text.len());
    }
}

#[tokio::test]
async fn a_document_is_parsed_once_if_it_is_valid_and_variables_are_judged_each_time() {
    let house = house();
    let text = "query Q($r:[Int!]!){jobs(refs:$r)}";
    let ask = |refs: usize| json!({ "query": text, "variables": { "r": vec![1; refs] } }).to_string();
    for (refs, status) in [(2, 200), (3, 200), (1001, 422), (1, 200)] {
        assert_eq!(house.post(ask(refs)).await.status, status, "{refs}");
    }
    assert!(house.door.0.documents.get(text).is_some());
    assert_eq!(house.post(query("{unknown}")).await.status, 422);
    assert!(house.door.0.documents.get("{unknown}").is_none());
}

#[tokio::test]
async fn the_operations_facts_reach_resolvers_and_layers() {
    let house = house();
    let request =
        post("*/*", json!({ "query": "query A{kind} query B{hello}", "operationName": "A" }).to_string());
    let response = house.app.clone().oneshot(request).await.unwrap();
    let expected = Operation { kind: OperationType::Query, name: Some("A".to_owned()) };
    assert_eq!(response.extensions().get::<Operation>(), Some(&expected));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["data"]["kind"], format!("{expected:?}"));
}

fn posted(body: Vec<u8>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { house().post(body).await })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_body_gets_a_json_answer(body in prop_oneof![
        vec(anything::<u8>(), 0..200),
        "[\\[{\"query:,}\\] 0-9a-z\\\\]{0,60}".prop_map(String::into_bytes),
    ]) {
        let answer = posted(body);
        prop_assert!((400..500).contains(&answer.status) && answer.code() != "-", "{}", answer.text);
    }

    #[test]
    fn any_document_gets_a_json_answer(parts in vec(prop_oneof![
        Just("{"), Just("}"), Just("("), Just(")"), Just("["), Just("]"), Just(":"), Just("$x"), Just("@skip(if:true)"),
        Just("hello"), Just("nested"), Just("query"), Just("mutation"), Just("fragment F on Query"), Just("...F"),
        Just("... on Query"), Just("__schema"), Just("\"\"\""), Just("\""), Just("#\n"), Just("1.5e-3"), Just("é"),
    ], 0..40)) {
        let answer = posted(query(&parts.join(" ")).into_bytes());
        prop_assert!(answer.body.get("data").is_some() || answer.code() != "-", "{}", answer.text);
    }
}
