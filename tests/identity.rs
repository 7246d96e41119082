//! Authentication and the expiry of credentials: keys and signed tokens on the real process, with its clock and its
//! signals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jobgate::config::{ClientConfig, Config, Environment};
use jobgate::domain::id::SourceName;
use jobgate::domain::principal::{CredentialInfo, Principal};
use jobgate::outbound::identity::LiveIdentity;
use jobgate::outbound::identity::jwt::JwtDeps;
use jobgate::outbound::identity::keys;
use jobgate::outbound::identity::watch_tokens::WatchTokens;
use jobgate::outbound::system::{RuntimeSpawner, SystemClock};
use jobgate::ports::clock::Clock as _;
use jobgate::ports::identity::{AuthError, Identity as _};
use jobgate_simulator::{Addresses, MindBridgeJob, MindBridgeStep, Simulator};
use serde_json::json;
use tokio::time::Instant;

use crate::support::ports::{FRESHNESS, gateway, reference};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, KEY, Setup, TOKEN, describe, external};
use crate::support::streams::{Carrier, LIMIT, Sse, StreamEvent, Watcher, WebSocket, settles};
use crate::support::tokens::{ISSUER, Issuer, base64};
use crate::support::wire;

mod reload;

const SECOND: Duration = Duration::from_secs(1);

/// A real process with one running job, and the text of its configuration without one section.
struct Gateway {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    simulator: Simulator,
    config: Scratch,
    setup: Setup,
}

impl Gateway {
    async fn start(section: &str) -> Self {
        let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
        let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
        setup.rest = section.to_owned();
        let config = Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url()));
        let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
        let mut process = Process::start(&["serve", "--config", config.path()], &env);
        let (public, admin) = (process.address("public").await, process.address("admin").await);
        Self { process, public, admin, simulator, config, setup }
    }

    /// Writes the configuration with another section, sends the signal, and waits for the log line.
    async fn reload(&mut self, section: &str, log_text: &str) {
        section.clone_into(&mut self.setup.rest);
        let (mind, metrics) = (self.simulator.mindbridge_url(), self.simulator.supermetrics_url());
        std::fs::write(self.config.path(), self.setup.yaml(&mind, &metrics)).unwrap();
        self.process.signal("HUP").await;
        self.process.find(log_text, |line| line.contains(log_text).then_some(())).await;
    }

    /// Waits until the keys of the issuer are fetched.
    async fn wait_for_keys(&mut self) {
        let read = "issuer keys changed";
        self.process.find(read, |line| line.contains(read).then_some(())).await;
    }

    /// Completes the job.
    fn complete_job(&self) {
        self.simulator.handle().set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    }

    async fn execute(&self, credential: &str) -> String {
        let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
        let body = json!({ "query": query, "variables": { "ref": external("mind", "a") } });
        let reply = wire::post(self.public, Some(credential), &body).await;
        if reply.status == 200 { describe(&reply.data()["job"]) } else { reply.refusal().1 }
    }

    /// The number of jobs that clients have requested.
    async fn lookups(&self) -> f64 {
        let metrics = wire::get(self.admin, "/metrics").await.body;
        let counts = metrics.lines().filter(|line| line.starts_with("jobgate_lookups_total{"));
        counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    async fn watch(&self, carrier: Carrier, credential: &str) -> Watcher {
        let mut watcher = Watcher::open_as(self.public, carrier, &["a"], Some(credential)).await;
        assert_eq!(watcher.short().await, "SNAPSHOT RUNNING");
        watcher
    }
}

/// The last event of a stream that the gateway closes, by its carrier.
const fn ended(carrier: Carrier) -> StreamEvent {
    match carrier {
        WebSocket => StreamEvent::Over(Some(4403)),
        // without `complete`
        Sse => StreamEvent::Over(None),
    }
}

fn client(name: &str, sources: &str) -> String {
    let hash = ClientConfig::hex(&keys::hash(&format!("jg_{name}")));
    format!("{{ name: {name}, key_sha256: \"{hash}\", sources: {sources} }}")
}

/// A gateway with the client `robot` and this issuer, whose keys it has fetched.
async fn with_issuer(issuer: &Issuer) -> Gateway {
    let section = format!("{}\nclients: [{}]", issuer.section("[mind]"), client("robot", "[mind]"));
    let mut gateway = Gateway::start(&section).await;
    gateway.wait_for_keys().await;
    gateway
}

/// A token of `alice` that expires so many seconds from now.
fn token(issuer: &Issuer, seconds: i64) -> String {
    issuer.token("alice", SystemClock.now().as_second() + seconds)
}

/// Credentials, and whether each is valid.
async fn credentials(issuer: &Issuer) -> [(String, bool); 6] {
    [
        ("jg_robot".to_owned(), true),
        (token(issuer, 600), true),
        (token(issuer, -60), false),
        (token(&Issuer::start().await, 600), false),
        ("jg_nobody".to_owned(), false),
        ("a.b.c".to_owned(), false),
    ]
}

#[tokio::test]
async fn only_a_valid_key_or_token_authenticates() {
    let issuer = Issuer::start().await;
    let gateway = with_issuer(&issuer).await;
    for (credential, valid) in credentials(&issuer).await {
        let answer = if valid { "RUNNING" } else { "UNAUTHENTICATED" };
        assert_eq!(gateway.execute(&credential).await, answer, "{credential}");
    }
}

#[tokio::test]
async fn the_viewer_has_the_kind_and_the_expiry_of_its_credential() {
    let issuer = Issuer::start().await;
    let gateway = with_issuer(&issuer).await;
    let expires = SystemClock.now().as_second() + 600;
    let body = json!({ "query": "{ viewer { name authenticatedBy expiresAt grants { source } } }" });
    let grants = json!([{ "source": "mind" }]);
    for (credential, name, method, expires_at) in [
        ("jg_robot".to_owned(), "robot".to_owned(), "CLIENT_KEY", None),
        (
            issuer.token("alice", expires),
            format!("{ISSUER}#alice"),
            "JWT",
            Timestamp::from_second(expires).ok(),
        ),
    ] {
        let viewer = wire::post(gateway.public, Some(&credential), &body).await.data();
        let expected = json!({
            "name": name, "authenticatedBy": method, "expiresAt": expires_at.map(|at| at.to_string()), "grants": grants
        });
        assert_eq!(viewer["viewer"], expected);
    }
}

#[tokio::test]
async fn no_request_fetches_issuer_keys() {
    let issuer = Issuer::start().await;
    let gateway = with_issuer(&issuer).await;
    let credentials = credentials(&issuer).await;
    for (credential, _) in &credentials {
        gateway.execute(credential).await;
    }
    for (credential, _) in credentials.iter().filter(|(_, valid)| *valid) {
        for carrier in [WebSocket, Sse] {
            gateway.watch(carrier, credential).await;
        }
    }
    assert_eq!(issuer.fetches(), 1, "the keys are fetched at the start");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_expires() {
    let issuer = Issuer::start().await;
    let gateway = with_issuer(&issuer).await;
    // long enough for a slow machine to open both streams
    let expires = SystemClock.now().as_second() + 12;
    let token = issuer.token("alice", expires);
    let mut streams = Vec::new();
    for carrier in [WebSocket, Sse] {
        streams.push((carrier, gateway.watch(carrier, &token).await));
    }
    let mut robot = gateway.watch(WebSocket, "jg_robot").await;
    let expires = Timestamp::from_second(expires).unwrap();
    for (carrier, mut stream) in streams {
        assert_eq!(stream.receive().await, ended(carrier), "{carrier:?}");
        let late = SystemClock.now().duration_since(expires).as_millis();
        // the promised second is tested on the paused clock; a busy machine may be slower
        assert!(late >= -50, "{carrier:?}: {late} ms late");
    }
    gateway.complete_job();
    assert_eq!(robot.short().await, "ENDED SUCCEEDED", "the stream of a key stays open");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_credential_of_its_caller_expires() {
    let built = Instant::now();
    let test_gateway = gateway();
    for (holds, waits) in [(5, 5), (0, 0), (60, FRESHNESS.answer_within.as_secs())] {
        let expires = Timestamp::UNIX_EPOCH + built.elapsed() + SECOND * holds;
        let credential = CredentialInfo { expires: Some(expires), ..CredentialInfo::default() };
        let client = Principal::new("c", SourceName::parse("mind")).with_credential(credential);
        let begun = Instant::now();
        let job = reference("mind", &format!("a{holds}"));
        let answer = test_gateway.jobs.await_end(&client, job, SECOND * 3600).await;
        assert_eq!(answer.is_ok(), holds > 0, "{answer:?}");
        assert_eq!(begun.elapsed().as_secs(), waits, "{holds}");
    }
}

/// Over HTTP, with the machine's clock; the behavior after thirty seconds is tested on the paused clock.
#[tokio::test]
async fn unknown_key_ids_do_not_multiply_issuer_key_fetches() {
    let issuer = Issuer::start().await;
    let sources = "sources: { mind: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: T } } } }";
    let yaml = format!("{sources}\n{}", issuer.section("[mind]"));
    let config = Config::from_yaml(&yaml, &Environment::default()).unwrap();
    let spawner = RuntimeSpawner::default();
    let stop = tokio_util::sync::CancellationToken::new();
    let deps = JwtDeps {
        clock: Arc::new(SystemClock),
        spawner: Arc::new(spawner.clone()),
        stop: stop.clone(),
        env: Environment::default(),
    };
    let identity = LiveIdentity::new(&config, WatchTokens::of_this_process().unwrap(), deps).unwrap();
    let good = issuer.token("alice", SystemClock.now().as_second() + 600).into();
    settles("the keys are loaded", LIMIT, || identity.authenticate(Some(&good)).is_ok()).await;
    let rest = issuer.signed("x", &json!({ "iss": "https://login.example" }));
    let rest = rest.split_once('.').unwrap().1;
    let begun = Instant::now();
    for number in 0..100_000_u32 {
        let kid = format!("{number:x}-{:x}", fastrand::u64(..));
        let header = base64(json!({ "alg": "ES256", "kid": kid }).to_string());
        let hostile = format!("{header}.{rest}").into();
        assert_eq!(identity.authenticate(Some(&hostile)), Err(AuthError::Unverified));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // the first fetch was at the start; each thirty seconds may add one
    let allowed = 1 + usize::try_from(begun.elapsed().as_secs() / 30 + 1).unwrap();
    assert!(issuer.fetches() <= allowed, "{} requests in {:?}", issuer.fetches(), begun.elapsed());
    assert!(identity.authenticate(Some(&good)).is_ok());
    stop.cancel();
    spawner.idle().await;
}
