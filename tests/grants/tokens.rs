//! A watch token permits its jobs and nothing else, by any path of the schema.

use jobgate::config::ClientConfig;
use jobgate::domain::principal::{Principal, Scope};
use jobgate::domain::upstream::Upstream;
use jobgate::inbound::graphql::schema::{self, GatewaySchema};
use jobgate::outbound::identity::keys;
use serde_json::{Value, json};

use super::fixture::{MARK, World, key};
use super::*;

/// A client with the key `jg_` and its name.
pub(super) fn client(name: &str, sources: &[(&str, Scope)]) -> ClientConfig {
    ClientConfig {
        name: name.to_owned(),
        key_sha256: vec![keys::hash(&format!("jg_{name}"))],
        sources: sources.iter().map(|(source, scope)| (super::name(source), scope.clone())).collect(),
    }
}

pub(super) async fn execute(
    schema: &GatewaySchema,
    principal: &Principal,
    query: &str,
    variables: Value,
) -> Value {
    let variables = async_graphql::Variables::from_json(variables);
    let request = async_graphql::Request::new(query).variables(variables).data(principal.clone());
    serde_json::to_value(schema.execute(request).await).unwrap()
}

pub(super) const MAKE: &str = "mutation($refs: [JobRef!]!, $ttl: Duration!) {
    createWatchToken(input: { refs: $refs, ttl: $ttl }) { token expiresAt } }";

pub(super) fn external(source: &str, id: &str) -> Value {
    json!({ "external": { "source": source, "externalId": id } })
}

pub(super) const SOURCES: [(&str, Upstream); 3] =
    [("mind", Upstream::MindBridge), ("metrics", Upstream::Supermetrics), ("other", Upstream::MindBridge)];

/// A client that may read all of the three sources.
fn unrestricted(name: &str) -> ClientConfig {
    client(name, &SOURCES.map(|(source, _)| (source, Scope::default())))
}

/// The jobs `mine` and `theirs` of the sources, and a token for `mine` of two of them.
struct Issued {
    world: World,
    schema: GatewaySchema,
    refs: Value,
    token: String,
    holder: Principal,
}

async fn issued() -> Issued {
    let world = World::with_clients(&SOURCES, &[unrestricted("ui")]);
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
    Issued { world, schema, refs, token, holder }
}

fn all_calls(world: &World) -> usize {
    SOURCES.iter().map(|(source, _)| world.calls(source)).sum()
}

/// References, and whether the token is valid for each.
const REFS: [(&str, &str, bool); 7] = [
    ("mind", "mine", true),
    ("metrics", "mine", true),
    ("mind", "theirs", false),
    ("metrics", "theirs", false),
    ("other", "mine", false),
    ("mind", "missing", false),
    ("nowhere", "mine", false),
];

#[tokio::test(start_paused = true)]
async fn a_watch_token_reads_only_its_own_jobs_on_every_path() {
    let Issued { schema, holder, .. } = issued().await;
    let id = |source: &str, id: &str| key(source, id).node_id();
    let visible = "... on Job { source { name budget { perHour } } externalId nativeState } \
                ... on SupermetricsJob { rows(first: 5) { nodes { cells } } } ... on JobProblem { code message }";
    let on_node =
        "... on Job { externalId nativeState } ... on SupermetricsJob { rows(first: 5) { nodes { cells } } }";
    for (source, word, may) in REFS {
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
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_watches_only_its_own_jobs() {
    let Issued { world, holder, .. } = issued().await;
    for (source, word, may) in REFS {
        let watched: Vec<WatchUpdate> =
            world.jobs.watch(holder.clone(), vec![reference(source, word)], None).collect().await;
        assert_eq!(
            (watched.len(), watched[0].is_final, watched[0].answer.is_ok()),
            (1, true, may),
            "{source}/{word}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_fetches_no_other_job() {
    let Issued { world, holder, .. } = issued().await;
    let calls = all_calls(&world);
    for (source, word, may) in REFS {
        assert_eq!(sees(&world, &holder, source, word).await, may, "{source}/{word}");
        let refs = vec![reference(source, word)];
        world.jobs.watch(holder.clone(), refs, None).for_each(async |_| ()).await;
    }
    assert_eq!(all_calls(&world), calls, "its own jobs are cached");
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_lists_only_its_own_jobs() {
    let Issued { schema, holder, .. } = issued().await;
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
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_permits_no_mutation() {
    let Issued { schema, refs, holder, .. } = issued().await;
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
}

#[tokio::test(start_paused = true)]
async fn the_feed_of_a_watch_token_has_no_other_job() {
    let Issued { world, holder, .. } = issued().await;
    let mut feed = feed(&world.jobs, holder, JobListFilter::default());
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
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_is_limited_by_its_creators_current_grant() {
    let token = issued().await.token;
    let later = World::with_clients(&SOURCES, &[client("ui", &[("other", Scope::default())])]);
    let holder = later.jobs.authenticate(Some(&token.as_str().into())).unwrap();
    assert!(!sees(&later, &holder, "mind", "mine").await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_is_rejected_once_its_creator_is_removed() {
    let token = issued().await.token;
    let gone = World::with_clients(&SOURCES, &[unrestricted("other")]);
    assert!(gone.jobs.authenticate(Some(&token.as_str().into())).is_err());
}

/// A client that may read exports only, one export and one report.
struct Restricted {
    world: World,
    schema: GatewaySchema,
    maker: Principal,
}

fn restricted() -> Restricted {
    let world = World::with_clients(&SOURCES, &[client("ui", &[("mind", of_kinds(&["EXPORT"]))])]);
    world.put("mind", "export1", Some("EXPORT"));
    world.put("mind", "report1", Some("REPORT"));
    let schema = schema::build(world.jobs.clone(), true);
    let maker = world.jobs.authenticate(Some(&"jg_ui".into())).unwrap();
    Restricted { world, schema, maker }
}

impl Restricted {
    /// A token for both jobs with the default duration, and when it expires.
    async fn make(&self) -> (String, String) {
        let query =
            "mutation($refs: [JobRef!]!) { createWatchToken(input: { refs: $refs }) { token expiresAt } }";
        let refs = json!([external("mind", "export1"), external("mind", "report1")]);
        let made = execute(&self.schema, &self.maker, query, json!({ "refs": refs })).await;
        let made = &made["data"]["createWatchToken"];
        (made["token"].as_str().unwrap().to_owned(), made["expiresAt"].as_str().unwrap().to_owned())
    }
}

/// References, a duration, and the code of the error if they are rejected.
fn requests() -> Vec<(Value, &'static str, Option<&'static str>)> {
    let some =
        |count: usize| (0..count).map(|number| external("mind", &format!("j{number}"))).collect::<Value>();
    let one = json!([external("mind", "export1")]);
    vec![
        (one.clone(), "1h", None),
        (one.clone(), "1s", None),
        (some(50), "15m", None),
        (one.clone(), "0s", Some("BAD_USER_INPUT")),
        (one.clone(), "999ms", Some("BAD_USER_INPUT")),
        (one, "3601s", Some("BAD_USER_INPUT")),
        (some(51), "15m", Some("BAD_USER_INPUT")),
        (json!([]), "15m", Some("BAD_USER_INPUT")),
        (json!([external("mind", &"x".repeat(201))]), "15m", Some("INVALID_REF")),
        (json!([external("metrics", "a")]), "15m", Some("NOT_FOUND")),
        (json!([external("nowhere", "a")]), "15m", Some("NOT_FOUND")),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_is_created_only_for_valid_refs_and_a_ttl() {
    let Restricted { schema, maker, .. } = restricted();
    for (refs, ttl, code) in requests() {
        let answer = execute(&schema, &maker, MAKE, json!({ "refs": refs, "ttl": ttl })).await;
        let got = answer["errors"][0]["extensions"]["code"].as_str();
        assert_eq!(got, code, "{answer}");
        assert_eq!(answer["data"].is_null(), code.is_some(), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn creating_a_watch_token_makes_no_upstream_call() {
    let Restricted { world, schema, maker } = restricted();
    for (refs, ttl, _) in requests() {
        execute(&schema, &maker, MAKE, json!({ "refs": refs, "ttl": ttl })).await;
    }
    assert_eq!((world.calls("mind"), world.calls("metrics")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_reads_no_more_than_its_creator() {
    let restricted = restricted();
    let (token, _) = restricted.make().await;
    let holder = restricted.world.jobs.authenticate(Some(&token.as_str().into())).unwrap();
    assert!(sees(&restricted.world, &holder, "mind", "export1").await);
    assert!(!sees(&restricted.world, &holder, "mind", "report1").await);
}

#[tokio::test(start_paused = true)]
async fn a_watch_token_expires_after_fifteen_minutes_by_default() {
    let restricted = restricted();
    let (token, expires) = restricted.make().await;
    assert_eq!(expires, "1970-01-01T00:15:00Z");
    let jobs = &restricted.world.jobs;
    tokio::time::sleep(SECOND * (15 * 60 - 1)).await;
    assert!(jobs.authenticate(Some(&token.as_str().into())).is_ok());
    tokio::time::sleep(SECOND).await;
    assert!(jobs.authenticate(Some(&token.as_str().into())).is_err());
}
