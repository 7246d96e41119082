//! One gateway with an endpoint without plans and one with them, and jobs with every detail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use fastrand::Rng;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use jobgate::domain::details::{
    Details, EntityRef, LicenceQueue, MindBridgeDetails, QueryField, QueryMeta, QueryResult,
    SupermetricsDetails, UserInfo,
};
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::domain::job::{Failure, Job, Life, Progress};
use jobgate::domain::json_text::JsonText;
use jobgate::domain::principal::{CredentialInfo, CredentialKind, Grant, Principal, Scope};
use jobgate::domain::upstream::Upstream;
use jobgate::inbound::answer_limits::answer_memory::AnswerMemory;
use jobgate::inbound::graphql::document::admission::Admission;
use jobgate::inbound::graphql::execution::endpoint::GraphqlEndpoint;
use jobgate::inbound::router::PublicRoutes;
use jobgate::outbound::stores::memory::{MemoryStore, NoLedger};
use jobgate::ports::identity::{AuthError, Identity, WatchToken, WatchTokenError};
use jobgate::ports::upstream::{Detail, FetchError};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tower::ServiceExt as _;

use super::values::References;
use crate::support::ports::{FOLLOW, RuntimeClock, ScriptedReader, gateway_with, reference, retention};
use crate::support::public_listener::public_admitting;

/// The sources that are configured. Nothing can be fetched from `down`.
const SOURCES: [(&str, Upstream); 3] =
    [("mind", Upstream::MindBridge), ("metrics", Upstream::Supermetrics), ("down", Upstream::MindBridge)];
/// The jobs of each source with every detail.
const JOBS: usize = 16;

/// Texts that need care: quotes, escapes, control and other characters.
const TEXTS: [&str; 10] = [
    "",
    "plain",
    "\"quoted\" \\ /",
    "line\nbreak\ttab\r",
    "\u{0}\u{1}\u{7}\u{8}\u{c}\u{1f}\u{7f}\u{80}",
    "\u{2028}\u{2029}\u{feff}",
    "zażółć 日本 🦀",
    "</script><!--",
    "{\"data\":null}",
    "\u{fffd}\u{e000}\u{10ffff}",
];
const NUMBERS: [i64; 6] = [0, -1, 9_007_199_254_740_993, i64::MAX, i64::MIN, 42];
const FLOATS: [f64; 12] = [
    0.0,
    -0.0,
    1.0,
    0.1,
    1e21,
    1e16,
    5e-324,
    f64::MAX,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    123_456.789,
];
const JSON: [&str; 9] = [
    "null",
    "1.10",
    "\"\\u0000\\/\"",
    "{\"a\":null,\"a\":1}",
    "[[],{}]",
    "123456789012345678901234567890",
    "{\"$serde_json::private::RawValue\":\"1\"}",
    "true",
    "-0",
];

/// The gateway.
pub(super) struct World {
    engine: PublicRoutes,
    planned: PublicRoutes,
    endpoint: GraphqlEndpoint,
    pub(super) references: References,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct GraphqlCall {
    pub(super) client: &'static str,
    pub(super) query: String,
    pub(super) operation: Option<String>,
    pub(super) variables: Value,
    /// Whether the media type of the answer is the one of GraphQL over HTTP.
    pub(super) graphql_media: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: BTreeMap<String, String>,
    pub(super) body: String,
}

/// The clients, each with its name as its token.
struct TestClients(BTreeMap<String, Principal>);

/// The names of the clients.
pub(super) const CLIENTS: [&str; 6] = ["local", "mind-only", "kinds", "labels", "neither", "token"];

impl World {
    /// Each job was fetched once. What is fetched from now on for a job named `stale` fails.
    pub(super) async fn new() -> Self {
        Self::with_memory(&AnswerMemory::default()).await
    }

    /// The same, with a limit of the memory of answers.
    pub(super) async fn with_memory(memory: &AnswerMemory) -> Self {
        let clock = Arc::new(RuntimeClock::default());
        let down = ScriptedReader::new("down", Upstream::MindBridge, clock.clone());
        let extra = Arc::clone(&down);
        let store = Arc::new(MemoryStore::new(retention()));
        let gateway = gateway_with(FOLLOW, clock, store, Arc::new(NoLedger), |mut ports| {
            ports.readers.push(extra);
            ports.identity = Arc::new(TestClients::new());
            ports
        });
        let is_warm = Arc::new(AtomicBool::new(false));
        for (reader, (source, upstream)) in
            [&gateway.mindbridge, &gateway.supermetrics, &down].into_iter().zip(SOURCES)
        {
            reader.takes(Duration::ZERO);
            let is_warm = Arc::clone(&is_warm);
            reader.respond_with_job(move |id| fetch(source, upstream, id, is_warm.load(Ordering::Relaxed)));
        }
        let jobs = gateway.jobs;
        let known = known();
        for (index, (source, id)) in known.iter().enumerate() {
            let refs = [reference(source, id)];
            match index % 3 {
                0 => drop(jobs.lookup(&Principal::local(), &refs, None).await),
                odd => {
                    let team = if odd == 1 { "blue" } else { "red" };
                    let labels = [("team", team), ("tier", "\u{e9}\"\\")];
                    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
                    jobs.track(&Principal::local(), &refs, &labels.into()).await.unwrap();
                }
            }
        }
        is_warm.store(true, Ordering::Relaxed);
        let admission = |plans| Admission { plans, memory: memory.clone(), ..Admission::default() };
        let (engine, _, _) = public_admitting(&jobs, admission(None));
        let (planned, _, endpoint) = public_admitting(&jobs, admission(Some(jobs.clone())));
        Self { engine, planned, endpoint, references: references(&known) }
    }

    /// The answer of the engine.
    pub(super) async fn by_the_engine(&self, call: &GraphqlCall) -> Answer {
        answer(&self.engine, call).await
    }

    /// The answer of the endpoint with plans, and whether a plan executed the operation.
    pub(super) async fn by_a_plan(&self, call: &GraphqlCall) -> (Answer, bool) {
        let before = self.endpoint.planned();
        let answer = answer(&self.planned, call).await;
        (answer, self.endpoint.planned() > before)
    }
}

async fn answer(router: &PublicRoutes, call: &GraphqlCall) -> Answer {
    let mut body = serde_json::json!({ "query": call.query, "variables": call.variables });
    if let Some(operation) = &call.operation {
        body["operationName"] = operation.as_str().into();
    }
    let accept = if call.graphql_media { "application/graphql-response+json" } else { "application/json" };
    let request = Request::post("/graphql")
        .header("content-type", "application/json")
        .header("accept", accept)
        .header("authorization", format!("Bearer {}", call.client))
        .header("x-request-id", "one")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), texts(response.headers()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: in_order(String::from_utf8(body.to_vec()).unwrap()) }
}

/// A body with its errors in order, if it has no data: of a document with several operations, the engine lists the faults
/// in the order of a hash map, another one each time.
fn in_order(body: String) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(&body) else { return body };
    match value.get_mut("errors").and_then(Value::as_array_mut) {
        Some(errors) if !body.contains("\"data\":") => errors.sort_by_cached_key(Value::to_string),
        Some(_) | None => return body,
    }
    value.to_string()
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect()
}

/// The jobs that are fetched at the start.
fn known() -> Vec<(&'static str, String)> {
    let mut known = Vec::new();
    for (source, _) in &SOURCES[..2] {
        known.extend((0..JOBS).map(|index| (*source, format!("job{index}"))));
        known.extend(FAILURES.map(|(failure, _)| (*source, format!("stale-{failure}"))));
    }
    known
}

fn references(known: &[(&'static str, String)]) -> References {
    let mut external: Vec<(String, String)> = Vec::new();
    // most references are of known jobs
    for (source, id) in known.iter().chain(known) {
        external.push(((*source).to_owned(), id.clone()));
    }
    for (source, _) in SOURCES {
        for id in ["absent", "slow", "paused", "rejected", "unreadable"] {
            external.push((source.to_owned(), id.to_owned()));
        }
    }
    let mut node_ids: Vec<String> = external.iter().map(|(source, id)| key(source, id).node_id()).collect();
    for (source, id) in [("nowhere", "job1"), ("", ""), ("mind", ".."), ("mind", "query"), ("metrics", "a.b")]
    {
        external.push((source.to_owned(), id.to_owned()));
    }
    external.push(("mind\"\u{e9}\n".to_owned(), "\\\u{1}🦀".to_owned()));
    external.push(("mind".to_owned(), "x".repeat(201)));
    node_ids.push(key("nowhere", "job1").node_id());
    node_ids.extend(["", "no id", "\"\\\n\u{1}é", "7"].map(ToOwned::to_owned));
    References { external, node_ids }
}

/// The node id of a job.
pub(super) fn node_id(source: &str, id: &str) -> String {
    key(source, id).node_id()
}

fn key(source: &str, id: &str) -> JobKey {
    JobKey { source: SourceName::parse(source).unwrap(), external_id: ExternalId::parse(id).unwrap() }
}

type Fail = fn() -> FetchError;

/// The names of jobs whose fetches fail, and how.
const FAILURES: [(&str, Fail); 6] = [
    ("down", || FetchError::Unavailable(Detail::new("status 503"))),
    ("slow", || FetchError::TimedOut),
    ("paused", || FetchError::Throttled { retry_after: Duration::from_millis(37_500) }),
    ("rejected", || FetchError::CredentialRejected),
    ("unreadable", || FetchError::BadAnswer(Detail::new("not JSON"))),
    ("unset", || FetchError::Unconfigured),
];

fn fetch(source: &str, upstream: Upstream, id: &ExternalId, is_warm: bool) -> Result<Job, FetchError> {
    let name = id.as_str();
    if name == "absent" {
        return Err(FetchError::NotFound);
    }
    let failing = name.strip_prefix("stale-").map_or(name, |failure| if is_warm { failure } else { "" });
    if let Some((_, fail)) = FAILURES.iter().find(|(failure, _)| *failure == failing) {
        return Err(fail());
    }
    if source == "down" {
        return Err(FetchError::Unavailable(Detail::new("connection refused")));
    }
    Ok(job(source, upstream, id))
}

/// A job whose details follow from its id.
fn job(source: &str, upstream: Upstream, id: &ExternalId) -> Job {
    let mut hasher = DefaultHasher::new();
    (source, id.as_str()).hash(&mut hasher);
    let mut rng = Rng::with_seed(hasher.finish());
    let rng = &mut rng;
    let life = match id.as_str().strip_prefix("job").map(|index| index.parse::<usize>().unwrap() % 8) {
        Some(0) => Life::Queued,
        Some(1) => Life::Succeeded,
        Some(2) => Life::Failed(Failure { code: text(rng), message: text(rng) }),
        Some(3) => Life::Canceled,
        Some(4) => Life::Expired,
        Some(5) => Life::Unknown,
        Some(6) => Life::Failed(Failure::default()),
        _ => Life::Running,
    };
    let details = match upstream {
        Upstream::MindBridge => Details::MindBridge(Box::new(mindbridge(rng))),
        Upstream::Supermetrics => Details::Supermetrics(Box::new(supermetrics(rng))),
    };
    let key = JobKey { source: SourceName::parse(source).unwrap(), external_id: id.clone() };
    let job = Job::new(key, life, details);
    let progress = [Progress::new(0, 0), Progress::new(3, i32::MAX.cast_unsigned().into()), None];
    Job {
        native_state: text(rng),
        created_at: time(rng),
        updated_at: time(rng),
        finished_at: time(rng),
        progress: progress[rng.usize(..progress.len())],
        ..job
    }
}

fn mindbridge(rng: &mut Rng) -> MindBridgeDetails {
    let kinds = [Some("EXPORT".to_owned()), Some("REPORT".to_owned()), text(rng)];
    MindBridgeDetails {
        version: number(rng),
        kind: kinds[rng.usize(..3)].clone(),
        entity: maybe(rng, |rng| EntityRef { id: text(rng), entity_type: text(rng) }),
        created_by: maybe(rng, |rng| UserInfo { user_id: text(rng), user_name: text(rng) }),
        last_modified_by: maybe(rng, |rng| UserInfo { user_id: text(rng), user_name: text(rng) }),
        error: text(rng),
        error_message: text(rng),
    }
}

fn supermetrics(rng: &mut Rng) -> SupermetricsDetails {
    let field = |rng: &mut Rng| QueryField {
        id: text(rng),
        name: text(rng),
        data_type: text(rng),
        data_column: number(rng),
    };
    let account = |rng: &mut Rng| JsonText::parse(JSON[rng.usize(..JSON.len())]).unwrap();
    SupermetricsDetails {
        request_id: text(rng),
        schedule_id: text(rng),
        queue: maybe(rng, |rng| LicenceQueue { tasks_scheduled: number(rng), tasks_running: number(rng) }),
        query: maybe(rng, |rng| QueryMeta {
            start_date: text(rng),
            end_date: text(rng),
            accounts: (0..rng.u8(..4)).map(|_| account(rng)).collect(),
            fields: (0..rng.u8(..4)).map(|_| field(rng)).collect(),
        }),
        result: maybe(rng, |rng| QueryResult {
            total_rows: number(rng),
            total_columns: number(rng),
            run_seconds: maybe(rng, |rng| FLOATS[rng.usize(..FLOATS.len())]),
            data_sampled: maybe(rng, Rng::bool),
            cache_used: maybe(rng, Rng::bool),
            cache_time: time(rng),
        }),
    }
}

fn maybe<T>(rng: &mut Rng, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    (rng.u8(..4) > 0).then(|| value(rng))
}

fn text(rng: &mut Rng) -> Option<String> {
    maybe(rng, |rng| TEXTS[rng.usize(..TEXTS.len())].to_owned())
}

fn number(rng: &mut Rng) -> Option<i64> {
    maybe(rng, |rng| NUMBERS[rng.usize(..NUMBERS.len())])
}

fn time(rng: &mut Rng) -> Option<Timestamp> {
    let times = [
        Timestamp::UNIX_EPOCH,
        Timestamp::MIN,
        Timestamp::MAX,
        Timestamp::from_nanosecond(1_764_000_000_120_000_000).unwrap(),
        Timestamp::from_nanosecond(-1).unwrap(),
    ];
    maybe(rng, |rng| times[rng.usize(..times.len())])
}

impl TestClients {
    fn new() -> Self {
        let source = |name: &str| SourceName::parse(name).unwrap();
        let granted = |name: &str, scopes: &[(&str, Scope)]| {
            let scopes = scopes.iter().map(|(name, scope)| (source(name), scope.clone()));
            Principal::with_grant(name, Grant::Sources(Arc::new(scopes.collect())))
        };
        let whole = Scope::default();
        let kinds = Scope { kinds: BTreeSet::from(["EXPORT".to_owned()]), ..Scope::default() };
        let team = BTreeMap::from([("team".to_owned(), "blue".to_owned())]);
        let labels = Scope { labels: team, ..Scope::default() };
        let down = ("down", whole.clone());
        let some = BTreeSet::from([key("mind", "job1"), key("metrics", "job2"), key("mind", "slow")]);
        let (kind, jobs) = (CredentialKind::WatchToken, Some(Arc::new(some)));
        let info = CredentialInfo { kind, jobs, ..CredentialInfo::default() };
        let principals = [
            Principal::local(),
            granted("mind-only", &[("mind", whole)]),
            granted("kinds", &[("mind", kinds), down.clone()]),
            granted("labels", &[("mind", labels.clone()), ("metrics", labels), down]),
            granted("neither", &[]),
            Principal::local().with_credential(info),
        ];
        Self(CLIENTS.iter().map(|name| (*name).to_owned()).zip(principals).collect())
    }
}

impl fmt::Debug for TestClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Identity for TestClients {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        let presented = presented.ok_or(AuthError::Missing)?;
        self.0.get(presented.expose_secret()).cloned().ok_or(AuthError::Unknown)
    }

    fn is_valid(&self, _: &Principal) -> bool {
        true
    }

    fn watch_token(
        &self,
        _: &Principal,
        _: &BTreeSet<JobKey>,
        _: Duration,
    ) -> Result<WatchToken, WatchTokenError> {
        Err(WatchTokenError::NotMade)
    }
}
