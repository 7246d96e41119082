//! Hostile callers: ids here, bodies and documents below. Each gets one clear error, and no upstream is called.
//!
//! Defaults of the libraries that break a guarantee, by the decision record in `docs/adr` that replaces each, and where
//! it is tested on the query path:
//!
//! | record | default | test |
//! |---|---|---|
//! | 0001 | mutations sent as `text/plain` or a form | `documents::invalid_http_requests_are_rejected_before_execution`, and in `inbound::graphql::transport::http::tests` |
//! | 0001 | mutations by GET | `get_serves_queries_only` in `inbound::graphql::transport::http::tests`, `http_audit` 9C48 |
//! | 0001 | a 30 MiB body is accepted | `documents::invalid_http_requests_are_rejected_before_execution` |
//! | 0003 | 10,000 aliases, 20,000 directives | `documents::hostile_documents_are_rejected_before_execution` |
//! | 0001 | batches run | `documents::invalid_http_requests_are_rejected_before_execution` |
//! | 0003 | introspection, "did you mean" | `documents::disabled_introspection_reveals_no_schema` |
//! | 0001 | debug text for a malformed body | `documents::invalid_http_requests_are_rejected_before_execution` |
//! | 0007 | an int64 as `Int` | `every_field_of_both_upstreams_is_returned` in `query` |
//! | 0005 | errors print the URL, key included | `canary`; `no_error_shows_the_secret_or_the_url` in `outbound::http::tests` |
//! | 0005 | redirects send the key | `a_redirect_to_another_origin_is_not_followed` in `faults` |
//! | 0005 | a gzip bomb | `each_mindbridge_fault_yields_its_expected_outcome` and its Supermetrics counterpart in `faults` |
//! | 0006 | an id escapes its URL segment | `no_hostile_id_changes_the_upstream_request_path`; `no_id_escapes_its_url_segment` in `outbound::http::tests` |
//! | 0007 | a round trip changes bytes | `row_cells_keep_the_upstream_bytes` in `query` |
//! | 0007 | an unknown enum value fails the document | the rows "an unknown …" in `faults` |
//! | 0004 | aborting the leader fetches twice | `a_client_disconnect_does_not_cancel_the_fetch` |

use std::collections::BTreeSet;

use jobgate_simulator::{Endpoint, FaultKind, SimFault, SimUpstream, SupermetricsJob};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::server::{Setup, external};
use crate::support::wire;

mod documents;

/// What a caller may try, once alone and once in the middle of a plausible id.
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

/// Unusual and allowed: each is an id like any other.
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

/// The rule, implemented a second time: the gateway's own is not trusted to be right.
fn allowed(source: &str, id: &str) -> bool {
    let more = if source == "mind" { "-_.~:" } else { "-_" };
    let fits = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
    let endpoint = source == "mind" && id.eq_ignore_ascii_case("query");
    !endpoint
        && (1..=200).contains(&id.len())
        && id.chars().all(fits)
        && !id.chars().all(|letter| letter == '.')
}

/// `docs/adr/0006-validated-external-ids.md`. By the collection query, by one GET each, and by the status call.
#[tokio::test]
async fn no_hostile_id_changes_the_upstream_request_path() {
    let ids: Vec<String> = hostile_ids().into_iter().collect();
    assert!(ids.len() >= 300, "{} ids", ids.len());
    for (source, upstream, refuse_query) in [
        ("mind", SimUpstream::MindBridge, None),
        ("mind", SimUpstream::MindBridge, Some(405)),
        ("metrics", SimUpstream::Supermetrics, None),
    ] {
        let mut setup = Setup::default();
        setup.scenario.mindbridge.refuse_query = refuse_query;
        let rig = setup.start().await;
        // few enough that also a slow machine answers them one by one in time
        for some in ids.chunks(25) {
            let refs: Vec<Value> = some.iter().map(|id| external(source, id)).collect();
            for (id, answer) in some.iter().zip(rig.lookup_all(&refs).await) {
                let expected =
                    if allowed(source, id) { "NOT_FOUND after 5s" } else { "INVALID_REF for good" };
                assert_eq!(answer, expected, "{source}: {id:?}");
            }
        }
        rig.assert_well_behaved();
        let mut requested = BTreeSet::new();
        for request in rig.upstreams.record_of(upstream) {
            let place = match request.endpoint {
                Endpoint::Query => "/api/v1/async-results/query".to_owned(),
                Endpoint::One => format!("/api/v1/async-results/{}", request.ids[0]),
                Endpoint::Status | Endpoint::List | Endpoint::Unexpected => {
                    "/enterprise/v2/query/status".to_owned()
                }
            };
            assert_eq!(request.path, place, "{request:?}");
            requested.extend(request.ids);
        }
        let expected: BTreeSet<String> = ids.iter().filter(|id| allowed(source, id)).cloned().collect();
        assert_eq!(requested, expected, "{source}");
    }
}

/// The path of MindBridge's collection query is a sibling of the jobs: as an id its name would call it.
#[tokio::test]
async fn query_is_rejected_as_a_mindbridge_job_id() {
    let rig = Setup::default().start().await;
    for id in ["query", "Query", "QUERY"] {
        assert_eq!(rig.lookup("mind", id).await, "INVALID_REF for good");
    }
    assert_eq!(rig.upstreams.record(), []);
    assert_eq!(rig.lookup("metrics", "query").await, "NOT_FOUND after 5s");
}

/// Opaque ids are checked like external ones, and so are the names of sources.
#[tokio::test]
async fn malformed_references_are_rejected_without_a_call() {
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
    assert_eq!(rig.lookup_all(&refs).await, vec!["INVALID_REF for good"; ids.len()]);
    let long = "m".repeat(10_000);
    let sources = ["", "Mind", "mind ", "mind/", "../mind", "mind\0", "mínd", long.as_str()];
    let refs: Vec<Value> = sources.iter().map(|source| external(source, "a")).collect();
    assert_eq!(rig.lookup_all(&refs).await, vec!["INVALID_REF for good"; sources.len()]);
    assert_eq!(rig.lookup("nowhere", "a").await, "NOT_FOUND after 5s");
    assert_eq!(rig.upstreams.record(), []);
}

#[tokio::test]
async fn a_malformed_reference_error_names_the_rule() {
    let rig = Setup::default().start().await;
    let long = "m".repeat(10_000);
    let cases = [
        (json!({ "id": "x" }), "id is not a node ID of this gateway"),
        (external("mind", ""), "externalId must not be empty"),
        (external("mind", ".."), "externalId must not consist of dots alone"),
        (external("mind", "a/b"), "externalId may contain only letters, digits, - _ . ~ and :"),
        (external("metrics", "a.b"), "externalId may contain only letters, digits, - and _"),
        (external("mind", &long), "externalId is longer than 200 bytes"),
        (external("mind", "query"), "externalId must not be \"query\", which is an endpoint of the upstream"),
        (external(&long, "a"), "source is longer than 63 bytes"),
        (
            external("Mind", "a"),
            "source may contain only a-z, 0-9, - and _, starting with a letter or a digit",
        ),
    ];
    for (reference, message) in cases {
        let query = "query($ref: JobRef!) { job(ref: $ref) { ... on JobProblem { message } } }";
        let answer = rig.execute(query, json!({ "ref": reference })).await.data();
        assert_eq!(answer["job"]["message"], message);
    }
    assert_eq!(rig.upstreams.record(), []);
}

/// `docs/adr/0004-fetch-is-its-own-task.md`: a caller that disconnects neither cancels nor repeats the fetch.
#[tokio::test]
async fn a_client_disconnect_does_not_cancel_the_fetch() {
    let rig = Setup::with(vec![], vec![SupermetricsJob::new("q", &[(0, "SUCCESS")])]).start().await;
    rig.upstreams.push_fault(SimFault::next(SimUpstream::Supermetrics, 1, FaultKind::Hold));
    let query = r#"{ job(ref: { external: { source: "metrics", externalId: "q" } }) { __typename } }"#;
    let body = json!({ "query": query }).to_string();
    let mut leader = tokio::net::TcpStream::connect(rig.public).await.unwrap();
    leader
        .write_all(&wire::request("POST", "/graphql", &[("content-type", "application/json")], &body))
        .await
        .unwrap();
    rig.upstreams.wait_for_requests(1).await;
    drop(leader);
    let joiner = rig.lookup("metrics", "q");
    let release = async {
        // the joiner is admitted, or served from the result of the leader's fetch: one request in either case
        tokio::task::yield_now().await;
        rig.upstreams.release();
    };
    let (answer, ()) = tokio::join!(joiner, release);
    assert_eq!(answer, "SUCCEEDED");
    assert_eq!(rig.calls(SimUpstream::Supermetrics), 1);
}
