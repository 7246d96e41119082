//! The public listener with pages of other sites, clients above their limits and wrong keys: no rejected request
//! reaches an upstream, and no other client is affected.

use std::net::SocketAddr;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{MindBridgeJob, SimUpstream};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::server::{Rig, Setup, external};
use crate::support::streams::LIMIT;
use crate::support::wire::{self, Reply};

mod cors;
mod documents;
mod file_descriptors;
mod floods;
mod proxies;
mod refusals;
mod slow_clients;
pub(crate) mod tls;

const SERVER: &str = "listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0";
const QUERY: &str = r#"{ job(ref: { external: { source: "mind", externalId: "a" } }) { __typename } }"#;
const MUTATION: &str = r#"mutation { trackJobs(input: { refs: [{ external: { source: "mind", externalId: "a" } }] }) { __typename } }"#;

/// The clients `busy` and `calm`, whose keys are `jg_busy` and `jg_calm`.
fn clients() -> String {
    let client = |name: &str| {
        let hash = ClientConfig::hex(&keys::hash(&format!("jg_{name}")));
        format!("{{ name: {name}, key_sha256: \"{hash}\", sources: [mind, metrics] }}")
    };
    format!("clients: [{}, {}]", client("busy"), client("calm"))
}

async fn rig(rest: String) -> Rig {
    let mut jobs = ["a", "b", "c", "d"].map(|id| MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])).to_vec();
    jobs.push(MindBridgeJob::new("done", &[(0, "COMPLETE")]));
    Setup { rest, ..Setup::with(jobs, vec![]) }.start().await
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let lines = reply.head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

async fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    wire::exchange(to, &wire::request(method, path, headers, body)).await
}

fn in_url(query: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    format!("/graphql?query={encoded}")
}

/// A client's socket after the acknowledgement.
async fn socket(to: SocketAddr, key: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let mut request = "ws://localhost/graphql".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let init = json!({ "type": "connection_init", "payload": { "authorization": format!("Bearer {key}") } });
    socket.send(Message::text(init.to_string())).await.unwrap();
    assert_eq!(receive(&mut socket).await["type"], "connection_ack");
    socket
}

async fn receive(socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = socket.next().await.unwrap().unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn subscribe(
    socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>,
    id: &str,
    jobs: &[&str],
) -> Value {
    let refs: Vec<Value> = jobs.iter().map(|job| external("mind", job)).collect();
    let query = "subscription($refs: [JobRef!]!) { jobUpdates(refs: $refs) { kind } }";
    let payload = json!({ "query": query, "variables": { "refs": refs } });
    let message = json!({ "id": id, "type": "subscribe", "payload": payload });
    socket.send(Message::text(message.to_string())).await.unwrap();
    loop {
        let received = receive(socket).await;
        if received["id"] == id {
            return received;
        }
    }
}

#[tokio::test]
async fn the_request_rate_limit_applies_per_client_on_each_endpoint() {
    let rig = rig(format!("limits: {{ requests_per_second: 1, burst: 6 }}\n{}", clients())).await;
    let body = json!({ "query": QUERY });
    let began = Instant::now();
    let mut replies: Vec<Reply> = Vec::new();
    // ten, and on a slow machine as many more as are refilled meanwhile
    while replies.len() < 10 || replies.iter().all(|reply| reply.status == 200) {
        let some = (0..10).map(|_| wire::post(rig.public, Some("jg_busy"), &body));
        replies.extend(join_all(some).await);
    }
    let refused: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 200).collect();
    let let_in = u64::try_from(replies.len() - refused.len()).unwrap();
    let at_most = 6 + began.elapsed().as_secs() + 1;
    assert!((6..=at_most).contains(&let_in), "{let_in} of {} are accepted", replies.len());
    for reply in refused {
        assert_eq!(reply.refusal(), (429, "TOO_MANY_REQUESTS".to_owned()));
        assert_eq!(header(reply, "retry-after"), Some("1"));
        assert_eq!(reply.json()["errors"][0]["extensions"]["limit"], "requests_per_second");
    }
    let busy = [("authorization", "Bearer jg_busy")];
    let reply = loop {
        let some = (0..10).map(|_| send(rig.public, "GET", "/v1/jobs/mind/a", &busy, ""));
        if let Some(reply) = join_all(some).await.into_iter().find(|reply| reply.status != 200) {
            break reply;
        }
    };
    assert_eq!((reply.status, header(&reply, "content-type")), (429, Some("application/problem+json")));
    assert!(header(&reply, "retry-after").is_some());
    let mut theirs = socket(rig.public, "jg_busy").await;
    let received = loop {
        // so that none is left for the next one, unless that comes a second later
        join_all((0..10).map(|_| wire::post(rig.public, Some("jg_busy"), &body))).await;
        let received = subscribe(&mut theirs, "s", &["a"]).await;
        if received["type"] == "error" {
            break received;
        }
        theirs.send(Message::text(r#"{"id":"s","type":"complete"}"#)).await.unwrap();
    };
    assert_eq!(received["payload"][0]["extensions"]["code"], "TOO_MANY_REQUESTS", "{received}");
    for _ in 0..5 {
        assert_eq!(wire::post(rig.public, Some("jg_calm"), &body).await.status, 200);
    }
}

#[tokio::test]
async fn the_concurrency_limit_applies_per_client() {
    // the rate is not what is tested here, however often a request is repeated below
    let rig = &rig(format!(
        "limits: {{ concurrent_requests: 2, requests_per_second: 100000, burst: 100000 }}\n{}",
        clients()
    ))
    .await;
    let wait = |key: &'static str| async move {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str()), ("prefer", "wait=25")];
        // until the two have their permits; from then on it waits for the job
        while send(rig.public, "GET", "/v1/jobs/mind/a", &headers, "").await.status == 429 {}
    };
    let mut waiting = Box::pin(async { tokio::join!(wait("jg_busy"), wait("jg_busy")) });
    let body = json!({ "query": QUERY });
    let refused = async {
        loop {
            let reply = wire::post(rig.public, Some("jg_busy"), &body).await;
            if reply.status != 200 {
                return reply;
            }
        }
    };
    let reply = tokio::select! {
        _ = &mut waiting => None,
        reply = refused => Some(reply),
    };
    let reply = reply.unwrap();
    assert_eq!(reply.refusal(), (429, "TOO_MANY_REQUESTS".to_owned()));
    assert_eq!(reply.json()["errors"][0]["extensions"]["limit"], "concurrent_requests");
    assert_eq!(wire::post(rig.public, Some("jg_calm"), &body).await.status, 200);
    drop(waiting);
    let again = async { while wire::post(rig.public, Some("jg_busy"), &body).await.status != 200 {} };
    tokio::time::timeout(LIMIT, again).await.unwrap();
}

#[tokio::test]
async fn the_limit_of_watched_jobs_applies_per_client() {
    // the rate is not what is tested here, however often a request is repeated below
    let limits = "limits: { jobs_watched: 3, requests_per_second: 100000, burst: 100000 }";
    let rig = rig(format!("{limits}\n{}", clients())).await;
    let mut busy = socket(rig.public, "jg_busy").await;
    assert_eq!(subscribe(&mut busy, "1", &["a", "b"]).await["type"], "next");
    let received = subscribe(&mut busy, "2", &["c", "d"]).await;
    assert_eq!(received["payload"][0]["extensions"]["limit"], "jobs_watched", "{received}");
    assert_eq!(subscribe(&mut busy, "3", &["c"]).await["type"], "next");
    let mut calm = socket(rig.public, "jg_calm").await;
    assert_eq!(subscribe(&mut calm, "1", &["c", "d"]).await["type"], "next");
    drop(busy);
    let mut busy = socket(rig.public, "jg_busy").await;
    let again = async { while subscribe(&mut busy, "4", &["a", "b", "c"]).await["type"] != "next" {} };
    tokio::time::timeout(LIMIT, again).await.unwrap();
}

/// How many bad credentials of one address in a minute are answered with 401.
const BAD_CREDENTIALS: usize = 30;

/// A gateway with these trusted proxies.
async fn behind(trusted: &str) -> Rig {
    rig(format!("server: {{ {SERVER}, trusted_proxies: {trusted} }}\n{}", clients())).await
}

/// A query with this key, from a client of a proxy that names this address.
async fn attempt(rig: &Rig, key: &str, from: &str) -> Reply {
    let authorization = format!("Bearer {key}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", authorization.as_str()),
        ("x-forwarded-for", from),
    ];
    send(rig.public, "POST", "/graphql", &headers, &json!({ "query": QUERY }).to_string()).await
}

/// The same gateway after more bad credentials from `203.0.113.1` than the limit.
async fn blocked(trusted: &str) -> Rig {
    let rig = behind(trusted).await;
    let mut statuses = Vec::new();
    for _ in 0..BAD_CREDENTIALS + 2 {
        statuses.push(attempt(&rig, "jg_wrong", "203.0.113.1").await.status);
    }
    assert_eq!(statuses, [vec![401; BAD_CREDENTIALS], vec![429; 2]].concat());
    rig
}

/// No proxy is trusted, or the one that the tests are.
const TRUSTED: [&str; 2] = ["[]", "[127.0.0.0/8]"];

#[tokio::test]
async fn bad_credentials_are_counted_per_trusted_client_address() {
    for (trusted, other) in TRUSTED.into_iter().zip([429, 401]) {
        let rig = blocked(trusted).await;
        let refused = attempt(&rig, "jg_wrong", "9.9.9.9, 203.0.113.1").await;
        assert_eq!(
            refused.refusal(),
            (429, "TOO_MANY_REQUESTS".to_owned()),
            "the client's own header is not trusted"
        );
        assert!(header(&refused, "retry-after").unwrap().parse::<u64>().unwrap() <= 60);
        assert_eq!(attempt(&rig, "jg_wrong", "203.0.113.2").await.status, other, "{trusted}");
        assert_eq!(rig.calls(SimUpstream::MindBridge), 0);
    }
}

/// Other clients may share that address.
#[tokio::test]
async fn a_valid_key_is_accepted_from_a_blocked_address() {
    for trusted in TRUSTED {
        let rig = blocked(trusted).await;
        assert_eq!(attempt(&rig, "jg_calm", "203.0.113.1").await.status, 200, "{trusted}");
        assert_eq!(rig.calls(SimUpstream::MindBridge), 1);
    }
}

#[tokio::test]
async fn a_missing_credential_is_not_counted_as_a_bad_one() {
    let rig = behind(TRUSTED[0]).await;
    let headers = [("content-type", "application/json")];
    let body = json!({ "query": QUERY }).to_string();
    for _ in 0..BAD_CREDENTIALS + 2 {
        let none = send(rig.public, "POST", "/graphql", &headers, &body).await;
        assert_eq!(none.status, 401);
        assert_eq!(header(&none, "www-authenticate"), Some("Bearer"), "without an error code");
    }
    assert_eq!(attempt(&rig, "jg_wrong", "203.0.113.1").await.status, 401);
    assert_eq!(rig.calls(SimUpstream::MindBridge), 0);
}

#[tokio::test]
async fn a_request_without_a_credential_is_401_from_a_blocked_address() {
    let rig = blocked(TRUSTED[0]).await;
    let body = json!({ "query": QUERY }).to_string();
    let none = send(rig.public, "POST", "/graphql", &[("content-type", "application/json")], &body).await;
    assert_eq!((none.status, header(&none, "www-authenticate")), (401, Some("Bearer")));
}
