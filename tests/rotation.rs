//! Secrets that change while the gateway runs: the real binary, files on a real disk, and upstreams that accept several
//! credentials and record the one of each request.

mod load;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jobgate_simulator::{
    Addresses, FaultKind, MadeUpAnswer, MadeUpBody, MindBridgeJob, Scenario, SimFault, SimUpstream,
    Simulator, SupermetricsJob,
};
use serde_json::{Value, json};

use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{ANY, KEY, TOKEN, describe, external};
use crate::support::streams::LIMIT;
use crate::support::wire;

const EVERY: Duration = Duration::from_millis(40);

/// A folder as Kubernetes mounts a Secret: the file is a link into `..data`, which is a link to a folder, which is
/// replaced.
struct Mounted {
    folder: PathBuf,
    round: usize,
}

impl Mounted {
    fn new(secret: Option<&str>) -> Self {
        let folder = std::env::temp_dir().join(format!("jobgate-mounted-{:x}", fastrand::u64(..)));
        fs::create_dir_all(&folder).unwrap();
        symlink("..data/token", folder.join("token")).unwrap();
        let mut mounted = Self { folder, round: 0 };
        if let Some(secret) = secret {
            mounted.swap(secret);
        }
        mounted
    }

    fn path(&self) -> String {
        self.folder.join("token").display().to_string()
    }

    fn swap(&mut self, secret: &str) {
        let old = format!("..round{}", self.round);
        self.round += 1;
        let new = format!("..round{}", self.round);
        fs::create_dir(self.folder.join(&new)).unwrap();
        fs::write(self.folder.join(&new).join("token"), secret).unwrap();
        symlink(new, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
        fs::remove_dir_all(self.folder.join(old)).ok();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A gateway whose sources `mind` and `metrics` read their bearer tokens from these files.
async fn serve(simulator: &Simulator, files: [&str; 2], rest: &str) -> (Process, SocketAddr) {
    let source = |name: &str, upstream: &str, url: &str, file: &str| {
        format!(
            "  {name}: {{ upstream: {upstream}, base_url: \"{url}\", credential: {{ bearer: {{ file: \"{file}\" }} }}, \
             budget: {{ per_second: 10000, per_hour: 1000000, concurrency: 100 }} }}\n"
        )
    };
    let config = Scratch::new(&format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\nstore: {{ kind: memory }}\n{rest}\nsources:\n{}{}",
        source("mind", "mindbridge", &simulator.mindbridge_url(), files[0]),
        source("metrics", "supermetrics", &simulator.supermetrics_url(), files[1]),
    ));
    let mut gateway = Process::start(&["serve", "--config", config.path()], &[]);
    let address = gateway.address("public").await;
    (gateway, address)
}

async fn upstreams() -> Simulator {
    let mut scenario = Scenario::default();
    scenario.mindbridge.jobs = vec![
        MindBridgeJob::new("a", &[(0, "IN_PROGRESS")]),
        MindBridgeJob::new("b", &[(0, "IN_PROGRESS")]),
        MindBridgeJob::new("watched", &[(0, "IN_PROGRESS")]),
    ];
    scenario.supermetrics.jobs = vec![SupermetricsJob::new("q", &[(0, "RUNNING")])];
    Simulator::start(scenario, Addresses::ephemeral()).await.unwrap()
}

/// One lookup that is not answered from memory.
async fn lookup(gateway: SocketAddr, source: &str, id: &str) -> String {
    let query = format!("query($ref: JobRef!) {{ job(ref: $ref, maxStaleness: \"0ms\") {ANY} }}");
    let body = json!({ "query": query, "variables": { "ref": external(source, id) } });
    describe(&wire::post(gateway, None, &body).await.data()["job"])
}

/// The health of a source, and the state of its credential.
async fn is_valid(gateway: SocketAddr, source: &str) -> (String, String, Value) {
    let query = "{ sources { name health credential { state since activeSince expiresAt } } }";
    let data = wire::post(gateway, None, &json!({ "query": query })).await.data();
    let all = data["sources"].as_array().unwrap();
    let found = all.iter().find(|held| held["name"] == source).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&found["health"]), text(&found["credential"]["state"]), found["credential"].clone())
}

/// Waits until the credential of a source is in this state, or for long enough: the last one.
async fn settled_state(gateway: SocketAddr, source: &str, expected: &str) -> String {
    let mut last = String::new();
    let settled = async {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        while last != expected {
            again.tick().await;
            last = is_valid(gateway, source).await.1;
        }
    };
    tokio::time::timeout(LIMIT, settled).await.ok();
    last
}

/// Waits until the credential of a source is in this state.
async fn until(gateway: SocketAddr, source: &str, expected: &str) {
    assert_eq!(settled_state(gateway, source, expected).await, expected, "{source}");
}

/// A gateway that rereads the secrets of its sources often.
struct Rotating {
    gateway: Process,
    address: SocketAddr,
    /// The secret of `mind`.
    mounted: Mounted,
    /// A link to the secret of `metrics` in another folder: the watch of the folder does not see that file change, so
    /// the timer finds it.
    elsewhere: Mounted,
    file: Scratch,
    simulator: Simulator,
}

impl Rotating {
    /// Starts it with these secrets, which the upstreams accept.
    async fn start(mind: Option<&str>, metrics: &str) -> Self {
        let simulator = upstreams().await;
        simulator.handle().set_credential(SimUpstream::Supermetrics, metrics);
        let (mounted, elsewhere) = (Mounted::new(mind), Mounted::new(None));
        let (file, link) = (Scratch::new(metrics), elsewhere.folder.join("key"));
        symlink(file.path(), &link).unwrap();
        let rest = "credentials: { reload_interval: 100ms }";
        let files = [&mounted.path(), link.to_str().unwrap()];
        let (gateway, address) = serve(&simulator, files, rest).await;
        Self { gateway, address, mounted, elsewhere, file, simulator }
    }

    /// Replaces the secret of `mind`, and waits until its credential is in this state.
    async fn swap(&mut self, secret: &str, expected: &str) {
        self.mounted.swap(secret);
        until(self.address, "mind", expected).await;
    }

    async fn lookup(&self, source: &str, id: &str) -> String {
        lookup(self.address, source, id).await
    }

    /// Replaces the secret of `metrics`, and waits until it is used.
    async fn replace_linked(&self, secret: &str) {
        self.simulator.handle().set_credential(SimUpstream::Supermetrics, secret);
        fs::write(self.file.path(), format!("{secret}\n")).unwrap();
        let renewed = async {
            while self.lookup("metrics", "q").await != "RUNNING" {
                tokio::time::interval(EVERY).tick().await;
            }
        };
        let renewed = tokio::time::timeout(LIMIT, renewed).await.is_ok();
        assert!(
            renewed,
            "the timer finds what the watch does not see, below {}",
            self.elsewhere.folder.display()
        );
    }
}

/// A token without a signature that expires in ten minutes, and that time.
fn expiring() -> (String, jiff::Timestamp) {
    let soon = jiff::Timestamp::from_second(jiff_now() + 600).unwrap();
    let payload = URL_SAFE_NO_PAD.encode(json!({ "exp": soon.as_second() }).to_string());
    (format!("eyJhbGciOiJub25lIn0.{payload}.signature"), soon)
}

const INVALID: &str = "two\nlines-of-a-token";
const REJECTED: &str = "a-token-that-nobody-knows";

#[tokio::test]
async fn a_missing_secret_is_active_once_its_file_exists() {
    let mut rotating = Rotating::start(None, KEY).await;
    assert_eq!(rotating.lookup("mind", "a").await, "UNCONFIGURED");
    let (health, state, _) = is_valid(rotating.address, "mind").await;
    assert_eq!((health.as_str(), state.as_str()), ("UNCONFIGURED", "MISSING"));
    rotating.swap(TOKEN, "ACTIVE").await;
    assert_eq!(rotating.lookup("mind", "a").await, "RUNNING");
}

#[tokio::test]
async fn an_invalid_or_rejected_new_secret_is_not_activated() {
    let mut rotating = Rotating::start(Some(TOKEN), KEY).await;
    until(rotating.address, "mind", "ACTIVE").await;
    for (secret, state) in [(REJECTED, "PENDING_REJECTED"), (INVALID, "PENDING_INVALID")] {
        rotating.swap(secret, state).await;
        assert_eq!(rotating.lookup("mind", "a").await, "RUNNING", "{state}: the previous one is active");
    }
    let named = |line: &str| {
        (line.contains("the previous one stays active") && line.contains("/token")).then_some(())
    };
    rotating.gateway.find("an alarm that names the file", named).await;
}

#[tokio::test]
async fn a_revoked_credential_is_rejected_until_it_is_replaced() {
    let mut rotating = Rotating::start(Some(TOKEN), KEY).await;
    assert_eq!(rotating.lookup("mind", "a").await, "RUNNING");
    rotating.simulator.handle().set_credential(SimUpstream::MindBridge, "the-next-token");
    assert_eq!(rotating.lookup("mind", "a").await, "RUNNING, stale: CREDENTIAL_REJECTED");
    until(rotating.address, "mind", "REJECTED").await;
    assert_eq!(is_valid(rotating.address, "mind").await.0, "CREDENTIAL_REJECTED");
    rotating.swap("the-next-token", "ACTIVE").await;
    assert_eq!(rotating.lookup("mind", "a").await, "RUNNING");
}

#[tokio::test]
async fn a_bad_secret_does_not_affect_another_source() {
    let mut rotating = Rotating::start(None, KEY).await;
    assert_eq!(rotating.lookup("metrics", "q").await, "RUNNING", "while the other has none");
    rotating.swap(TOKEN, "ACTIVE").await;
    rotating.simulator.handle().set_credential(SimUpstream::MindBridge, "the-next-token");
    rotating.lookup("mind", "a").await;
    until(rotating.address, "mind", "REJECTED").await;
    assert_eq!(rotating.lookup("metrics", "q").await, "RUNNING", "while that of the other is rejected");
}

#[tokio::test]
async fn the_expiry_of_a_token_is_reported_and_logged() {
    let (token, soon) = expiring();
    let mut rotating = Rotating::start(Some(TOKEN), &token).await;
    assert_eq!(rotating.lookup("metrics", "q").await, "RUNNING");
    let credential = is_valid(rotating.address, "metrics").await.2;
    assert_eq!(credential["expiresAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap(), soon);
    rotating.gateway.find("a warning", |line| line.contains("credential expires soon").then_some(())).await;
}

#[tokio::test]
async fn a_replaced_token_does_not_keep_its_expiry() {
    let rotating = Rotating::start(Some(TOKEN), &expiring().0).await;
    assert_eq!(rotating.lookup("metrics", "q").await, "RUNNING");
    rotating.replace_linked("the-next-key").await;
    assert_eq!(is_valid(rotating.address, "metrics").await.2["expiresAt"], Value::Null);
}

#[tokio::test]
async fn the_timer_finds_a_secret_that_is_changed_behind_a_link() {
    let rotating = Rotating::start(Some(TOKEN), KEY).await;
    assert_eq!(rotating.lookup("metrics", "q").await, "RUNNING");
    rotating.replace_linked("the-next-key").await;
}

#[tokio::test]
async fn no_secret_is_logged_during_a_rotation() {
    let (token, _) = expiring();
    let mut rotating = Rotating::start(Some(TOKEN), &token).await;
    until(rotating.address, "mind", "ACTIVE").await;
    rotating.swap(REJECTED, "PENDING_REJECTED").await;
    rotating.swap(INVALID, "PENDING_INVALID").await;
    rotating.simulator.handle().set_credential(SimUpstream::MindBridge, "the-next-token");
    rotating.lookup("mind", "a").await;
    until(rotating.address, "mind", "REJECTED").await;
    rotating.swap("the-next-token", "ACTIVE").await;
    rotating.replace_linked("the-next-key").await;
    rotating.gateway.signal("TERM").await;
    let (status, output) = rotating.gateway.ended().await;
    assert_eq!(status.code(), Some(0), "{output}");
    for secret in [&token, TOKEN, "nobody-knows", "lines-of-a-token", "the-next-token", "the-next-key"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
}

/// The expiry in a token is compared with the configuration before anything is started.
#[tokio::test]
async fn check_reports_an_expired_credential() {
    let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":1700000000}"#);
    let ended = Scratch::new(&format!("eyJhbGciOiJub25lIn0.{payload}.signature"));
    let sources = |more: &str| {
        format!(
            "sources: {{ s: {{ upstream: mindbridge, base_url: 'https://a.example', credential: {{ {more} }} }} }}"
        )
    };
    let by_token = Scratch::new(&sources(&format!("bearer: {{ file: '{}' }}", ended.path())));
    let by_operator = Scratch::new(&sources("bearer: { env: T }, expires_at: 2023-11-14T22:13:20Z"));
    for config in [by_token, by_operator] {
        let (code, output) = run(&["check", "--config", config.path()], &[("T", "a-plain-token")]).await;
        let line = "sources.s.credential: expired at 2023-11-14T22:13:20Z; set a new one";
        assert_eq!((code, output.trim()), (Some(78), line));
    }
}

/// An upstream that repeats a credential, current or former, active or rejected.
#[tokio::test]
async fn echoes_of_current_and_former_secrets_are_masked() {
    let simulator = upstreams().await;
    let upstream = simulator.handle();
    let mut mounted = Mounted::new(Some(TOKEN));
    let key = Scratch::new(KEY);
    let rest = "credentials: { reload_interval: 100ms }\ntelemetry: { log_level: trace }";
    let (gateway, address) = serve(&simulator, [&mounted.path(), key.path()], rest).await;
    assert_eq!(lookup(address, "mind", "a").await, "RUNNING");
    let secrets = [TOKEN, "the/next=token+1", "a/refused-token"];
    upstream.also_accept(SimUpstream::MindBridge, secrets[1]);
    mounted.swap(secrets[1]);
    let shown = async {
        while !upstream.record_of(SimUpstream::MindBridge).iter().any(|request| request.credential == Some(1))
        {
            tokio::time::interval(EVERY).tick().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, shown).await.is_ok());
    until(address, "mind", "ACTIVE").await;
    mounted.swap(secrets[2]);
    until(address, "mind", "PENDING_REJECTED").await;

    let echo = format!("{} {} {}", secrets[0], secrets[1], secrets[2]);
    let body = json!({ "id": "a", "status": "ERROR", "type": echo, "error": echo, "entityId": echo });
    let text = body.to_string().replace('/', "\\/");
    let body = MadeUpBody::Text { content_type: "application/json".to_owned(), text };
    let headers =
        [("retry-after".to_owned(), echo.clone()), ("x-echo".to_owned(), echo)].into_iter().collect();
    let answer = MadeUpAnswer { status: 200, headers, body, ..MadeUpAnswer::default() };
    upstream.push_fault(SimFault::always(SimUpstream::MindBridge, FaultKind::Answer(answer)).for_ids(&["a"]));
    let query = "query($ref: JobRef!) { job(ref: $ref, maxStaleness: \"0ms\") { ... on MindBridgeJob { kind error entity { id } failure { message } } } }";
    let body = json!({ "query": query, "variables": { "ref": external("mind", "a") } });
    let answer = wire::post(address, None, &body).await.data();
    assert_eq!(answer["job"]["error"], "[redacted] [redacted] [redacted]", "{answer}");

    gateway.signal("TERM").await;
    let (_, log) = gateway.ended().await;
    assert!(log.contains("TRACE"));
    for secret in secrets {
        assert!(!answer.to_string().contains(secret), "{secret} in {answer}");
        assert!(!log.contains(secret), "{secret} in the log");
    }
}

#[expect(clippy::disallowed_methods, reason = "the expiry of a token is a time of the real clock")]
fn jiff_now() -> i64 {
    jiff::Timestamp::now().as_second()
}
