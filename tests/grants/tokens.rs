//! A watch token permits its jobs and nothing else, by any path of the schema.

use jobgate::config::ClientConfig;
use jobgate::domain::principal::{Principal, Scope};
use jobgate::domain::source::Upstream;
use jobgate::inbound::graphql::schema::{self, GatewaySchema};
use jobgate::outbound::identity::keys;
use serde_json::{Value, json};

use super::fixture::{MARK, World, key, name};
use super::*;

/// A client that may read all of `mind` and of `metrics`.
fn client(name: &str, sources: &[(&str, Scope)]) -> ClientConfig {
    ClientConfig {
        name: name.to_owned(),
        key_sha256: vec![keys::hash(&format!("jg_{name}"))],
        sources: sources.iter().map(|(source, scope)| (super::name(source), scope.clone())).collect(),
    }
}

async fn execute(schema: &GatewaySchema, principal: &Principal, query: &str, variables: Value) -> Value {
    let variables = async_graphql::Variables::from_json(variables);
    let request = async_graphql::Request::new(query).variables(variables).data(principal.clone());
    serde_json::to_value(schema.execute(request).await).unwrap()
}

const MAKE: &str = "mutation($refs: [JobRef!]!, $ttl: Duration!) {
    createWatchToken(input: { refs: $refs, ttl: $ttl }) { token expiresAt } }";

fn external(source: &str, id: &str) -> Value {
    json!({ "external": { "source": source, "externalId": id } })
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_reads_only_its_own_jobs_on_every_path() {
    let sources = [
        ("mind", Upstream::MindBridge),
        ("metrics", Upstream::Supermetrics),
        ("other", Upstream::MindBridge),
    ];
    let granted = [("mind", Scope::default()), ("metrics", Scope::default()), ("other", Scope::default())];
    let world = World::with_clients(&sources, &[client("ui", &granted)]);
    for (source, id) in
        [("mind", "mine"), ("mind", "theirs"), ("metrics", "mine"), ("metrics", "theirs"), ("other", "mine")]
    {
        world.put(source, id, Some("EXPORT"));
        world.end(source, id);
    }
    world.lookup_all().await;
    let schema = schema::build(world.jobs.clone(), true);
    let maker = world.jobs.authenticate(Some(&"jg_ui".into())).unwrap();
    let refs = json!([external("mind", "mine"), external("metrics", "mine")]);
    let made = execute(&schema, &maker, MAKE, json!({ "refs": refs, "ttl": "15m" })).await;
    let token = made["data"]["createWatchToken"]["token"].as_str().unwrap().to_owned();
    let holder = world.jobs.authenticate(Some(&token.as_str().into())).unwrap();
    let mut feed = world.jobs.feed(holder.clone(), JobListFilter::default()).boxed();
    let calls = world.calls("mind") + world.calls("metrics") + world.calls("other");

    let id = |source: &str, id: &str| key(source, id).node_id();
    let visible = "... on Job { source { name budget { perHour } } externalId nativeState } \
                ... on SupermetricsJob { rows(first: 5) { nodes { cells } } } ... on JobProblem { code message }";
    let on_node =
        "... on Job { externalId nativeState } ... on SupermetricsJob { rows(first: 5) { nodes { cells } } }";
    for (source, word, may) in [
        ("mind", "mine", true),
        ("metrics", "mine", true),
        ("mind", "theirs", false),
        ("metrics", "theirs", false),
        ("other", "mine", false),
        ("mind", "missing", false),
        ("nowhere", "mine", false),
    ] {
        let (by_name, by_id) = (external(source, word), json!({ "id": id(source, word) }));
        let mut answers = Vec::new();
        for reference in [&by_name, &by_id] {
            for query in [
                format!("query($ref: JobRef!) {{ answer: job(ref: $ref) {{ {visible} }} }}"),
                format!(
                    "query($ref: JobRef!) {{ answer: job(ref: $ref, maxStaleness: \"0ms\") {{ {visible} }} }}"
                ),
                format!("query($ref: JobRef!) {{ answer: jobs(refs: [$ref]) {{ {visible} }} }}"),
                format!("query($ref: JobRef!) {{ answer: jobAwait(ref: $ref) {{ {visible} }} }}"),
            ] {
                answers.push(execute(&schema, &holder, &query, json!({ "ref": reference })).await);
            }
        }
        for query in [
            format!("query($id: ID!) {{ answer: node(id: $id) {{ {on_node} }} }}"),
            format!("query($id: ID!) {{ answer: nodes(ids: [$id]) {{ {on_node} }} }}"),
        ] {
            answers.push(execute(&schema, &holder, &query, json!({ "id": id(source, word) })).await);
        }
        for answer in answers {
            let text = answer.to_string();
            assert!(answer.get("errors").is_none(), "{text}");
            assert_eq!(text.contains(MARK), may, "{source}/{word}: {text}");
            assert!(!text.contains("perHour") || text.contains("\"budget\":null"), "{text}");
        }
        let watched: Vec<WatchUpdate> =
            world.jobs.watch(holder.clone(), vec![reference(source, word)], None).collect().await;
        assert_eq!(
            (watched.len(), watched[0].is_final, watched[0].answer.is_ok()),
            (1, true, may),
            "{source}/{word}"
        );
    }
    assert_eq!(
        world.calls("mind") + world.calls("metrics") + world.calls("other"),
        calls,
        "no other job is fetched"
    );

    let listed = execute(&schema, &holder, "{ jobList(first: 100) { nodes { externalId source { name } } pageInfo { hasNextPage } } sources { name budget { inFlight } } }", json!({})).await;
    assert_eq!(
        listed["data"],
        json!({
            "jobList": {
                "nodes": [
                    { "externalId": "mine", "source": { "name": "metrics" } },
                    { "externalId": "mine", "source": { "name": "mind" } },
                ],
                "pageInfo": { "hasNextPage": false },
            },
            "sources": [{ "name": "metrics", "budget": null }, { "name": "mind", "budget": null }],
        })
    );
    for (mutation, variables) in [
        (MAKE, json!({ "refs": refs, "ttl": "1m" })),
        (
            "mutation($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) { results { __typename } } }",
            json!({ "refs": refs }),
        ),
        (
            "mutation($refs: [JobRef!]!) { untrackJobs(input: { refs: $refs }) { untracked } }",
            json!({ "refs": refs }),
        ),
    ] {
        let refused = execute(&schema, &holder, mutation, variables).await;
        assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN", "{refused}");
    }
    for (source, id) in [("mind", "mine"), ("mind", "theirs"), ("other", "mine"), ("metrics", "mine")] {
        world.change(source, id);
    }
    tokio::time::sleep(SECOND * 10).await;
    // a completed job is fetched again only where an id can run twice, and after a while
    world.put("mind", "mine", Some("EXPORT"));
    for source in ["mind", "metrics", "other"] {
        world.put(source, "new", None);
    }
    world.lookup_all().await;
    assert!(tokio::time::timeout(SECOND, feed.next()).await.is_err(), "no other job is in the feed");
    let clients = [client("ui", &[("other", Scope::default())])];
    let later = World::with_clients(&sources, &clients);
    let holder = later.jobs.authenticate(Some(&token.as_str().into())).unwrap();
    assert!(!sees(&later, &holder, "mind", "mine").await, "its creator may not read that any more");
    let gone = World::with_clients(&sources, &[client("other", &granted)]);
    assert!(gone.jobs.authenticate(Some(&token.as_str().into())).is_err(), "its creator was removed");
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_is_limited_by_its_creators_grant_and_ttl() {
    let sources = [("mind", Upstream::MindBridge), ("metrics", Upstream::Supermetrics)];
    let clients = [client("ui", &[("mind", of_kinds(&["EXPORT"]))])];
    let world = World::with_clients(&sources, &clients);
    world.put("mind", "export1", Some("EXPORT"));
    world.put("mind", "report1", Some("REPORT"));
    let schema = schema::build(world.jobs.clone(), true);
    let maker = world.jobs.authenticate(Some(&"jg_ui".into())).unwrap();
    let some =
        |count: usize| (0..count).map(|number| external("mind", &format!("j{number}"))).collect::<Value>();
    let one = json!([external("mind", "export1")]);
    for (refs, ttl, code) in [
        (one.clone(), "1h", None),
        (one.clone(), "1s", None),
        (some(50), "15m", None),
        (one.clone(), "0s", Some("BAD_USER_INPUT")),
        (one.clone(), "999ms", Some("BAD_USER_INPUT")),
        (one.clone(), "3601s", Some("BAD_USER_INPUT")),
        (some(51), "15m", Some("BAD_USER_INPUT")),
        (json!([]), "15m", Some("BAD_USER_INPUT")),
        (json!([external("mind", &"x".repeat(201))]), "15m", Some("INVALID_REF")),
        (json!([external("metrics", "a")]), "15m", Some("NOT_FOUND")),
        (json!([external("nowhere", "a")]), "15m", Some("NOT_FOUND")),
    ] {
        let answer = execute(&schema, &maker, MAKE, json!({ "refs": refs, "ttl": ttl })).await;
        let got = answer["errors"][0]["extensions"]["code"].as_str();
        assert_eq!(got, code, "{answer}");
        assert_eq!(answer["data"].is_null(), code.is_some(), "{answer}");
    }
    assert_eq!(world.calls("mind"), 0, "creating one makes no upstream call");
    let made = execute(
        &schema,
        &maker,
        "mutation($refs: [JobRef!]!) { createWatchToken(input: { refs: $refs }) { token expiresAt } }",
        json!({ "refs": [external("mind", "export1"), external("mind", "report1")] }),
    )
    .await;
    let made = &made["data"]["createWatchToken"];
    assert_eq!(made["expiresAt"], "1970-01-01T00:15:00Z");
    let token = made["token"].as_str().unwrap();
    let holder = world.jobs.authenticate(Some(&token.into())).unwrap();
    assert!(sees(&world, &holder, "mind", "export1").await);
    assert!(!sees(&world, &holder, "mind", "report1").await, "it may not read more than its creator");
    tokio::time::sleep(SECOND * 15 * 60).await;
    assert!(world.jobs.authenticate(Some(&token.into())).is_err(), "it has expired");
    assert_eq!(name("mind").as_str(), "mind");
}
