//! Twenty clients, twenty sources, and every field and path: each answer is compared with an independent model of the
//! client's grant, and the answer for a forbidden job with the answer for one that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use jobgate::config::ClientConfig;
use jobgate::domain::principal::{Principal, Scope};
use jobgate::domain::upstream::Upstream;
use jobgate::inbound::answer_limits::answer_memory::AnswerMemory;
use jobgate::inbound::client_limits::ClientLimits;
use jobgate::inbound::graphql::schema::{self, GatewaySchema};
use jobgate::inbound::rest;
use jobgate::jobs::visibility::WrittenRef;
use jobgate::outbound::identity::keys;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::fixture::{MARK, World, key, labels, mark, name};
use super::*;

const COUNT: usize = 20;
const KINDS: [&str; 3] = ["EXPORT", "REPORT", "INGESTION"];
const TEAMS: [&str; 3] = ["blue", "red", "green"];
/// Jobs of each source; as many more are missing.
const JOBS: usize = 8;

/// The kinds and the team to which a client is restricted.
type Restrictions = (Option<Vec<&'static str>>, Option<&'static str>);

/// A grant in the model: a source that is not in it is not granted.
type Model = BTreeMap<String, Restrictions>;

/// The kind of a job and its team.
type Facts = (Option<&'static str>, Option<&'static str>);

/// The state of the model.
struct Truth {
    world: World,
    schema: GatewaySchema,
    /// Each job with its kind and its team.
    jobs: BTreeMap<(String, String), Facts>,
    clients: Vec<(Principal, String, Model)>,
    /// Every reference that is tried.
    refs: Vec<(String, String)>,
    checked: usize,
}

fn source(number: usize) -> (String, Upstream) {
    let upstream = if number.is_multiple_of(2) { Upstream::MindBridge } else { Upstream::Supermetrics };
    (format!("s{number:02}"), upstream)
}

impl Truth {
    async fn new(seed: u64) -> Self {
        let mut dice = fastrand::Rng::with_seed(seed);
        let sources: Vec<(String, Upstream)> = (0..COUNT).map(source).collect();
        let mut models: Vec<Model> = Vec::new();
        for _ in 0..COUNT {
            let mut model = Model::new();
            for (source, upstream) in &sources {
                if dice.bool() {
                    continue;
                }
                let kinds = (*upstream == Upstream::MindBridge && dice.bool())
                    .then(|| dice.choose_multiple(KINDS, dice.clone().usize(1..3)));
                let team = (dice.u8(..4) == 0).then(|| TEAMS[dice.usize(..TEAMS.len())]);
                model.insert(source.clone(), (kinds, team));
            }
            if model.is_empty() {
                model.insert(sources[0].0.clone(), (None, None));
            }
            models.push(model);
        }
        let scope = |(kinds, team): &Restrictions| Scope {
            kinds: kinds.iter().flatten().map(|kind| (*kind).to_owned()).collect(),
            labels: team.iter().map(|team| ("team".to_owned(), (*team).to_owned())).collect(),
        };
        let config = |(number, model): (usize, &Model)| ClientConfig {
            name: format!("c{number}"),
            key_sha256: vec![keys::hash(&format!("jg_c{number}"))],
            sources: model.iter().map(|(source, narrowed)| (name(source), scope(narrowed))).collect(),
        };
        let clients: Vec<ClientConfig> = models.iter().enumerate().map(config).collect();
        let named: Vec<(&str, Upstream)> =
            sources.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
        let world = World::with_clients(&named, &clients);
        let (mut jobs, mut refs) = (BTreeMap::new(), Vec::new());
        for (source, upstream) in &sources {
            for number in 0..JOBS {
                let id = format!("job{number}");
                let kind = (*upstream == Upstream::MindBridge && dice.u8(..5) > 0)
                    .then(|| KINDS[dice.usize(..KINDS.len())]);
                let team = dice.bool().then(|| TEAMS[dice.usize(..TEAMS.len())]);
                world.put(source, &id, kind);
                if dice.bool() {
                    world.end(source, &id);
                }
                if let Some(team) = team {
                    let refs = [reference(source, &id)];
                    world.jobs.track(&Principal::local(), &refs, &labels(&[("team", team)])).await.unwrap();
                }
                jobs.insert((source.clone(), id.clone()), (kind, team));
                refs.push((source.clone(), id));
            }
            refs.extend((0..2).map(|number| (source.clone(), format!("gone{number}"))));
        }
        refs.push(("nowhere".to_owned(), "job0".to_owned()));
        // half of them are cached, the others are to be fetched
        for (source, id) in jobs.keys().filter(|_| dice.bool()) {
            world.jobs.lookup_one(&Principal::local(), reference(source, id), None).await.unwrap();
        }
        let known = |number: usize, model: Model| {
            let key = format!("jg_c{number}");
            (world.jobs.authenticate(Some(&key.as_str().into())).unwrap(), key, model)
        };
        let clients = models.into_iter().enumerate().map(|(number, model)| known(number, model)).collect();
        let schema = schema::build(world.jobs.clone(), true);
        Self { world, schema, jobs, clients, refs, checked: 0 }
    }

    /// Whether a client may read a job, by the model.
    fn may_see(&self, model: &Model, source: &str, id: &str) -> bool {
        let Some((kind, team)) = self.jobs.get(&(source.to_owned(), id.to_owned())) else { return false };
        model.get(source).is_some_and(|(kinds, held_to)| {
            kinds.as_ref().is_none_or(|kinds| kind.is_some_and(|kind| kinds.contains(&kind)))
                && held_to.is_none_or(|held_to| *team == Some(held_to))
        })
    }

    /// Compares one answer with the model: the job and nothing of another, or the one answer for a missing job.
    fn check(&mut self, model: &Model, source: &str, id: &str, answer: &Value, absent: &Value, path: &str) {
        let (text, mark) = (answer.to_string(), mark(source, id));
        if self.may_see(model, source, id) {
            assert!(text.contains(&mark), "{path} {source}/{id}: {text}");
        } else {
            let mut answer = answer.clone();
            // retryable after a pause if the last fetch was recent, for any job
            if answer["retryable"] == true && answer["retryAfterMs"] == 5_000 {
                answer["retryable"] = false.into();
                answer["retryAfterMs"] = Value::Null;
            }
            assert_eq!(answer, *absent, "{path} {source}/{id}");
        }
        assert_eq!(text.matches(MARK).count(), text.matches(&mark).count(), "{path} {source}/{id}: {text}");
        self.checked += 1;
    }

    async fn execute(&self, principal: &Principal, query: &str, variables: Value) -> Value {
        let variables = async_graphql::Variables::from_json(variables);
        let request = async_graphql::Request::new(query).variables(variables).data(principal.clone());
        let answer = serde_json::to_value(self.schema.execute(request).await).unwrap();
        assert!(answer.get("errors").is_none(), "{answer}");
        answer["data"].clone()
    }

    /// Every field that takes references, by name and by id.
    async fn references(&mut self) {
        let visible = "... on Job { externalId nativeState source { name } } ... on JobProblem { ref { id source externalId } code message retryable retryAfterMs }
            ... on SupermetricsJob { rows(first: 2) { nodes { cells } problem { code } } }";
        let on_node = "... on Job { externalId nativeState } ... on SupermetricsJob { rows(first: 2) { nodes { cells } } }";
        let refs = self.refs.clone();
        for (number, (principal, _, model)) in self.clients.clone().into_iter().enumerate() {
            for chunk in refs.chunks(200) {
                let by_name: Vec<Value> = chunk
                    .iter()
                    .map(|(source, id)| json!({ "external": { "source": source, "externalId": id } }))
                    .collect();
                let ids: Vec<String> = chunk.iter().map(|(source, id)| key(source, id).node_id()).collect();
                let by_id: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
                for (refs, named) in [(&by_name, true), (&by_id, false)] {
                    let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs) {{ {visible} }} }}");
                    let answers = self.execute(&principal, &query, json!({ "refs": refs })).await;
                    for ((source, id), answer) in chunk.iter().zip(answers["jobs"].as_array().unwrap()) {
                        let absent = absent(source, id, named);
                        self.check(&model, source, id, answer, &absent, "jobs");
                    }
                }
                let nodes = self
                    .execute(
                        &principal,
                        &format!("query($ids: [ID!]!) {{ nodes(ids: $ids) {{ {on_node} }} }}"),
                        json!({ "ids": ids }),
                    )
                    .await;
                for ((source, id), answer) in chunk.iter().zip(nodes["nodes"].as_array().unwrap()) {
                    self.check(&model, source, id, answer, &Value::Null, "nodes");
                }
                let single = format!(
                    "query($ref: JobRef!, $id: ID!) {{ job(ref: $ref) {{ {visible} }} jobAwait(ref: $ref, timeout: \"200ms\") {{ {visible} }} node(id: $id) {{ {on_node} }} }}"
                );
                // each needs its own document, so each client tries another part of them
                let some = chunk.iter().zip(&by_name).zip(&ids).skip(number).step_by(COUNT);
                for (((source, id), reference), node) in some {
                    let answer =
                        self.execute(&principal, &single, json!({ "ref": reference, "id": node })).await;
                    let absent = absent(source, id, true);
                    self.check(&model, source, id, &answer["job"], &absent, "job");
                    self.check(&model, source, id, &answer["node"], &Value::Null, "node");
                    self.check(&model, source, id, &answer["jobAwait"], &absent, "jobAwait");
                }
            }
        }
    }

    /// Each client reads its own grants, and of each job the one that shows it.
    async fn viewers(&mut self) {
        let query = "query($refs: [JobRef!]!) { viewer { name grants { ...G } } jobs(refs: $refs) { ... on Job { viewerGrant { ...G } } } }
            fragment G on ViewerGrant { source kinds labels { name value } jobIds }";
        let refs = self.refs.clone();
        for (number, (principal, _, model)) in self.clients.clone().into_iter().enumerate() {
            let grants: Vec<Value> = model.iter().map(|(source, scope)| granted(source, scope)).collect();
            let viewer = json!({ "name": format!("c{number}"), "grants": grants });
            for chunk in refs.chunks(200) {
                let by_name: Vec<Value> = chunk
                    .iter()
                    .map(|(source, id)| json!({ "external": { "source": source, "externalId": id } }))
                    .collect();
                let answer = self.execute(&principal, query, json!({ "refs": by_name })).await;
                assert_eq!(answer["viewer"], viewer);
                for ((source, id), job) in chunk.iter().zip(answer["jobs"].as_array().unwrap()) {
                    let shows = self.may_see(&model, source, id);
                    let expected = if shows { granted(source, &model[source]) } else { Value::Null };
                    assert_eq!(job["viewerGrant"], expected, "{source}/{id}");
                    self.checked += 1;
                }
            }
        }
    }

    /// The snapshots of a subscription.
    async fn watched(&mut self) {
        for (principal, _, model) in self.clients.clone() {
            for chunk in self.refs.clone().chunks(200) {
                let refs = chunk.iter().map(|(source, id)| reference(source, id)).collect();
                let updates = self.world.jobs.watch(principal.clone(), refs, None).take(chunk.len());
                for update in updates.collect::<Vec<_>>().await {
                    assert_eq!(update.kind, UpdateKind::Snapshot);
                    let named = match update.reference.written() {
                        WrittenRef::External { source, external_id } => Some((source, external_id)),
                        WrittenRef::Id(_) => None,
                    };
                    let (source, id) = named.unwrap();
                    let visible = match &update.answer {
                        Ok(seen) => json!(seen.observation.job.native_state),
                        Err(problem) => json!(problem.message),
                    };
                    let absent = absent(source, id, true)["message"].clone();
                    self.check(&model, source, id, &visible, &absent, "jobUpdates");
                }
            }
        }
    }

    /// The REST handler.
    async fn rest(&mut self) {
        let router_under_test =
            rest::router(self.world.jobs.clone(), ClientLimits::default(), AnswerMemory::default());
        for (_, secret, model) in self.clients.clone() {
            for (source, id) in self.refs.clone() {
                let request = http::Request::get(format!("/v1/jobs/{source}/{id}"));
                let request = request.header("authorization", format!("Bearer {secret}")).body(Body::empty());
                let reply = router_under_test.clone().oneshot(request.unwrap()).await.unwrap();
                let body = reply.into_body().collect().await.unwrap().to_bytes();
                let message = absent(&source, &id, true)["message"].clone();
                let absent = json!({ "type": "about:blank", "status": 404, "title": "Not Found", "code": "NOT_FOUND", "detail": message });
                self.check(&model, &source, &id, &serde_json::from_slice(&body).unwrap(), &absent, "rest");
            }
        }
    }

    /// Lists: every cached job that may be read, in order, for any page size; and the sources.
    async fn lists(&mut self) {
        self.world.lookup_all().await;
        let query = "query($first: Int!, $after: String) { sources { name } jobList(first: $first, after: $after) {
            edges { cursor labels { value } node { externalId nativeState source { name } } } pageInfo { hasNextPage endCursor } } }";
        for (principal, _, model) in self.clients.clone() {
            let expected: Vec<(String, String)> =
                self.jobs.keys().filter(|(source, id)| self.may_see(&model, source, id)).cloned().collect();
            for first in [13, 100] {
                let (mut listed, mut after) = (Vec::new(), Value::Null);
                loop {
                    let page =
                        self.execute(&principal, query, json!({ "first": first, "after": after })).await;
                    let sources: Vec<&str> = page["sources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .filter_map(|one| one["name"].as_str())
                        .collect();
                    assert_eq!(sources, model.keys().map(String::as_str).collect::<Vec<_>>());
                    let page = &page["jobList"];
                    let edges = page["edges"].as_array().unwrap();
                    for edge in edges {
                        let [source, id] = [&edge["node"]["source"]["name"], &edge["node"]["externalId"]]
                            .map(|text| text.as_str().unwrap().to_owned());
                        self.check(&model, &source, &id, edge, &Value::Null, "jobList");
                        listed.push((source, id));
                    }
                    let more = page["pageInfo"]["hasNextPage"].as_bool().unwrap();
                    assert_eq!(more, listed.len() < expected.len(), "the page info reveals no forbidden job");
                    assert!(!more || edges.len() == first);
                    after = page["pageInfo"]["endCursor"].clone();
                    if !more {
                        break;
                    }
                }
                assert_eq!(listed, expected, "{model:?}");
            }
        }
    }

    /// The feed: every change of a job that may be read, once.
    async fn fed(&mut self) {
        let mut feeds: Vec<_> = self
            .clients
            .iter()
            .map(|(principal, _, model)| {
                (feed(&self.world.jobs, principal.clone(), JobListFilter::default()), model.clone())
            })
            .collect();
        let jobs: Vec<(String, String)> = self.jobs.keys().cloned().collect();
        let running: Vec<_> =
            jobs.into_iter().filter(|(source, id)| self.world.is_running(source, id)).collect();
        for (source, id) in &running {
            self.world.change(source, id);
        }
        self.world.lookup_all().await;
        for (feed, model) in &mut feeds {
            let mut visible = BTreeSet::new();
            while let Some(Some(update)) = feed.next().now_or_never() {
                let seen = update.answer.unwrap();
                let job = &seen.observation.job;
                let (source, id) = (job.key.source.to_string(), job.key.external_id.to_string());
                assert_eq!(update.sequence, visible.len() as u64 + 1, "without a gap");
                self.check(model, &source, &id, &json!(job.native_state), &Value::Null, "jobFeed");
                visible.insert((source, id));
            }
            let expected = running.iter().filter(|(source, id)| self.may_see(model, source, id)).cloned();
            assert_eq!(visible, expected.collect());
        }
    }

    /// A client that cannot read a job can neither track nor untrack it, nor find it by a label.
    async fn changes(&mut self) {
        let before: Vec<_> =
            self.jobs.keys().map(|(source, id)| self.world.jobs.labels(&key(source, id))).collect();
        let track = "mutation($refs: [JobRef!]!, $team: String!) { trackJobs(input: { refs: $refs, labels: [{ name: \"team\", value: $team }] }) {
            results { ... on Job { nativeState } ... on JobProblem { ref { id source externalId } code message retryable retryAfterMs } } } untrackJobs(input: { refs: $refs }) { untracked } }";
        for (principal, _, model) in self.clients.clone() {
            let out: Vec<_> =
                self.refs.iter().filter(|(source, id)| !self.may_see(&model, source, id)).cloned().collect();
            // missing jobs of a fully granted source may be tracked, and are untracked again
            let out: Vec<_> = out
                .into_iter()
                .filter(|(source, id)| {
                    self.jobs.contains_key(&(source.clone(), id.clone())) || !model.contains_key(source)
                })
                .collect();
            for chunk in out.chunks(200) {
                let refs: Vec<Value> = chunk
                    .iter()
                    .map(|(source, id)| json!({ "external": { "source": source, "externalId": id } }))
                    .collect();
                let answer = self
                    .execute(&principal, track, json!({ "refs": refs, "team": TEAMS[chunk.len() % 3] }))
                    .await;
                assert_eq!(answer["untrackJobs"]["untracked"], 0);
                for ((source, id), answer) in
                    chunk.iter().zip(answer["trackJobs"]["results"].as_array().unwrap())
                {
                    let absent = absent(source, id, true);
                    self.check(&model, source, id, answer, &absent, "trackJobs");
                }
            }
        }
        let after: Vec<_> =
            self.jobs.keys().map(|(source, id)| self.world.jobs.labels(&key(source, id))).collect();
        assert_eq!(before, after);
    }
}

/// The grant of a source, as its client reads it.
fn granted(source: &str, (kinds, team): &Restrictions) -> Value {
    let kinds: Option<BTreeSet<&str>> = kinds.as_ref().map(|kinds| kinds.iter().copied().collect());
    let labels = team.map(|team| json!([{ "name": "team", "value": team }]));
    json!({ "source": source, "kinds": kinds, "labels": labels, "jobIds": null })
}

/// The one answer for a missing job.
fn absent(source: &str, id: &str, named: bool) -> Value {
    let (node, source_named, id_named) =
        if named { (None, Some(source), Some(id)) } else { (Some(key(source, id).node_id()), None, None) };
    json!({
        "ref": { "id": node, "source": source_named, "externalId": id_named },
        "code": "NOT_FOUND",
        "message": format!("job \"{id}\" of source \"{source}\" does not exist, or this client is not allowed to read it"),
        "retryable": false,
        "retryAfterMs": null,
    })
}

#[tokio::test(start_paused = true)]
async fn random_grants_leak_nothing_in_a_hundred_thousand_answers() {
    let mut checked = 0;
    for seed in [1, 2, 3, 4] {
        let mut truth = Truth::new(seed).await;
        truth.references().await;
        truth.viewers().await;
        truth.watched().await;
        truth.rest().await;
        truth.changes().await;
        truth.lists().await;
        truth.fed().await;
        checked += truth.checked;
    }
    assert!(checked >= 100_000, "{checked} answers");
}
