//! Test support: a scripted server on a real socket that records its requests, and test doubles of the ports. Not a
//! model of any upstream: each test provides the response bytes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::json;

use super::http::{BaseUrl, UpstreamHttpClient};
use super::upstreams::client::{SourceDeps, SourceSettings};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::job::Job;
use crate::domain::source::{CredentialState, CredentialStatus};
use crate::ports::clock::Clock;
use crate::ports::credentials::{Credential, Credentials};
use crate::ports::entropy::Entropy;
use crate::ports::upstream::FetchError;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl SeenRequest {
    /// The request line's target: path and query.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The `json` parameter, decoded.
    pub(crate) fn json(&self) -> serde_json::Value {
        let url = url::Url::parse(&format!("http://x{}", self.target())).unwrap();
        let (_, text) = url.query_pairs().find(|(name, _)| name == "json").unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// A server with scripted responses.
pub(crate) struct ScriptedServer {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<SeenRequest>>>,
}

impl ScriptedServer {
    /// Serves until the process ends, on its own threads. An empty response closes the connection.
    pub(crate) fn start(script: impl Fn(&SeenRequest) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, log) = (Arc::new(script), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    if let Some(request) = receive(&mut stream) {
                        log.lock().unwrap().push(request.clone());
                        stream.write_all(&script(&request)).ok();
                    }
                });
            }
        });
        Self { url, seen }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        self.seen.lock().unwrap().clone()
    }
}

fn receive(stream: &mut TcpStream) -> Option<SeenRequest> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse::<usize>().unwrap());
        if body.len() >= length {
            return Some(SeenRequest { head: head.to_owned(), body: body.to_owned() });
        }
    }
}

/// A complete response: status, extra header lines (each ending in CRLF) and body.
pub(crate) fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A JSON response.
pub(crate) fn json(status: u16, body: &serde_json::Value) -> Vec<u8> {
    answer(status, "content-type: application/json\r\n", body.to_string())
}

/// A clock with a fixed time.
#[derive(Debug)]
pub(crate) struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }
}

/// No jitter at all, so that tests do not wait.
#[derive(Debug)]
pub(crate) struct NoJitter;

impl Entropy for NoJitter {
    fn unit(&self) -> f64 {
        0.0
    }
}

/// The settings of a test's source, with its own server. The timeouts are long, so that slow machines do not fail tests
/// of other subjects.
pub(crate) fn settings(url: &str) -> SourceSettings {
    SourceSettings {
        name: SourceName::parse("s").unwrap(),
        base_url: BaseUrl::new(url.parse().unwrap()).unwrap(),
        per_second: 1_000,
        per_hour: 100_000,
        caller_share: 20,
        concurrency: 8,
        max_wait: Duration::from_mins(5),
        status_timeout: Duration::from_mins(5),
        rows_timeout: Duration::from_mins(5),
        max_status_body: 1 << 20,
        discovery: None,
        data_sources: Vec::new(),
        propagate_trace: false,
        max_rows_body: 4 << 20,
    }
}

/// The dependencies of a test's source.
pub(crate) fn deps(credentials: Arc<OneKey>) -> SourceDeps {
    SourceDeps {
        http_client: Arc::new(UpstreamHttpClient::new().unwrap()),
        credentials,
        clock: Arc::new(FixedClock),
        entropy: Arc::new(NoJitter),
        shared_store: None,
    }
}

/// An external id.
pub(crate) fn id(text: &str) -> ExternalId {
    ExternalId::parse(text).unwrap()
}

/// A label for the outcome of a fetch: the state, or the error's variant.
pub(crate) fn word(outcome: &Result<Arc<Job>, FetchError>) -> String {
    match outcome {
        Ok(job) => format!("{:?}", job.state()),
        Err(FetchError::Throttled { retry_after }) => format!("Throttled {}", retry_after.as_secs()),
        Err(error) => format!("{error:?}").chars().take_while(char::is_ascii_alphabetic).collect(),
    }
}

/// One credential for every source, which can be changed.
#[derive(Debug)]
pub(crate) struct OneKey(pub(crate) Mutex<Option<Credential>>);

impl OneKey {
    pub(crate) fn bearer(secret: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Credential::Bearer(SecretString::from(secret))))))
    }

    pub(crate) fn api_key(secret: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Credential::ApiKey(SecretString::from(secret))))))
    }
}

impl Credentials for OneKey {
    fn current(&self, _source: &SourceName) -> Option<Credential> {
        self.0.lock().unwrap().clone()
    }

    fn pending(&self, source: &SourceName) -> Vec<Credential> {
        self.current(source).into_iter().collect()
    }

    fn status(&self, source: &SourceName) -> CredentialStatus {
        let state = match self.current(source) {
            Some(_) => CredentialState::Active,
            None => CredentialState::Missing,
        };
        CredentialStatus { state, since: None, active_since: None, expires_at: None }
    }
}

/// Arbitrary JSON, down to `depth`, with the names and texts that a parser looks for more often than by chance.
pub(crate) fn any_json(
    names: &'static [&'static str],
    words: &'static [&'static str],
    depth: u32,
) -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        ".{0,12}".prop_map(|value| json!(value)),
        prop::sample::select(words).prop_map(|value| json!(value)),
    ];
    let name = prop::sample::select(names);
    leaf.prop_recursive(depth, 10 * depth, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
            prop::collection::vec((name.clone(), inner), 0..8).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}
