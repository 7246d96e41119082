//! The odd documents, each on its own: the answer of a plan is the one of the engine, and is what it should be.

use std::collections::BTreeSet;

use jobgate::inbound::answer_limits::answer_memory::AnswerMemory;
use serde_json::{Value, json};

use super::world::{CLIENTS, GraphqlCall, World, node_id};

pub(super) fn call(query: &str, variables: Value) -> GraphqlCall {
    GraphqlCall { client: "local", query: query.to_owned(), operation: None, variables, graphql_media: true }
}

/// Compares both answers to a query, and returns the body. `is_planned`: whether a plan must execute it.
pub(super) async fn same(world: &World, call: &GraphqlCall, is_planned: bool) -> String {
    let expected = world.by_the_engine(call).await;
    let (first, _) = world.by_a_plan(call).await;
    assert_eq!(first, expected, "{}", call.query);
    let (second, by_a_plan) = world.by_a_plan(call).await;
    assert_eq!(second, expected, "{}", call.query);
    assert_eq!(by_a_plan, is_planned, "{}: {}", call.query, second.body);
    // an equal request was prepared before
    let (third, _) = world.by_a_plan(call).await;
    assert_eq!(third, expected, "{}", call.query);
    second.body
}

pub(super) const JOB1: &str = r#"job(ref: { external: { source: "mind", externalId: "job1" } })"#;
pub(super) const ABSENT: &str = r#"job(ref: { external: { source: "mind", externalId: "absent" } })"#;

/// Each case is a query, and the answer without its `{"data":` and `}`.
async fn answers(cases: &[(String, &str)]) {
    let world = World::new().await;
    for (query, expected) in cases {
        let body = same(&world, &call(query, json!({})), true).await;
        assert_eq!(body, format!("{{\"data\":{expected}}}"), "{query}");
    }
}

/// Errors of a root field that is not nullable, found before or after a call.
#[tokio::test(start_paused = true)]
async fn error_of_a_root_field_is_the_one_of_the_engine() {
    let world = World::new().await;
    for query in [
        "{ jobs(refs: []) { __typename } }".to_owned(),
        "{ a: nodes(ids: []) { id } }".to_owned(),
        "{ jobList(first: 0) { nodes { id } } }".to_owned(),
        "{ jobList(first: 5, after: \"no cursor\") { nodes { id } } }".to_owned(),
        format!("{{ {JOB1} {{ __typename }} b: jobs(refs: []) {{ __typename }} }}"),
    ] {
        let body = same(&world, &call(&query, json!({})), true).await;
        assert!(body.contains("\"data\":null"), "{query}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn merged_fields_keep_the_order_of_their_first_keys() {
    answers(&[
        (
            format!("{{ {JOB1} {{ ... on Job {{ externalId }} }} __typename {JOB1} {{ ... on Job {{ state externalId }} __typename }} }}"),
            r#"{"job":{"externalId":"job1","state":"SUCCEEDED","__typename":"MindBridgeJob"},"__typename":"Query"}"#,
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn value_without_selected_fields_is_an_empty_object() {
    answers(&[
        (format!("{{ {JOB1} {{ ... on SupermetricsJob {{ state }} }} }}"), r#"{"job":{}}"#),
        (
            format!(
                "{{ {JOB1} {{ ... on JobProblem {{ __typename }} ... on Job @skip(if: true) {{ id }} }} }}"
            ),
            r#"{"job":{}}"#,
        ),
        (format!("{{ {ABSENT} {{ ... on Job {{ __typename }} }} }}"), r#"{"job":{}}"#),
        (
            format!("{{ {JOB1} {{ ... on Job {{ source {{ name @skip(if: true) }} state }} }} }}"),
            r#"{"job":{"source":{},"state":"SUCCEEDED"}}"#,
        ),
        (format!("query {{ {JOB1} @skip(if: true) {{ __typename }} }}"), "{}"),
        (format!("query {{ ... @include(if: false) {{ {JOB1} {{ __typename }} }} }}"), "{}"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn alias_is_the_key_of_the_answer() {
    answers(&[
        ("{ a: __typename __typename b: __typename }".to_owned(), r#"{"a":"Query","__typename":"Query","b":"Query"}"#),
        (
            format!("{{ state: {JOB1} {{ ... on Job {{ id: state state: externalId name: source {{ id: name }} }} }} job: {ABSENT} {{ ... on JobProblem {{ job: code }} }} }}"),
            r#"{"state":{"id":"SUCCEEDED","state":"job1","name":{"id":"mind"}},"job":{"job":"NOT_FOUND"}}"#,
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn type_condition_selects_by_object_interface_and_union() {
    answers(&[
        (
            format!("{{ {JOB1} {{ ... on JobResult {{ ... {{ ... on Node {{ ... on Job {{ ... on MindBridgeJob {{ a: state }} ... on SupermetricsJob {{ b: state }} }} }} }} }} ... {{ ... on Node {{ c: __typename }} }} }} }}"),
            r#"{"job":{"a":"SUCCEEDED","c":"MindBridgeJob"}}"#,
        ),
        (
            r#"{ jobs(refs: [{ external: { source: "mind", externalId: "absent" } }, { external: { source: "metrics", externalId: "job1" } }]) { __typename ... on Node { __typename } ... on JobProblem { code } } }"#.to_owned(),
            r#"{"jobs":[{"__typename":"JobProblem","code":"NOT_FOUND"},{"__typename":"SupermetricsJob"}]}"#,
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn node_error_has_its_path_and_location() {
    let world = World::new().await;
    let [good, slow] = ["job1", "slow"].map(|id| node_id("mind", id));
    let query = format!(
        "{{\n  one: node(id: \"{slow}\") {{ id }}\n  ok: nodes(ids: [\"{good}\"]) {{ __typename }}\n    many: nodes(ids: [\"{good}\", \"{slow}\", \"none\", \"{slow}\"]) {{ __typename }} }}"
    );
    let body = same(&world, &call(&query, json!({})), true).await;
    let answer: Value = serde_json::from_str(&body).unwrap();
    let at: Vec<(&Value, &Value)> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (&error["path"], &error["locations"]))
        .collect();
    let place = |line: u8, column: u8| json!([{ "line": line, "column": column }]);
    assert_eq!(
        at,
        [
            (&json!(["one"]), &place(2, 3)),
            (&json!(["many", 1]), &place(4, 5)),
            (&json!(["many", 3]), &place(4, 5)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn each_client_gets_its_own_viewer_and_grant() {
    let world = World::new().await;
    let query = format!(
        "{{ viewer {{ name authenticatedBy expiresAt grants {{ ...G }} }} {JOB1} {{ ... on Job {{ viewerGrant {{ ...G }} }} }} }} \
         fragment G on ViewerGrant {{ source kinds labels {{ name value }} jobIds }}"
    );
    let mut bodies = Vec::new();
    for client in CLIENTS {
        bodies.push(same(&world, &GraphqlCall { client, ..call(&query, json!({})) }, true).await);
    }
    let every_source = r#"{"source":null,"kinds":null,"labels":null,"jobIds":null}"#;
    let viewer = r#""name":"local","authenticatedBy":"NONE","expiresAt":null"#;
    assert_eq!(
        bodies[0],
        format!(
            r#"{{"data":{{"viewer":{{{viewer},"grants":[{every_source}]}},"job":{{"viewerGrant":{every_source}}}}}}}"#
        )
    );
    let distinct: BTreeSet<&String> = bodies.iter().collect();
    assert_eq!(distinct.len(), CLIENTS.len(), "{bodies:?}");
}

#[tokio::test(start_paused = true)]
async fn field_beyond_a_plan_is_left_to_the_engine() {
    let world = World::new().await;
    let rows = r#"{ job(ref: { external: { source: "metrics", externalId: "job1" } }) {
        ... on Job { state } ... on SupermetricsJob { rows(first: 2) { header nodes { cells } } } } }"#;
    let beside = format!("{{ {JOB1} {{ __typename }} __schema {{ queryType {{ name }} }} }}");
    for query in [rows, &beside, "{ __type(name: \"Job\") { kind } }"] {
        same(&world, &call(query, json!({})), false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn variables_and_their_defaults_are_arguments_of_a_plan() {
    let world = World::new().await;
    let query = r#"query($id: String! = "job1", $source: String = "mind", $max: Duration, $ids: [ID!]! = [], $hide: Boolean! = false) {
        jobs(refs: [{ external: { source: $source, externalId: $id } }], maxStaleness: $max) { ... on Job { externalId @skip(if: $hide) } __typename }
        nodes(ids: $ids) @include(if: $hide) { id } }"#;
    for (variables, expected) in [
        (json!({}), r#"{"jobs":[{"externalId":"job1","__typename":"MindBridgeJob"}]}"#),
        (
            json!({ "id": "job2", "max": null }),
            r#"{"jobs":[{"externalId":"job2","__typename":"MindBridgeJob"}]}"#,
        ),
        (
            json!({ "source": "metrics", "max": "0s" }),
            r#"{"jobs":[{"externalId":"job1","__typename":"SupermetricsJob"}]}"#,
        ),
        (
            json!({ "hide": true, "ids": "none" }),
            r#"{"jobs":[{"__typename":"MindBridgeJob"}],"nodes":[null]}"#,
        ),
    ] {
        assert_eq!(same(&world, &call(query, variables), true).await, format!("{{\"data\":{expected}}}"));
    }
}

#[tokio::test(start_paused = true)]
async fn selected_operation_is_executed() {
    let world = World::new().await;
    let query = "query One { a: __typename } query Two($hide: Boolean!) { b: sources @skip(if: $hide) { __typename } }";
    for (operation, variables, expected) in [
        ("One", json!({}), r#"{"a":"Query"}"#),
        (
            "Two",
            json!({ "hide": false }),
            r#"{"b":[{"__typename":"Source"},{"__typename":"Source"},{"__typename":"Source"}]}"#,
        ),
        ("Two", json!({ "hide": true }), "{}"),
        ("One", json!({ "hide": true }), r#"{"a":"Query"}"#),
    ] {
        let call = GraphqlCall { operation: Some(operation.to_owned()), ..call(query, variables) };
        assert_eq!(same(&world, &call, true).await, format!("{{\"data\":{expected}}}"));
    }
    for operation in [None, Some("Three".to_owned())] {
        same(&world, &GraphqlCall { operation, ..call(query, json!({})) }, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sources_are_those_that_the_client_can_read() {
    let world = World::new().await;
    let all = "{ sources { name budget { perSecond } lastError { kind } } }";
    for (client, names) in [
        ("local", &["down", "metrics", "mind"][..]),
        ("mind-only", &["mind"]),
        ("kinds", &["down", "mind"]),
        ("neither", &[]),
    ] {
        let call = GraphqlCall { client, ..call(all, json!({})) };
        let body: Value = serde_json::from_str(&same(&world, &call, true).await).unwrap();
        let listed: Vec<&str> = body["data"]["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(listed, names, "{client}");
    }
}

#[tokio::test(start_paused = true)]
async fn answer_at_its_size_limit_is_the_same_as_from_the_engine() {
    let all = World::new().await;
    let query = "query($first: Int!) { jobList(first: $first) { nodes { id ... on MindBridgeJob { error errorMessage kind entity { id type } }
        ... on SupermetricsJob { query { accounts fields { name } } } } edges { cursor labels { name value } } } }";
    let whole = same(&all, &call(query, json!({ "first": 50 })), true).await.len();
    for max in [whole + 1, whole, whole - 1, whole - 200, whole / 2, 300, 20] {
        let world = World::with_memory(&AnswerMemory::new(max, 64 << 20)).await;
        let call = call(query, json!({ "first": 50 }));
        let expected = world.by_the_engine(&call).await;
        assert_eq!(expected.status.is_success(), max >= whole, "{max}: {expected:?}");
        for _ in 0..2 {
            assert_eq!(world.by_a_plan(&call).await.0, expected, "{max}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answer_beyond_the_memory_is_refused_as_by_the_engine() {
    let query = "{ jobList(first: 50) { nodes { ... on MindBridgeJob { error errorMessage } ... on SupermetricsJob { requestId } } } }";
    for max in [1_000, 20_000, 40_000, 64_000, 65_536, 66_000, 70_000, 131_072, 140_000, 1 << 20] {
        let world = World::with_memory(&AnswerMemory::new(1 << 20, max)).await;
        let call = call(query, json!({}));
        let expected = world.by_the_engine(&call).await;
        for _ in 0..2 {
            assert_eq!(world.by_a_plan(&call).await.0, expected, "{max}");
        }
    }
}

/// Equal requests are found without their document, whose cache has room for some hundred others.
#[tokio::test(start_paused = true)]
async fn document_that_only_equal_requests_use_stays_planned() {
    let world = World::new().await;
    let hot = call(&format!("{{ {JOB1} {{ __typename }} }}"), json!({}));
    same(&world, &hot, true).await;
    for other in 0..1_500 {
        let fields: Vec<_> = (0..60).map(|field| format!("a{other}x{field}: __typename")).collect();
        world.by_a_plan(&call(&format!("{{ {} }}", fields.join(" ")), json!({}))).await;
        // often enough to be in use throughout
        for _ in 0..2 {
            let (_, by_a_plan) = world.by_a_plan(&hot).await;
            assert!(by_a_plan, "{other}");
        }
    }
}

/// What is known of a source is kept for the next reference of a list.
#[tokio::test(start_paused = true)]
async fn each_reference_of_a_list_is_answered_as_on_its_own() {
    let world = World::new().await;
    let fields = "{ ... on Job { externalId source { name } state } ... on JobProblem { code } }";
    let refs = [("mind", "job1"), ("mind", "job2"), ("metrics", "job2"), ("gone", "job1")];
    let mut found = 0;
    for client in CLIENTS {
        let call = |query: &str, variables| GraphqlCall { client, ..call(query, variables) };
        let mut alone = Vec::new();
        for (source, id) in refs {
            let reference = json!({ "ref": { "external": { "source": source, "externalId": id } } });
            let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {fields} }}");
            let body = world.by_the_engine(&call(&query, reference.clone())).await.body;
            let value = body.strip_prefix(r#"{"data":{"job":"#).and_then(|rest| rest.strip_suffix("}}"));
            alone.push((reference["ref"].clone(), value.expect("a job or a problem").to_owned()));
        }
        found += alone.iter().filter(|(_, value)| value.contains("externalId")).count();
        for (first, second) in alone.iter().flat_map(|one| alone.iter().map(move |other| (one, other))) {
            let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs) {fields} }}");
            let call = call(&query, json!({ "refs": [first.0, second.0, first.0] }));
            let expected = format!(r#"{{"data":{{"jobs":[{0},{1},{0}]}}}}"#, first.1, second.1);
            assert_eq!(same(&world, &call, true).await, expected, "{client}");
        }
    }
    assert_eq!(found, 10, "the jobs that the clients may read");
}
