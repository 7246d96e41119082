//! Hostile callers: ids, bodies and documents. Each gets one clear refusal, and no upstream hears of it.
//!
//! Defaults of the chosen crates that break a promise, by their row in the list of measured traps, and where each is
//! tested on the query path:
//!
//! | row | trap | test |
//! |---|---|---|
//! | F1 | mutations sent as `text/plain` or a form | `the_door_refuses_before_anything_runs`, and in `inbound::graphql::http::tests` |
//! | F2 | mutations by GET | `get_serves_queries_and_nothing_else` in `inbound::graphql::http::tests`, `http_audit` 9C48 |
//! | F3 | a 30 MiB body is accepted | `the_door_refuses_before_anything_runs` |
//! | F4, F5 | 10,000 aliases, 20,000 directives | `hostile_documents_run_nothing` |
//! | F7 | batches run | `the_door_refuses_before_anything_runs` |
//! | F8 | introspection, "did you mean" | `switched_off_the_schema_is_not_told` |
//! | F9 | debug text for a malformed body | `the_door_refuses_before_anything_runs` |
//! | F10 | an int64 as `Int` | `every_field_of_both_upstreams_arrives` in `query` |
//! | F24 | errors print the URL, key included | `canary`; `no_error_shows_the_secret_or_the_url` in `outbound::http::tests` |
//! | F25 | redirects carry the key | `a_redirect_is_not_followed_and_the_other_origin_gets_nothing` in `faults` |
//! | F26 | a gzip bomb | `every_fault_of_mindbridge_has_its_outcome` and its sister in `faults` |
//! | F27, F28 | an id leaves its URL segment | `no_hostile_id_leaves_its_place`; `no_id_leaves_its_segment` in `outbound::http::tests` |
//! | F29 | a round trip changes bytes | `cells_keep_their_bytes` in `query` |
//! | F30 | an unknown enum value fails the document | the rows "an unknown …" in `faults` |
//! | F31 | aborting the leader fetches twice | `a_caller_who_hangs_up_does_not_cancel_the_fetch` |

use std::collections::BTreeSet;

use jobgate::simulator::{Endpoint, Fault, FaultKind, MindBridgeJob, SupermetricsJob, Upstream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::server::{Setup, external};
use crate::support::wire;

/// What a caller may try, once as it is and once in the middle of an id that looks good.
const PIECES: [&str; 62] = [
    "/",
    "//",
    "\\",
    "..",
    "../",
    "..\\",
    "/..",
    "/../",
    "....//",
    "%2e%2e",
    "%2E%2E%2F",
    "%252e%252e%252f",
    "%2f",
    "%5c",
    "%00",
    "%0a",
    "%0d%0a",
    "%c0%ae",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{85}",
    "\u{200b}",
    "\u{202e}",
    "\u{feff}",
    "\u{ff0e}\u{ff0e}",
    "\u{2215}",
    "é",
    "😀",
    "?",
    "?a=b",
    "#",
    "#f",
    "&",
    "&api_key=x",
    "=",
    ";",
    ";a=b",
    "@",
    "@evil.test",
    ":80",
    "http://evil.test/",
    "//evil.test",
    " ",
    "+",
    "*",
    "'",
    "\"",
    "'--",
    "`id`",
    "$(id)",
    "${x}",
    "{}",
    "[]",
    "<b>",
    "|",
    "^",
    ",",
    "\r\nHost: evil.test",
];

/// Strange and allowed: each is an id like any other.
const STRANGE: [&str; 24] = [
    "a..b",
    "..a",
    "a..",
    "-",
    "_",
    "~",
    ":",
    "a:b",
    "0",
    "00",
    "-1",
    "1e400",
    "NaN",
    "null",
    "undefined",
    "true",
    "json",
    "api_key",
    "schedule_id",
    "async-results",
    "v1",
    "Query",
    "CON",
    "constructor",
];

fn hostile_ids() -> BTreeSet<String> {
    let good = "65f0c0ffee00000000000001";
    let mut ids: BTreeSet<String> = STRANGE.iter().map(ToString::to_string).collect();
    for piece in PIECES {
        ids.extend([
            piece.to_owned(),
            format!("{good}{piece}"),
            format!("{piece}{good}"),
            format!("a{piece}b"),
            piece.repeat(7),
        ]);
    }
    ids.extend(["", ".", "...", "query", "query/", "../query"].map(ToOwned::to_owned));
    ids.extend([200, 201, 255, 256, 1_000, 10_000].map(|length| "x".repeat(length)));
    ids
}

/// The rule, written a second time: the gateway's own is not asked whether it is right.
fn allowed(source: &str, id: &str) -> bool {
    let more = if source == "mind" { "-_.~:" } else { "-_" };
    let fits = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
    let endpoint = source == "mind" && id.eq_ignore_ascii_case("query");
    !endpoint
        && (1..=200).contains(&id.len())
        && id.chars().all(fits)
        && !id.chars().all(|letter| letter == '.')
}

/// Crate traps F27 and F28. By the collection query, by one GET each, and by the status call.
#[tokio::test]
async fn no_hostile_id_leaves_its_place() {
    let ids: Vec<String> = hostile_ids().into_iter().collect();
    assert!(ids.len() >= 300, "{} ids", ids.len());
    for (source, upstream, refuse_query) in [
        ("mind", Upstream::MindBridge, None),
        ("mind", Upstream::MindBridge, Some(405)),
        ("metrics", Upstream::Supermetrics, None),
    ] {
        let mut setup = Setup::default();
        setup.scenario.mindbridge.refuse_query = refuse_query;
        let rig = setup.start().await;
        for some in ids.chunks(100) {
            let refs: Vec<Value> = some.iter().map(|id| external(source, id)).collect();
            for (id, answer) in some.iter().zip(rig.look_at(&refs).await) {
                let expected =
                    if allowed(source, id) { "NOT_FOUND for good" } else { "INVALID_REF for good" };
                assert_eq!(answer, expected, "{source}: {id:?}");
            }
        }
        rig.assert_well_behaved();
        let mut asked = BTreeSet::new();
        for request in rig.upstreams.record_of(upstream) {
            let place = match request.endpoint {
                Endpoint::Query => "/api/v1/async-results/query".to_owned(),
                Endpoint::One => format!("/api/v1/async-results/{}", request.ids[0]),
                Endpoint::Status | Endpoint::Unexpected => "/enterprise/v2/query/status".to_owned(),
            };
            assert_eq!(request.path, place, "{request:?}");
            asked.extend(request.ids);
        }
        let expected: BTreeSet<String> = ids.iter().filter(|id| allowed(source, id)).cloned().collect();
        assert_eq!(asked, expected, "{source}");
    }
}

/// MindBridge's collection query lives beside the jobs: as an id its name would be a call to it.
#[tokio::test]
async fn the_name_of_the_query_endpoint_is_no_job() {
    let rig = Setup::default().start().await;
    for id in ["query", "Query", "QUERY"] {
        assert_eq!(rig.look("mind", id).await, "INVALID_REF for good");
    }
    assert_eq!(rig.upstreams.record(), []);
    assert_eq!(rig.look("metrics", "query").await, "NOT_FOUND for good");
}

/// Opaque ids are checked like external ones, and so are the names of sources.
#[tokio::test]
async fn references_that_were_never_given_out_are_refused() {
    let rig = Setup::default().start().await;
    let ids = [
        "",
        "x",
        "am9iMS9taW5kLy4u",
        "am9iMS9taW5kL2Ev",
        "am9iMS9taW5kL2E=",
        "../am9iMS9taW5kL2E",
        "%00",
        "am9iMS8v",
    ];
    let refs: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    assert_eq!(rig.look_at(&refs).await, vec!["INVALID_REF for good"; ids.len()]);
    let long = "m".repeat(10_000);
    let sources = ["", "Mind", "mind ", "mind/", "../mind", "mind\0", "mínd", long.as_str()];
    let refs: Vec<Value> = sources.iter().map(|source| external(source, "a")).collect();
    assert_eq!(rig.look_at(&refs).await, vec!["INVALID_REF for good"; sources.len()]);
    assert_eq!(rig.look("nowhere", "a").await, "NOT_FOUND for good");
    assert_eq!(rig.upstreams.record(), []);
}

/// So many pieces of a document, one after the other.
fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect::<Vec<_>>().concat()
}

fn nested(depth: usize) -> String {
    format!("{{ sources {}{}", "{ name ".repeat(depth), "}".repeat(depth + 1))
}

#[tokio::test]
async fn hostile_documents_run_nothing() {
    let rig = Setup::with(vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])], vec![]).start().await;
    let job = r#"job(ref: { external: { source: "mind", externalId: "a" } }) { __typename }"#;
    let bomb = many(40, |n| format!("fragment f{n} on Query {{ ...f{next} ...f{next} }} ", next = n + 1));
    let large = ("DOCUMENT_TOO_LARGE", 422);
    let complex = ("DOCUMENT_TOO_COMPLEX", 422);
    let invalid = ("GRAPHQL_VALIDATION_FAILED", 422);
    let unparsable = ("GRAPHQL_PARSE_FAILED", 400);
    let cases = [
        // F4
        (format!("{{ {} }}", many(10_000, |n| format!("a{n}: sources {{ name }} "))), large),
        (format!("{{ {} }}", many(51, |n| format!("a{n}: __typename "))), complex),
        // F5
        (format!("{{ __typename {} }}", "@skip(if:false)".repeat(15_000)), large),
        (format!("{{ __typename {} }}", "@skip(if: false) ".repeat(21)), complex),
        (nested(20), complex),
        (nested(300), large),
        (format!("{{ {} }}", format!("{job} ").repeat(21)), complex),
        (format!("{{ ...f0 {job} }} {bomb} fragment f40 on Query {{ {job} }}"), complex),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".to_owned(), invalid),
        (
            format!(
                "{{ trackedJobs(first: 100) {{ nodes {{ ... on SupermetricsJob {{ {} }} }} }} {job} }}",
                many(11, |n| format!("r{n}: rows(first: 1) {{ header }} "))
            ),
            complex,
        ),
        (format!("{{ trackedJobs(first: 99999999999999999999) {{ nodes {{ id }} }} {job} }}"), invalid),
        (format!("{{ trackedJobs(first: 1.5) {{ nodes {{ id }} }} {job} }}"), invalid),
        (format!("{{ node(id: {{}}) {{ id }} {job} }}"), invalid),
        (
            format!(
                "{{ jobs(refs: [{{ external: {{ source: 1, externalId: true }} }}]) {{ __typename }} {job} }}"
            ),
            invalid,
        ),
        (format!("{{ nosuchfield {job} }}"), invalid),
        (format!("mutation {{ {job} }}"), invalid),
        ("{".repeat(1_000), large),
        ("[".repeat(100_000), large),
        (format!("{{ {job}"), unparsable),
        ("\0".to_owned(), unparsable),
        (format!("\"{}", "a".repeat(100_000)), unparsable),
        (format!("{{ job(ref: {{ id: \"\\uD800\" }}) {{ __typename }} {job} }}"), unparsable),
        (format!("query($x: Int = 99999999999999999999999) {{ {job} }}"), invalid),
    ];
    for (document, (code, status)) in cases {
        let answer = rig.ask(&document, Value::Null).await;
        let short: String = document.chars().take(120).collect();
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{short}: {}", answer.body);
        assert!(answer.body.len() < 4_000, "{short}: {} bytes", answer.body.len());
    }
    assert_eq!(rig.upstreams.record(), []);
}

/// Both ways at once in a `@oneOf` input, none of them, and variables of the wrong type.
#[tokio::test]
async fn wrong_variables_run_nothing() {
    let rig = Setup::default().start().await;
    let query = "query($ref: JobRef!, $max: Duration, $first: Int = 1) { job(ref: $ref, maxStaleness: $max) { __typename } trackedJobs(first: $first) { nodes { id } } }";
    let good = external("mind", "a");
    let both = json!({ "id": "x", "external": { "source": "mind", "externalId": "a" } });
    let cases = [
        json!({}),
        json!({ "ref": null }),
        json!({ "ref": [] }),
        json!({ "ref": "mind/a" }),
        json!({ "ref": {} }),
        json!({ "ref": both }),
        json!({ "ref": { "external": { "source": "mind" } } }),
        json!({ "ref": { "external": { "source": "mind", "externalId": ["a"] } } }),
        json!({ "ref": { "external": { "source": "mind", "externalId": "a", "more": 1 } } }),
        json!({ "ref": { "$serde_json::private::RawValue": "{\"id\":\"x\"}" } }),
        json!({ "ref": good, "max": 5 }),
        json!({ "ref": good, "max": "5" }),
        json!({ "ref": good, "max": "-5s" }),
        json!({ "ref": good, "first": u64::MAX }),
        json!({ "ref": good, "first": 1e300 }),
        json!({ "ref": good, "first": "1" }),
    ];
    for variables in cases {
        let answer = rig.ask(query, variables.clone()).await;
        let errors = answer.json();
        let code = errors["errors"][0]["extensions"]["code"].as_str();
        assert!(
            matches!(code, Some("BAD_USER_INPUT" | "GRAPHQL_VALIDATION_FAILED" | "BAD_REQUEST")),
            "{variables}: {}",
            answer.body
        );
    }
    assert_eq!(rig.upstreams.record(), []);
    for first in [0, 101, -1, i32::MAX] {
        let answer = rig
            .ask("query($n: Int!) { trackedJobs(first: $n) { nodes { id } } }", json!({ "n": first }))
            .await;
        let error = &answer.json()["errors"][0];
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{first}: {}", answer.body);
        assert!(error["message"].as_str().unwrap().contains("100"), "{}", answer.body);
    }
}

/// Crate traps F1, F3, F7 and F9, over a real socket.
#[tokio::test]
async fn the_door_refuses_before_anything_runs() {
    let rig = Setup::with(vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])], vec![]).start().await;
    let query =
        r#"{"query":"{ job(ref: { external: { source: \"mind\", externalId: \"a\" } }) { __typename } }"}"#;
    let batch = format!("[{query},{query}]");
    let form = "query=%7Bsources%7Bname%7D%7D".to_owned();
    let large = format!("{{\"query\":\"{}\"}}", " ".repeat(300 * 1024));
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let json = "application/json";
    let cases = [
        ("POST", "text/plain", query.to_owned(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "application/x-www-form-urlencoded", form, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "multipart/form-data; boundary=x", query.to_owned(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "application/json; charset=utf-16", query.to_owned(), 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", json, large, 413, "PAYLOAD_TOO_LARGE"),
        ("POST", json, batch, 422, "BAD_REQUEST"),
        ("POST", json, deep, 422, "BAD_REQUEST"),
        ("POST", json, "{\"query\":".to_owned(), 400, "BAD_REQUEST"),
        ("POST", json, "{\"query\":1e400}".to_owned(), 422, "BAD_REQUEST"),
        ("POST", json, "{\"variables\":{}}".to_owned(), 422, "BAD_REQUEST"),
        ("PUT", json, query.to_owned(), 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", json, query.to_owned(), 405, "METHOD_NOT_ALLOWED"),
    ];
    for (method, content_type, body, status, code) in cases {
        let request = wire::request(method, "/graphql", &[("content-type", content_type)], &body);
        let answer = wire::exchange(rig.public, &request).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{method} {content_type}: {}", answer.body);
        for leak in ["serde", "Error(", "panicked", "src/"] {
            assert!(!answer.body.contains(leak), "{}", answer.body);
        }
    }
    for path in ["/", "/graphql/", "/graphql/../admin", "/metrics", "/livez", "//graphql", "/%67raphql"] {
        let answer = wire::get(rig.public, path).await;
        assert!([200, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.body.contains("jobgate_"), "{path} shows what is for operators");
    }
    assert_eq!(rig.upstreams.record(), []);
}

/// Crate trap F8: what cannot be seen is not spelled out either.
#[tokio::test]
async fn switched_off_the_schema_is_not_told() {
    let rig = Setup { rest: "graphql: { introspection: off }".to_owned(), ..Setup::default() }.start().await;
    for query in [
        "{ __schema { types { name } } }",
        "{ __type(name: \"Query\") { name } }",
        "{ sourcez { name } }",
        "{ sources { nam } }",
    ] {
        let answer = rig.ask(query, Value::Null).await;
        assert!(!answer.body.to_lowercase().contains("did you mean"), "{query}: {}", answer.body);
        let body = answer.json();
        let told = body["data"]["__schema"].is_object() || body["data"]["__type"].is_object();
        assert!(!told, "{query}: {}", answer.body);
    }
    let open = Setup::default().start().await;
    assert_eq!(
        open.ask("{ __type(name: \"Query\") { name } }", Value::Null).await.data(),
        json!({ "__type": { "name": "Query" } })
    );
}

/// Crate trap F31: the fetch is its own task, so hanging up neither cancels nor repeats it.
#[tokio::test]
async fn a_caller_who_hangs_up_does_not_cancel_the_fetch() {
    let rig = Setup::with(vec![], vec![SupermetricsJob::new("q", &[(0, "SUCCESS")])]).start().await;
    rig.upstreams.push_fault(Fault::next(Upstream::Supermetrics, 1, FaultKind::Hold));
    let query = r#"{ job(ref: { external: { source: "metrics", externalId: "q" } }) { __typename } }"#;
    let body = json!({ "query": query }).to_string();
    let mut leader = tokio::net::TcpStream::connect(rig.public).await.unwrap();
    leader
        .write_all(&wire::request("POST", "/graphql", &[("content-type", "application/json")], &body))
        .await
        .unwrap();
    rig.upstreams.asked(1).await;
    drop(leader);
    let joiner = rig.look("metrics", "q");
    let release = async {
        // the joiner is let in, or served from what the leader's fetch has left: one request in either case
        tokio::task::yield_now().await;
        rig.upstreams.release();
    };
    let (answer, ()) = tokio::join!(joiner, release);
    assert_eq!(answer, "SUCCEEDED");
    assert_eq!(rig.calls(Upstream::Supermetrics), 1);
}
