//! The guarantees of credential rotation, on a paused clock, with files on a real disk and a scripted source.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use super::rotation::Rotation;
use super::*;
use crate::config::Config;
use crate::domain::id::ExternalId;
use crate::domain::source::{BudgetUse, SourceHealth, SourceStatus};
use crate::domain::upstream::Upstream;
use crate::outbound::system::RuntimeSpawner;
use crate::outbound::testing::FixedClock;
use crate::ports::BoxFuture;
use crate::ports::upstream::{
    Detail, Fetch, FetchError, FetchTrigger, JobReader, PollDemand, PollPacing, RowPage, RowRange,
};

const SECOND: Duration = Duration::from_secs(1);
const GOOD: &str = "good-token-0";

type ScriptedAnswer = Result<(), FetchError>;
type CredentialScript = dyn Fn(&str) -> ScriptedAnswer + Send;

/// A source with a scripted response for each secret; records the secrets that it received.
struct Scripted {
    name: SourceName,
    files: Arc<SecretFiles>,
    script: Mutex<Box<CredentialScript>>,
    latency: Mutex<Duration>,
    tried: Mutex<Vec<String>>,
    rejects_the_active_one: Mutex<bool>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl JobReader for Scripted {
    fn name(&self) -> &SourceName {
        &self.name
    }

    fn upstream(&self) -> Upstream {
        Upstream::MindBridge
    }

    fn fetch<'a>(&'a self, _: &'a [ExternalId], _: &'a FetchTrigger) -> BoxFuture<'a, Vec<Fetch>> {
        Box::pin(async { Vec::new() })
    }

    fn rows<'a>(
        &'a self,
        _: &'a ExternalId,
        _: RowRange,
        _: &'a FetchTrigger,
    ) -> BoxFuture<'a, Result<RowPage, FetchError>> {
        Box::pin(async { Err(FetchError::NotFound) })
    }

    fn probe<'a>(&'a self, other: Option<&'a Credential>) -> BoxFuture<'a, ScriptedAnswer> {
        Box::pin(async move {
            let secret = other.unwrap().secret().expose_secret().to_owned();
            let answer = self.script.lock().unwrap()(&secret);
            self.tried.lock().unwrap().push(secret);
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            answer
        })
    }

    fn status(&self) -> SourceStatus {
        let mut credential = self.files.status(&self.name);
        if *self.rejects_the_active_one.lock().unwrap() {
            credential.state = CredentialState::Refused;
        }
        SourceStatus {
            name: self.name.clone(),
            upstream: Upstream::MindBridge,
            health: SourceHealth::Healthy,
            credential,
            budget: BudgetUse { per_second: 1, per_hour: 1, concurrency: 1, in_flight: 0, left_this_hour: 1 },
            throttled_until: None,
            breaker_open: false,
            last_error: None,
        }
    }

    fn pace_polls(&self, _: PollDemand) -> PollPacing {
        PollPacing::default()
    }

    fn take_recheck(&self) -> bool {
        true
    }
}

/// A source `s` whose secret is in a file of its own folder, and another, `other`, that has its own.
struct CredentialsFixture {
    dir: PathBuf,
    files: Arc<SecretFiles>,
    source: Arc<Scripted>,
    end: CancellationToken,
    spawner: RuntimeSpawner,
}

impl CredentialsFixture {
    fn start(secret: Option<&str>) -> Self {
        let dir = std::env::temp_dir().join(format!("jobgate-rotation-{:x}", fastrand::u64(..)));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("other"), "another-token").unwrap();
        if let Some(secret) = secret {
            fs::write(dir.join("token"), secret).unwrap();
        }
        let source = |name: &str, file: &str| {
            let file = dir.join(file);
            let file = file.display();
            format!(
                "  {name}: {{ upstream: mindbridge, base_url: 'https://a.example', credential: {{ bearer: {{ file: '{file}' }} }} }}\n"
            )
        };
        let yaml = format!("sources:\n{}{}", source("s", "token"), source("other", "other"));
        let config = Config::from_yaml(&yaml, &Environment::default()).unwrap();
        let files = Arc::new(SecretFiles::read(&config.sources, &Environment::default()).0);
        let source = |name: &str| {
            Arc::new(Scripted {
                name: SourceName::parse(name).unwrap(),
                files: Arc::clone(&files),
                script: Mutex::new(Box::new(|_| Ok(()))),
                latency: Mutex::new(SECOND / 10),
                tried: Mutex::default(),
                rejects_the_active_one: Mutex::new(false),
            })
        };
        let (source, other) = (source("s"), source("other"));
        let readers = vec![Arc::clone(&source) as Arc<dyn JobReader>, other as Arc<dyn JobReader>];
        let rotation = Rotation::new(Arc::clone(&files), readers, Arc::new(FixedClock), config.credentials);
        let (end, spawner) = (CancellationToken::new(), RuntimeSpawner::default());
        drop(rotation.start(Arc::new(spawner.clone()), end.clone()));
        Self { dir, files, source, end, spawner }
    }

    fn token(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// Replaces the secret by writing a new file and renaming it.
    fn put(&self, secret: impl AsRef<[u8]>) {
        let temporary = self.dir.join("aside");
        fs::write(&temporary, secret).unwrap();
        clear(&self.token());
        fs::rename(temporary, self.token()).unwrap();
    }

    fn respond_with(&self, script: impl Fn(&str) -> ScriptedAnswer + Send + 'static) {
        *self.source.script.lock().unwrap() = Box::new(script);
    }

    fn active(&self) -> Option<String> {
        let current = self.files.current(&self.source.name)?;
        Some(current.secret().expose_secret().to_owned())
    }

    fn state(&self) -> CredentialState {
        self.files.status(&self.source.name).state
    }

    fn tried(&self) -> Vec<String> {
        self.source.tried.lock().unwrap().clone()
    }

    /// Waits for the time within which a new value is guaranteed to be active.
    async fn promise(&self) {
        tokio::time::sleep(SECOND * 5).await;
    }
}

impl Drop for CredentialsFixture {
    fn drop(&mut self) {
        self.end.cancel();
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn clear(path: &Path) {
    fs::remove_file(path).or_else(|_| fs::remove_dir(path)).ok();
}

fn unavailable() -> FetchError {
    FetchError::Unavailable(Detail::new("planted"))
}

/// A source whose secret was replaced by this many others; each became active.
async fn rotated(count: usize) -> CredentialsFixture {
    let fixture = CredentialsFixture::start(Some(GOOD));
    for number in 1..=count {
        let secret = format!("good-token-{number}");
        fixture.put(&secret);
        fixture.promise().await;
        assert_eq!((fixture.active(), fixture.state()), (Some(secret), CredentialState::Active));
    }
    fixture
}

#[tokio::test(start_paused = true)]
async fn each_new_credential_is_activated() {
    let fixture = rotated(200).await;
    fixture.end.cancel();
    fixture.spawner.idle().await;
}

#[tokio::test(start_paused = true)]
async fn each_new_credential_is_verified_once() {
    let fixture = rotated(200).await;
    let expected: Vec<String> = (1..=200).map(|number| format!("good-token-{number}")).collect();
    assert_eq!(fixture.tried(), expected);
}

#[tokio::test(start_paused = true)]
async fn remembered_credentials_are_bounded_to_the_newest() {
    let fixture = rotated(200).await;
    let shown = fixture.files.pending(&fixture.source.name);
    assert!(shown.len() <= 34, "{} are in the list", shown.len());
    for known in ["good-token-200", "good-token-199"] {
        assert!(shown.iter().any(|shown| shown.secret().expose_secret() == known), "{known} is masked");
    }
}

#[tokio::test(start_paused = true)]
async fn rotation_leaves_the_credential_of_another_source_unchanged() {
    let fixture = rotated(2).await;
    let other = SourceName::parse("other").unwrap();
    assert_eq!(fixture.files.current(&other).unwrap().secret().expose_secret(), "another-token");
}

/// A source that accepts secrets that begin with `good`.
fn choosy() -> CredentialsFixture {
    let fixture = CredentialsFixture::start(Some(GOOD));
    fixture.respond_with(|secret| {
        if secret.starts_with("good") { Ok(()) } else { Err(FetchError::CredentialRejected) }
    });
    fixture
}

#[tokio::test(start_paused = true)]
async fn invalid_secrets_are_never_activated() {
    let fixture = choosy();
    let long = "x".repeat(8 * 1024 + 1);
    let cases: [(&str, &[u8]); 16] = [
        ("empty", b""),
        ("a newline", b"\n"),
        ("white space", b" \t\r\n "),
        ("two lines", b"good-token-1\ngood-token-2"),
        ("nul", b"good-token-1\0"),
        ("nul before", b"\0good-token-1"),
        ("escape", b"good\x1b[31mtoken"),
        ("delete", b"good\x7ftoken"),
        ("tab", b"good\ttoken"),
        ("carriage return", b"good\rtoken"),
        ("accent", "good-tok\u{e9}n".as_bytes()),
        ("byte order mark", "\u{feff}good-token-1".as_bytes()),
        ("no-break space", "good\u{a0}token".as_bytes()),
        ("utf-16", b"\xff\xfeg\0o\0o\0d\0"),
        ("binary", b"good\xff\xfe"),
        ("too long", long.as_bytes()),
    ];
    let invalid = (Some(GOOD.to_owned()), CredentialState::PendingInvalid);
    for (name, content) in cases {
        fixture.put(content);
        fixture.promise().await;
        assert_eq!((fixture.active(), fixture.state()), invalid, "{name}");
    }
    // no file, and a folder at its path
    clear(&fixture.token());
    fixture.promise().await;
    assert_eq!((fixture.active(), fixture.state()), invalid);
    fs::create_dir(fixture.token()).unwrap();
    fixture.promise().await;
    assert_eq!((fixture.active(), fixture.state()), invalid);
    assert_eq!(fixture.tried(), [""; 0], "a value that cannot be sent is not tried");
}

#[tokio::test(start_paused = true)]
async fn rejected_secrets_are_never_activated() {
    let fixture = choosy();
    let rejected = ["bad-token", "<html>503</html>"];
    for secret in rejected {
        fixture.put(secret);
        fixture.promise().await;
        let state = (fixture.active(), fixture.state());
        assert_eq!(state, (Some(GOOD.to_owned()), CredentialState::PendingRejected), "{secret}");
    }
    assert_eq!(fixture.tried(), rejected);
}

#[tokio::test(start_paused = true)]
async fn credential_is_active_again_when_the_old_secret_is_back() {
    let fixture = choosy();
    for (secret, state) in
        [("bad-token", CredentialState::PendingRejected), ("two\nlines", CredentialState::PendingInvalid)]
    {
        fixture.put(secret);
        fixture.promise().await;
        assert_eq!(fixture.state(), state);
        fixture.put(GOOD);
        fixture.promise().await;
        assert_eq!(fixture.state(), CredentialState::Active);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_credential_is_retried_slowly_until_accepted() {
    let fixture = CredentialsFixture::start(Some(GOOD));
    fixture.respond_with(|_| Err(FetchError::CredentialRejected));
    fixture.put("early-token");
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(
        (fixture.active().as_deref(), fixture.state()),
        (Some(GOOD), CredentialState::PendingRejected)
    );
    let tries = fixture.tried().len();
    assert!((4..=6).contains(&tries), "{tries} tries in ten minutes");
    fixture.respond_with(|_| Ok(()));
    tokio::time::sleep(SECOND * 600).await;
    assert_eq!(fixture.active().as_deref(), Some("early-token"));
}

#[tokio::test(start_paused = true)]
async fn pending_credential_activates_if_the_active_one_is_rejected() {
    let fixture = CredentialsFixture::start(Some(GOOD));
    fixture.respond_with(|_| Err(unavailable()));
    fixture.put("new-token");
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(
        (fixture.active().as_deref(), fixture.state()),
        (Some(GOOD), CredentialState::PendingVerification)
    );
    let tries = fixture.tried().len();
    assert!((4..=8).contains(&tries), "{tries} tries in a minute");
    *fixture.source.rejects_the_active_one.lock().unwrap() = true;
    fixture.promise().await;
    assert_eq!(fixture.active().as_deref(), Some("new-token"), "there is no active credential to lose");
}

#[tokio::test(start_paused = true)]
async fn rejected_credential_does_not_replace_another_rejected_one() {
    let fixture = CredentialsFixture::start(Some(GOOD));
    fixture.respond_with(|_| Err(FetchError::CredentialRejected));
    fixture.put("bad-token");
    fixture.promise().await;
    *fixture.source.rejects_the_active_one.lock().unwrap() = true;
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(fixture.active().as_deref(), Some(GOOD));
    fixture.put("good-token-1");
    fixture.promise().await;
    assert_eq!(
        fixture.active().as_deref(),
        Some("good-token-1"),
        "the next value is verified by regular calls"
    );
}

#[tokio::test(start_paused = true)]
async fn credential_missing_at_start_activates_when_it_appears() {
    let fixture = CredentialsFixture::start(None);
    fixture.promise().await;
    assert_eq!((fixture.active(), fixture.state()), (None, CredentialState::Missing));
    fixture.put("\n");
    fixture.promise().await;
    assert_eq!((fixture.active(), fixture.state()), (None, CredentialState::Missing));
    fixture.put("late-token");
    fixture.promise().await;
    assert_eq!((fixture.active().as_deref(), fixture.state()), (Some("late-token"), CredentialState::Active));
    assert!(fixture.files.status(&fixture.source.name).active_since.is_some());
}

#[tokio::test(start_paused = true)]
async fn credential_replaced_during_verification_never_activates() {
    let fixture = CredentialsFixture::start(Some(GOOD));
    *fixture.source.latency.lock().unwrap() = SECOND * 3600;
    fixture.put("slow-token");
    fixture.promise().await;
    assert_eq!(
        (fixture.active().as_deref(), fixture.state()),
        (Some(GOOD), CredentialState::PendingVerification)
    );
    *fixture.source.latency.lock().unwrap() = SECOND / 10;
    fixture.put("next-token");
    fixture.promise().await;
    assert_eq!(fixture.active().as_deref(), Some("next-token"));
    let tried = fixture.tried();
    assert_eq!(tried, ["slow-token", "next-token"]);
}

/// Four sources of which two have no readable secret: the secrets, and the errors.
fn partly_readable() -> (Config, Environment, SecretFiles, Vec<String>) {
    let yaml = "sources:
  audit: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: AUDIT } } }
  gone: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { file: ./no/such/file } } }
  sales: { upstream: supermetrics, base_url: 'https://a.example', credential: { api_key: { env: SALES } } }
  unset: { upstream: mindbridge, base_url: 'https://a.example', credential: { bearer: { env: UNSET } } }";
    let env: Environment = [("AUDIT", "cAnaRy1"), ("SALES", "cAnaRy2")].into_iter().collect();
    let config = Config::from_yaml(yaml, &env).unwrap();
    let (secrets, unreadable) = SecretFiles::read(&config.sources, &env);
    let lines = unreadable.iter().map(ToString::to_string).collect();
    (config, env, secrets, lines)
}

#[test]
fn unreadable_secret_does_not_affect_other_sources() {
    let (config, _, secrets, _) = partly_readable();
    let held: Vec<_> = config.sources.keys().map(|name| secrets.current(name)).collect();
    assert!(matches!(&held[0], Some(Credential::Bearer(secret)) if secret.expose_secret() == "cAnaRy1"));
    assert!(matches!(&held[2], Some(Credential::ApiKey(secret)) if secret.expose_secret() == "cAnaRy2"));
    assert!(held[1].is_none() && held[3].is_none());
}

#[test]
fn unreadable_secret_error_names_the_option_and_the_cause() {
    let (.., lines) = partly_readable();
    assert!(
        lines[0].starts_with("sources.gone.credential: file ./no/such/file cannot be read: "),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["sources.unset.credential: environment variable UNSET is not set"]);
}

#[test]
fn debug_output_contains_no_secret() {
    let (config, env, secrets, _) = partly_readable();
    let shown = format!("{env:?} {secrets:?} {config:?}");
    assert!(!shown.contains("cAnaRy"), "{shown}");
}
