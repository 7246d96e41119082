//! Every surface with every caller that has no access, on the real process: each combination is rejected without an
//! upstream call. Each surface has its own tests of the details; this test proves that none was forgotten.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use jiff::ToSpan as _;
use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate::ports::clock::Clock as _;
use jobgate_simulator::{Addresses, MindBridgeJob, RecordedRequest, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Setup, TOKEN, external};
use crate::support::streams::LIMIT;
use crate::support::tokens::Issuer;
use crate::support::wire;

/// An allowed origin of a page, and a foreign one.
const ALLOWED: &str = "https://app.example";
const FOREIGN: &str = "https://evil.example";

/// An answer without a known word, or not yet.
const NOTHING: &str = "nothing known";

/// A way to reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    Post,
    Get,
    WebSocket,
    Sse,
    Multipart,
    Rest,
    /// The socket that the live page opens, from the gateway's own origin.
    Page,
}

const SURFACES: [Surface; 7] = [
    Surface::Post,
    Surface::Get,
    Surface::WebSocket,
    Surface::Sse,
    Surface::Multipart,
    Surface::Rest,
    Surface::Page,
];

/// A caller.
#[derive(Clone, Debug, Default)]
struct Visitor {
    token: Option<String>,
    origin: Option<&'static str>,
}

impl Visitor {
    fn with(token: &str) -> Self {
        Self { token: Some(token.to_owned()), origin: None }
    }

    /// Requests a job of `mind`, and returns one word for the outcome.
    async fn attempt(&self, gateway: SocketAddr, surface: Surface, job: &str) -> String {
        let query_text = "query($ref: JobRef!) { answer: job(ref: $ref) { ... on Job { state } ... on JobProblem { code } } }";
        let watch = "subscription($ref: JobRef!) { answer: jobUpdates(refs: [$ref]) {
            result { ... on Job { state } ... on JobProblem { code } } } }";
        let body = |query: &str| json!({ "query": query, "variables": { "ref": external("mind", job) } });
        let (method, path, accept, body) = match surface {
            Surface::WebSocket | Surface::Page => return self.socket(gateway, surface, &body(watch)).await,
            Surface::Post => {
                ("POST", "/graphql".to_owned(), "application/json", body(query_text).to_string())
            }
            Surface::Sse => ("POST", "/graphql".to_owned(), "text/event-stream", body(watch).to_string()),
            Surface::Multipart => ("POST", "/graphql".to_owned(), "multipart/mixed", body(watch).to_string()),
            Surface::Rest => ("GET", format!("/v1/jobs/mind/{job}"), "application/json", String::new()),
            Surface::Get => {
                let [query, variables] = [query_text.to_owned(), body(query_text)["variables"].to_string()]
                    .map(|text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
                let path = format!("/graphql?query={query}&variables={variables}");
                ("GET", path, "application/json", String::new())
            }
        };
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("accept", accept)];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(self.origin.map(|origin| ("origin", origin)));
        // how many attempts fail until the configuration is active depends on the machine
        let from = wire::fresh_address();
        headers.push(("x-forwarded-for", &from));
        first_word(gateway, &wire::request(method, &path, &headers, &body)).await
    }

    /// The same over a WebSocket: the credential is in the `connection_init`.
    async fn socket(&self, gateway: SocketAddr, surface: Surface, body: &Value) -> String {
        let mut request = "ws://localhost/graphql".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
        let own = (surface == Surface::Page).then_some("http://localhost");
        if let Some(origin) = self.origin.or(own) {
            headers.insert("origin", origin.parse().unwrap());
        }
        let stream = TcpStream::connect(gateway).await.unwrap();
        let mut socket = match client_async(request, stream).await {
            Ok((socket, _)) => socket,
            Err(tokio_tungstenite::tungstenite::Error::Http(reply)) => {
                return word(
                    reply.status().as_u16(),
                    &String::from_utf8_lossy(reply.body().as_deref().unwrap()),
                );
            }
            Err(error) => return error.to_string(),
        };
        let payload = self.token.as_ref().map(|token| json!({ "authorization": format!("Bearer {token}") }));
        let init = json!({ "type": "connection_init", "payload": payload.unwrap_or_else(|| json!({})) });
        let subscribe = json!({ "id": "1", "type": "subscribe", "payload": body });
        for message in [init, subscribe] {
            socket.send(Message::text(message.to_string())).await.ok();
        }
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) if text.contains("connection_ack") => {}
                Message::Text(text) => return word(200, &text),
                Message::Close(frame) => {
                    return frame.map_or_else(String::new, |frame| frame.code.to_string());
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        "cut".to_owned()
    }
}

/// Sends a request, and returns the first part of the answer: a stream does not end.
async fn first_word(gateway: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway).await.unwrap();
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let more = socket.read_buf(&mut answer).await.unwrap() > 0;
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let expected = word(status, &text);
        if !more || !expected.ends_with(NOTHING) {
            return expected;
        }
    }
}

/// The state or the error code in an answer of any format, after its status if that is not 200.
fn word(status: u16, body: &str) -> String {
    let known = ["NOT_FOUND", "UNAUTHENTICATED", "ORIGIN_NOT_ALLOWED", "RUNNING"];
    let expected = known.iter().find(|word| body.contains(**word)).copied().unwrap_or(NOTHING);
    if status == 200 { expected.to_owned() } else { format!("{status} {expected}") }
}

/// The answer to an unknown caller, to a foreign page, and for a job that may not be read.
fn expected(surface: Surface, why: &str) -> String {
    let text = match (surface, why) {
        (Surface::WebSocket | Surface::Page, "unknown") => "4401",
        (Surface::WebSocket | Surface::Page, "expired") => "4403",
        (_, "unknown" | "expired") => "401 UNAUTHENTICATED",
        (_, "foreign page") => "403 ORIGIN_NOT_ALLOWED",
        (Surface::Rest, _) => "404 NOT_FOUND",
        (_, _) => "NOT_FOUND",
    };
    text.to_owned()
}

fn clients(revoked: bool) -> String {
    let client = |name: &str, hashes: &[&str], source: &str| {
        let hashes: Vec<String> =
            hashes.iter().map(|key| format!("\"{}\"", ClientConfig::hex(&keys::hash(key)))).collect();
        format!("{{ name: {name}, key_sha256: [{}], sources: [{source}] }}", hashes.join(", "))
    };
    let ours: &[&str] = if revoked { &["jg_good"] } else { &["jg_good", "jg_taken_back"] };
    format!("clients: [{}, {}]", client("ui", ours, "mind"), client("sales", &["jg_sales"], "metrics"))
}

/// Repeats an attempt until this is the outcome.
async fn attempt_until(visitor: &Visitor, gateway: SocketAddr, expected: &str) {
    let knocking = async {
        let mut again = tokio::time::interval(Duration::from_millis(200));
        while visitor.attempt(gateway, Surface::Rest, "a").await != expected {
            again.tick().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, knocking).await.is_ok(), "the outcome never was {expected:?}");
}

/// Each surface with each caller.
#[derive(Debug)]
struct Matrix {
    /// Callers with access, and their answers.
    accepted: Vec<(String, String)>,
    /// Callers without access, the expected refusals, and the answers.
    rejected: Vec<(String, String, String)>,
    /// The fetches of the job that only callers without access requested.
    fetches: usize,
    /// The answer to a caller with access to that job.
    exists: String,
}

/// The outcome of one run for all tests of this file.
async fn matrix() -> &'static Matrix {
    static RUN: OnceCell<Matrix> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(attempt_all())).await
}

async fn attempt_all() -> Matrix {
    let issuer = Issuer::start().await;
    let jobs = ["a", "b", "secret"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    let mut setup = Setup::with(jobs.into(), vec![]);
    let simulator = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let rest = |revoked| {
        let server = format!(
            "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, allowed_origins: [\"{ALLOWED}\"], \
             trusted_proxies: [127.0.0.1] }}"
        );
        format!("{server}\n{}\n{}", clients(revoked), issuer.section("[mind]"))
    };
    let (mind, metrics) = (simulator.mindbridge_url(), simulator.supermetrics_url());
    setup.rest = rest(false);
    let config = Scratch::new(&setup.yaml(&mind, &metrics));
    let env = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    let mut process = Process::start(&["serve", "--config", config.path()], &env);
    let gateway = process.address("public").await;
    let now = jobgate::outbound::system::SystemClock.now();
    let until = |span: jiff::Span| (now + span).as_second();

    // the fetch of the issuer's keys is awaited by retrying
    let fresh = Visitor::with(&issuer.token("ana", until(1.hour())));
    attempt_until(&fresh, gateway, "RUNNING").await;
    let make = "mutation($ref: JobRef!) { createWatchToken(input: { refs: [$ref] }) { token } }";
    let mut watch_tokens = Vec::new();
    for job in ["a", "b"] {
        let body = json!({ "query": make, "variables": { "ref": external("mind", job) } });
        let made = wire::post(gateway, Some("jg_good"), &body).await.data();
        watch_tokens.push(Visitor::with(made["createWatchToken"]["token"].as_str().unwrap()));
    }
    let elsewhere = watch_tokens.pop().unwrap();
    let taken_back = Visitor::with("jg_taken_back");
    let welcome = [
        Visitor::with("jg_good"),
        Visitor { origin: Some(ALLOWED), ..Visitor::with("jg_good") },
        taken_back.clone(),
        fresh,
        watch_tokens.pop().unwrap(),
    ];
    let mut accepted = Vec::new();
    for surface in SURFACES {
        for visitor in &welcome {
            let answer = visitor.attempt(gateway, surface, "a").await;
            accepted.push((format!("{surface:?} {visitor:?}"), answer));
        }
    }

    setup.rest = rest(true);
    std::fs::write(config.path(), setup.yaml(&mind, &metrics)).unwrap();
    process.signal("HUP").await;
    attempt_until(&taken_back, gateway, &expected(Surface::Rest, "unknown")).await;

    let expired = Visitor::with(&issuer.token("ana", until(-(2.minutes()))));
    let strangers = [
        ("unknown", Visitor::default()),
        ("unknown", Visitor::with("jg_bad")),
        ("unknown", Visitor::with("a.b.c")),
        ("unknown", Visitor::with("jgw_a.b")),
        ("expired", expired),
        ("unknown", taken_back),
        ("not granted", Visitor::with("jg_sales")),
        ("foreign page", Visitor { origin: Some(FOREIGN), ..Visitor::with("jg_good") }),
        ("not granted", elsewhere),
    ];
    let mut rejected = Vec::new();
    for surface in SURFACES {
        for (why, visitor) in &strangers {
            let answer = visitor.attempt(gateway, surface, "secret").await;
            rejected.push((format!("{surface:?} {visitor:?}"), expected(surface, why), answer));
        }
    }
    let is_secret = |request: &RecordedRequest| request.ids.iter().any(|id| id == "secret");
    let fetches = simulator.handle().record().into_iter().filter(is_secret).count();
    let exists = Visitor::with("jg_good").attempt(gateway, Surface::Post, "secret").await;
    Matrix { accepted, rejected, fetches, exists }
}

#[tokio::test]
async fn authorized_clients_are_accepted_on_every_endpoint() {
    let Matrix { accepted, exists, .. } = matrix().await;
    for (visitor, answer) in accepted {
        assert_eq!(answer, "RUNNING", "{visitor}");
    }
    assert_eq!(exists, "RUNNING", "the job of the refusals exists");
}

#[tokio::test]
async fn unauthorized_clients_are_rejected_on_every_endpoint() {
    for (visitor, expected, answer) in &matrix().await.rejected {
        assert_eq!(answer, expected, "{visitor}");
    }
}

#[tokio::test]
async fn a_rejected_client_causes_no_upstream_call() {
    assert_eq!(matrix().await.fetches, 0);
}
