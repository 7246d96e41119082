//! The real gateway in front of the simulated upstreams, all on their own sockets, in this process.

use std::net::SocketAddr;

use jobgate::config::{Config, Environment};
use jobgate::server::build::{Gateway, Serving};
use jobgate_simulator::{
    Addresses, Auth, Endpoint, Handle, MindBridgeJob, RecordedRequest, Scenario, SimUpstream, Simulator,
    SupermetricsJob,
};
use serde_json::{Value, json};

use super::wire::{self, Reply};

/// The credentials that a `Scenario::default()` accepts.
pub(crate) const TOKEN: &str = "simulated-mindbridge-token";
pub(crate) const KEY: &str = "simulated-supermetrics-key";

/// Enough for every test that is not about the budget.
const BUDGET: &str = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }";

/// The differences from the default fixture.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) scenario: Scenario,
    /// The form of the Supermetrics credential: `bearer` or `api_key`.
    pub(crate) form: &'static str,
    /// Further options of both sources, in flow style.
    pub(crate) source: &'static str,
    /// Further options of `mind` alone, in flow style.
    pub(crate) mind: &'static str,
    /// The same of `metrics`.
    pub(crate) metrics: &'static str,
    /// Further sections of the configuration.
    pub(crate) rest: String,
    /// The secrets of the gateway for `mind` and `metrics`.
    pub(crate) secrets: [String; 2],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            scenario: Scenario::default(),
            form: "api_key",
            source: BUDGET,
            mind: "",
            metrics: "",
            rest: String::new(),
            secrets: [TOKEN.to_owned(), KEY.to_owned()],
        }
    }
}

impl Setup {
    /// The default gateway with these jobs upstream.
    pub(crate) fn with(mind: Vec<MindBridgeJob>, metrics: Vec<SupermetricsJob>) -> Self {
        let mut setup = Self::default();
        setup.scenario.mindbridge.jobs = mind;
        setup.scenario.supermetrics.jobs = metrics;
        setup
    }

    /// The environment that contains the secrets.
    pub(crate) fn environment(&self) -> Environment {
        let [token, key] = &self.secrets;
        [("MIND_TOKEN", token), ("METRICS_KEY", key)].into_iter().collect()
    }

    /// The configuration, for upstreams at these addresses. Both listeners take any free port.
    pub(crate) fn yaml(&self, mindbridge: &str, supermetrics: &str) -> String {
        let Self { form, source, mind, metrics, rest, .. } = self;
        // for a machine without CPU time: a client has half of this time between its handshake and its first message
        let long_timeout = "server: { header_timeout: 2m,";
        let rest = if rest.contains("header_timeout:") {
            rest.clone()
        } else {
            rest.replacen("server: {", long_timeout, 1)
        };
        let server = if rest.contains("server:") {
            String::new()
        } else {
            format!("{long_timeout} listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}")
        };
        let store = if rest.contains("store:") { "" } else { "store: { kind: memory }" };
        format!(
            "{server}\n{store}\nsources:\n  \
             mind: {{ upstream: mindbridge, base_url: \"{mindbridge}\", credential: {{ bearer: {{ env: MIND_TOKEN }} }}, {source}{mind} }}\n  \
             metrics: {{ upstream: supermetrics, base_url: \"{supermetrics}\", credential: {{ {form}: {{ env: METRICS_KEY }} }}, {source}{metrics} }}\n\
             {rest}\n"
        )
    }

    pub(crate) async fn start(self) -> Rig {
        let simulator = Simulator::start(self.scenario.clone(), Addresses::ephemeral()).await.unwrap();
        let env = self.environment();
        let yaml = self.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url());
        let config = Config::from_yaml(&yaml, &env).unwrap();
        let gateway = Gateway::build(&config, &env).await.unwrap();
        let (public, admin) = (gateway.public_addr(), gateway.admin_addr());
        Rig { upstreams: simulator.handle(), simulator, public, admin, serving: gateway.serve() }
    }
}

/// A running gateway, and its upstreams.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) simulator: Simulator,
    pub(crate) upstreams: Handle,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) serving: Serving,
}

impl Rig {
    /// Posts a query with variables.
    pub(crate) async fn execute(&self, query: &str, variables: Value) -> Reply {
        wire::post(self.public, None, &json!({ "query": query, "variables": variables })).await
    }

    /// Reads one job by its external id: a short description of the answer, see [`describe`].
    pub(crate) async fn lookup(&self, source: &str, id: &str) -> String {
        self.lookup_within(source, id, None).await
    }

    /// The same, with a maximum staleness for a running job.
    pub(crate) async fn lookup_within(&self, source: &str, id: &str, max: Option<&str>) -> String {
        let query =
            format!("query($ref: JobRef!, $max: Duration) {{ job(ref: $ref, maxStaleness: $max) {ANY} }}");
        let answer = self.execute(&query, json!({ "ref": external(source, id), "max": max })).await;
        describe(&answer.data()["job"])
    }

    /// Reads several jobs in one request; a short description of each.
    pub(crate) async fn lookup_all(&self, refs: &[Value]) -> Vec<String> {
        let query = format!("query($refs: [JobRef!]!) {{ jobs(refs: $refs) {ANY} }}");
        let answer = self.execute(&query, json!({ "refs": refs })).await;
        answer.data()["jobs"].as_array().unwrap().iter().map(describe).collect()
    }

    /// How many requests an upstream has had.
    pub(crate) fn calls(&self, upstream: SimUpstream) -> usize {
        self.upstreams.record_of(upstream).len()
    }

    /// The requests of one kind.
    pub(crate) fn requests_to(&self, endpoint: Endpoint) -> Vec<RecordedRequest> {
        let mut record = self.upstreams.record();
        record.retain(|request| request.endpoint == endpoint);
        record
    }

    /// Fails unless every upstream request was correct, on the expected path, and authenticated.
    pub(crate) fn assert_well_behaved(&self) {
        for request in self.upstreams.record() {
            assert_eq!(request.violation, None, "{request:?}");
            assert_ne!(request.endpoint, Endpoint::Unexpected, "{request:?}");
            assert!(matches!(request.auth, Auth::Bearer | Auth::ApiKey | Auth::Wrong), "{request:?}");
        }
    }
}

/// A reference by external id.
pub(crate) fn external(source: &str, id: &str) -> Value {
    json!({ "external": { "source": source, "externalId": id } })
}

/// The fields that [`describe`] reads.
pub(crate) const ANY: &str = "{ __typename
    ... on Job { state nativeState failure { code message } progress { completed total } freshness { isStale staleReason } }
    ... on MindBridgeJob { version kind error }
    ... on SupermetricsJob { requestId }
    ... on JobProblem { code message retryable retryAfterMs } }";

/// A short description of a job or a problem: `RUNNING`, `FAILED E: why`, `THROTTLED after 30s`, `RUNNING, stale:
/// TIMED_OUT`. A problem that a retry cannot solve ends in `for good`. Milliseconds are rounded up to seconds, and
/// above a minute to tens of seconds, since the gateway's own clock ran in between.
pub(crate) fn describe(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    if let Some(code) = text(&answer["code"]) {
        let after = answer["retryAfterMs"].as_f64().map(|millis| {
            let seconds = millis / 1_000.0;
            if seconds > 60.0 { ((seconds - 1.0) / 10.0).ceil() * 10.0 } else { (seconds - 0.1).ceil() }
        });
        return match (after, answer["retryable"].as_bool().unwrap()) {
            (Some(seconds), true) => format!("{code} after {seconds}s"),
            (None, true) => code,
            (_, false) => format!("{code} for good"),
        };
    }
    let mut words = text(&answer["state"]).unwrap();
    if let Some(failure) = answer["failure"].as_object() {
        let parts = [text(&failure["code"]), text(&failure["message"])];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        words = format!("{words} ({})", parts.join(": "));
    }
    if words == "UNKNOWN" {
        words = format!("{words} ({})", text(&answer["nativeState"]).unwrap_or_default());
    }
    if let Some(reason) = text(&answer["freshness"]["staleReason"]) {
        words = format!("{words}, stale: {reason}");
    }
    assert_eq!(answer["freshness"]["isStale"].as_bool().unwrap(), words.contains("stale"), "{answer}");
    words
}
