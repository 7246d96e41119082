//! Hostile documents, variables and bodies: each is rejected before execution.

use jobgate_simulator::MindBridgeJob;
use serde_json::{Value, json};

use crate::support::server::{Setup, external};
use crate::support::wire;

/// `count` pieces of a document, concatenated.
fn many(count: usize, piece: impl Fn(usize) -> String) -> String {
    (0..count).map(piece).collect::<Vec<_>>().concat()
}

fn nested(depth: usize) -> String {
    format!("{{ sources {}{}", "{ name ".repeat(depth), "}".repeat(depth + 1))
}

#[tokio::test]
async fn hostile_documents_are_rejected_before_execution() {
    let rig = Setup::with(vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])], vec![]).start().await;
    let job = r#"job(ref: { external: { source: "mind", externalId: "a" } }) { __typename }"#;
    let bomb = many(40, |n| format!("fragment f{n} on Query {{ ...f{next} ...f{next} }} ", next = n + 1));
    let large = ("DOCUMENT_TOO_LARGE", 422);
    let complex = ("DOCUMENT_TOO_COMPLEX", 422);
    let invalid = ("GRAPHQL_VALIDATION_FAILED", 422);
    let unparsable = ("GRAPHQL_PARSE_FAILED", 400);
    let cases = [
        // aliases
        (format!("{{ {} }}", many(10_000, |n| format!("a{n}: sources {{ name }} "))), large),
        (format!("{{ {} }}", many(51, |n| format!("a{n}: __typename "))), complex),
        // directives
        (format!("{{ __typename {} }}", "@skip(if:false)".repeat(15_000)), large),
        (format!("{{ __typename {} }}", "@skip(if: false) ".repeat(21)), complex),
        (nested(20), complex),
        (nested(300), large),
        (format!("{{ {} }}", format!("{job} ").repeat(21)), complex),
        (format!("{{ ...f0 {job} }} {bomb} fragment f40 on Query {{ {job} }}"), complex),
        ("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }".to_owned(), invalid),
        (
            format!(
                "{{ jobList(first: 100) {{ nodes {{ ... on SupermetricsJob {{ {} }} }} }} {job} }}",
                many(11, |n| format!("r{n}: rows(first: 1) {{ header }} "))
            ),
            complex,
        ),
        (format!("{{ jobList(first: 99999999999999999999) {{ nodes {{ id }} }} {job} }}"), invalid),
        (format!("{{ jobList(first: 1.5) {{ nodes {{ id }} }} {job} }}"), invalid),
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
        let answer = rig.execute(&document, Value::Null).await;
        let short: String = document.chars().take(120).collect();
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{short}: {}", answer.body);
        assert!(answer.body.len() < 4_000, "{short}: {} bytes", answer.body.len());
    }
    assert_eq!(rig.upstreams.record(), []);
}

/// Both ways at once in a `@oneOf` input, none of them, and variables of the wrong type.
#[tokio::test]
async fn invalid_variables_are_rejected_before_execution() {
    let rig = Setup::default().start().await;
    let query = "query($ref: JobRef!, $max: Duration, $first: Int = 1) { job(ref: $ref, maxStaleness: $max) { __typename } jobList(first: $first) { nodes { id } } }";
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
        let answer = rig.execute(query, variables.clone()).await;
        let (status, code) = answer.refusal();
        assert_eq!(status, 422, "{variables}: {}", answer.body);
        assert!(matches!(code.as_str(), "BAD_USER_INPUT" | "BAD_REQUEST"), "{variables}: {}", answer.body);
    }
    assert_eq!(rig.upstreams.record(), []);
}

#[tokio::test]
async fn invalid_literals_are_rejected_before_execution() {
    let rig = Setup::default().start().await;
    for literal in ["5", "\"5\"", "\"-5s\"", "{}", "true"] {
        let query = format!(
            "{{ job(ref: {{ external: {{ source: \"mind\", externalId: \"a\" }} }}, maxStaleness: {literal}) {{ __typename }} }}"
        );
        assert_eq!(rig.execute(&query, json!({})).await.refusal().0, 422, "{literal}");
    }
    assert_eq!(rig.upstreams.record(), []);
}

#[tokio::test]
async fn a_page_size_out_of_range_error_names_the_limit() {
    let rig = Setup::default().start().await;
    for first in [0, 101, -1, i32::MAX] {
        let answer = rig
            .execute("query($n: Int!) { jobList(first: $n) { nodes { id } } }", json!({ "n": first }))
            .await;
        let error = &answer.json()["errors"][0];
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{first}: {}", answer.body);
        assert!(error["message"].as_str().unwrap().contains("100"), "{}", answer.body);
    }
}

/// The first field is valid, and must not run: the variable of the second does not coerce.
#[tokio::test]
async fn a_mutation_whose_variables_do_not_coerce_changes_nothing() {
    let rig = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]).start().await;
    let a = r#"{ external: { source: "mind", externalId: "a" } }"#;
    let mutation = |declared: &str, refs: &str| {
        format!(
            "mutation({declared}) {{ trackJobs(input: {{ refs: [{a}] }}) {{ results {{ __typename }} }} \
             untrackJobs(input: {{ refs: {refs} }}) {{ untracked }} }}"
        )
    };
    let input = "BAD_USER_INPUT";
    let invalid = "GRAPHQL_VALIDATION_FAILED";
    let cases = [
        (mutation("$d: [JobRef!]!", "$d"), json!({ "d": 5 }), input),
        (mutation("$d: [JobRef!]!", "$d"), json!({ "d": [5] }), input),
        (mutation("$d: [JobRef!]!", "$d"), json!({ "d": [{ "id": "x" }, { "external": [] }] }), input),
        (mutation("$d: [JobRef!]!", "$d"), json!({}), input),
        (mutation("$d: JobRef!", "[$d]"), json!({ "d": "x" }), input),
        (mutation("$d: [JobRef!]! = 5", "$d"), json!({}), invalid),
        (mutation("$d: [Nope!]! = [5]", "$d"), json!({}), invalid),
    ];
    for (mutation, variables, code) in cases {
        let answer = rig.execute(&mutation, variables.clone()).await;
        assert_eq!(answer.refusal(), (422, code.to_owned()), "{variables}: {}", answer.body);
    }
    assert_eq!(rig.upstreams.record(), []);
    let held = rig.execute("{ jobList(first: 10) { nodes { id } } }", Value::Null).await;
    assert_eq!(held.data()["jobList"]["nodes"], json!([]));
    // the same with a value that coerces runs
    let answer = rig.execute(&mutation("$d: [JobRef!]!", "$d"), json!({ "d": external("mind", "b") })).await;
    assert_eq!(answer.data()["trackJobs"]["results"][0]["__typename"], "MindBridgeJob", "{}", answer.body);
}

/// `docs/adr/0001-own-graphql-transports.md`, over a real socket.
#[tokio::test]
async fn invalid_http_requests_are_rejected_before_execution() {
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
    assert_eq!(rig.upstreams.record(), []);
}

#[tokio::test]
async fn no_path_of_the_public_listener_serves_operator_data() {
    let rig = Setup::default().start().await;
    for path in ["/", "/graphql//", "/graphql/../admin", "/metrics", "/livez", "//graphql", "/%67raphql"] {
        let answer = wire::get(rig.public, path).await;
        assert!([200, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.body.contains("jobgate_"), "{path} serves operator data");
    }
    assert_eq!(rig.upstreams.record(), []);
}

/// `docs/adr/0003-limits-before-execution.md`: what is hidden is not suggested either.
#[tokio::test]
async fn disabled_introspection_reveals_no_schema() {
    let rig = Setup { rest: "graphql: { introspection: off }".to_owned(), ..Setup::default() }.start().await;
    for query in [
        "{ __schema { types { name } } }",
        "{ __type(name: \"Query\") { name } }",
        "{ ...f } fragment f on Query { __schema { types { name } } }",
        "{ sourcez { name } }",
        "{ sources { nam } }",
    ] {
        let answer = rig.execute(query, Value::Null).await;
        let refused = (422, "GRAPHQL_VALIDATION_FAILED".to_owned());
        assert_eq!(answer.refusal(), refused, "{query}: {}", answer.body);
        assert!(!answer.body.to_lowercase().contains("did you mean"), "{query}: {}", answer.body);
        assert_eq!(answer.json().get("data"), None, "{query}: {}", answer.body);
    }
    assert_eq!(rig.execute("{ __typename }", Value::Null).await.data(), json!({ "__typename": "Query" }));
    let open = Setup::default().start().await;
    assert_eq!(
        open.execute("{ __type(name: \"Query\") { name } }", Value::Null).await.data(),
        json!({ "__type": { "name": "Query" } })
    );
}
