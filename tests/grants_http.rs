//! On the wire: a forbidden job and a job that does not exist have the same answer byte for byte, except for the
//! request id and the date, by every path; and a watch token permits its jobs.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use jobgate::config::ClientConfig;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::outbound::identity::keys;
use jobgate_simulator::{MindBridgeJob, SimUpstream, SupermetricsJob};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::server::{ANY, Rig, Setup, external};
use crate::support::streams::room_for;
use crate::support::wire::{self, Reply};

/// `whole` reads everything, `kinds` the exports of `mind`, `label` the tracked jobs of the blue team there.
async fn rig() -> Rig {
    rig_with("").await
}

/// The same with further options of `mind`.
async fn rig_with(mind_options: &'static str) -> Rig {
    let of_kind = |id: &str, kind: &str| MindBridgeJob {
        kind: kind.to_owned(),
        ..MindBridgeJob::new(id, &[(0, "IN_PROGRESS")])
    };
    let mind = vec![of_kind("export1", "EXPORT"), of_kind("hidden1", "REPORT")];
    let mut setup = Setup::with(mind, vec![SupermetricsJob::new("query01", &[(0, "RUNNING")])]);
    setup.mind = mind_options;
    setup.source = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 4m";
    let client = |name: &str, sources: &str| {
        let hash = ClientConfig::hex(&keys::hash(&format!("jg_{name}")));
        format!("  - {{ name: {name}, key_sha256: \"{hash}\", sources: {sources} }}\n")
    };
    setup.rest = [
        // on a machine without CPU time no timeout may change the answers that are compared
        "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, request_timeout: 5m }\n",
        "streams: { ping_interval: 1h }\n",
        "poll: { min_interval: 100ms, max_interval: 1s, missing_for: 1s }\nclients:\n",
        &client("whole", "[mind, metrics]"),
        &client("kinds", "{ mind: { kinds: [EXPORT] } }"),
        &client("label", "{ mind: { labels: { team: blue } } }"),
    ]
    .concat();
    setup.start().await
}

fn node_id(source: &str, id: &str) -> String {
    let (source, external_id) = (SourceName::parse(source).unwrap(), ExternalId::parse(id).unwrap());
    JobKey { source, external_id }.node_id()
}

const MAKE: &str =
    "mutation($refs: [JobRef!]!) { createWatchToken(input: { refs: $refs }) { token expiresAt } }";
const WATCH: &str = "subscription($ref: JobRef!) { jobUpdates(refs: [$ref]) { kind sequence isFinal result ";

async fn token(rig: &Rig, refs: Value) -> String {
    let body = json!({ "query": MAKE, "variables": { "refs": refs } });
    let reply = wire::post(rig.public, Some("jg_whole"), &body).await;
    assert!(reply.head.to_lowercase().contains("cache-control: no-store"), "{}", reply.head);
    reply.data()["createWatchToken"]["token"].as_str().unwrap().to_owned()
}

/// Every way to refer to a job, as the bytes of a request.
fn requests(secret: &str, source: &str, id: &str) -> Vec<(String, Vec<u8>)> {
    let bearer = format!("Bearer {secret}");
    let by_name = external(source, id);
    let mut requests = Vec::new();
    let mut post = |name: &str, accept: &str, query: String| {
        for reference in [&by_name, &json!({ "id": node_id(source, id) })] {
            let variables = json!({ "ref": reference, "id": node_id(source, id) });
            let body = json!({ "query": query, "variables": variables }).to_string();
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
                ("accept", accept),
            ];
            requests.push((name.to_owned(), wire::request("POST", "/graphql", &headers, &body)));
        }
    };
    let json = "application/json";
    post("job", json, format!("query($ref: JobRef!) {{ job(ref: $ref, maxStaleness: \"0ms\") {ANY} }}"));
    post("job, held", json, format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}"));
    post("jobs", json, format!("query($ref: JobRef!) {{ jobs(refs: [$ref, $ref]) {ANY} }}"));
    post("jobAwait", json, format!("query($ref: JobRef!) {{ jobAwait(ref: $ref, timeout: \"3m\") {ANY} }}"));
    post(
        "node",
        json,
        "query($id: ID!) { node(id: $id) { __typename id } nodes(ids: [$id]) { id } }".to_owned(),
    );
    post(
        "trackJobs",
        json,
        format!("mutation($ref: JobRef!) {{ trackJobs(input: {{ refs: [$ref] }}) {{ results {ANY} }} }}"),
    );
    post(
        "untrackJobs",
        json,
        "mutation($ref: JobRef!) { untrackJobs(input: { refs: [$ref] }) { untracked } }".to_owned(),
    );
    if (secret, source) != ("jg_kinds", "mind") {
        // a client restricted to kinds gets a token for any job of its source: the token then permits nothing
        post(
            "createWatchToken",
            json,
            MAKE.replace("$refs: [JobRef!]!", "$ref: JobRef!").replace("$refs", "[$ref]"),
        );
    }
    post("sse", "text/event-stream", format!("{WATCH} {ANY} }} }}"));
    post("multipart", "multipart/mixed;subscriptionSpec=1.0", format!("{WATCH} {ANY} }} }}"));
    let path = format!("/v1/jobs/{source}/{id}");
    for (method, extra) in [
        ("GET", ("accept", "*/*")),
        ("GET", ("prefer", "wait=20")),
        ("GET", ("if-none-match", "*")),
        ("HEAD", ("accept", "*/*")),
    ] {
        let headers = [("authorization", bearer.as_str()), extra];
        requests.push((format!("{method} {extra:?}"), wire::request(method, &path, &headers, "")));
    }
    requests
}

/// The bytes of a reply, with the legitimate differences removed.
fn bytes(reply: &Reply, source: &str, id: &str) -> String {
    let same = |line: &&str| {
        let line = line.to_lowercase();
        let timed = ["date:", "x-request-id:", "retry-after:", "content-length:"];
        !timed.iter().any(|name| line.starts_with(name))
    };
    let head: Vec<&str> = reply.head.lines().filter(same).collect();
    let whole = format!("{}\n\n{}", head.join("\n"), reply.body);
    without_retry(&whole).replace(&node_id(source, id), "NODE").replace(id, "ID").replace(source, "SOURCE")
}

/// A text without what depends on the time since the first request, and so on the speed of this machine; `grants`
/// compares that on a paused clock.
fn without_retry(text: &str) -> String {
    text.replace("\"retryable\":true,\"retryAfterMs\":1000", "\"retryable\":false,\"retryAfterMs\":null")
}

/// What a socket receives about a job until it is complete.
async fn socket(to: SocketAddr, secret: &str, source: &str, id: &str) -> Vec<String> {
    let mut request = format!("ws://{to}/graphql").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    headers.insert("authorization", format!("Bearer {secret}").parse().unwrap());
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let payload =
        json!({ "query": format!("{WATCH} {ANY} }} }}"), "variables": { "ref": external(source, id) } });
    for message in
        [json!({ "type": "connection_init" }), json!({ "type": "subscribe", "id": "1", "payload": payload })]
    {
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let mut texts = Vec::new();
    loop {
        let message =
            tokio::time::timeout(Duration::from_mins(5), socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = message {
            texts.push(without_retry(&text).replace(id, "ID").replace(source, "SOURCE"));
            if text.contains("\"complete\"") {
                return texts;
            }
        }
    }
}

/// Fails unless both jobs have the same answer by every path. Returns the number of paths.
async fn same(to: SocketAddr, secret: &str, there: (&str, &str), absent: (&str, &str)) -> usize {
    let texts = async |(source, id): (&str, &str)| {
        let requests = requests(secret, source, id);
        let replies = join_all(requests.iter().map(|(_, request)| wire::exchange(to, request)));
        let (replies, stream) = tokio::join!(replies, socket(to, secret, source, id));
        let replies =
            requests.iter().zip(&replies).map(|((name, _), reply)| (name.clone(), bytes(reply, source, id)));
        (replies.collect::<Vec<_>>(), stream)
    };
    let ((theirs, their_stream), (nobodys, nobodys_stream)) = tokio::join!(texts(there), texts(absent));
    for ((name, theirs), (_, nobodys)) in theirs.iter().zip(&nobodys) {
        assert_eq!(theirs, nobodys, "{name} {there:?} {absent:?}");
        assert!(!theirs.contains("RUNNING") && !theirs.contains("REPORT"), "{name}: {theirs}");
    }
    assert_eq!(their_stream, nobodys_stream);
    assert!(their_stream.iter().any(|message| message.contains("NOT_FOUND")), "{their_stream:?}");
    theirs.len()
}

#[tokio::test]
async fn hidden_and_missing_jobs_are_answered_with_equal_bytes() {
    room_for(3_000);
    let rig = rig().await;
    let token = token(&rig, json!([external("mind", "export1")])).await;
    let mut compared = 0;
    for held in [false, true] {
        if held {
            for reference in [external("mind", "hidden1"), external("metrics", "query01")] {
                let query = format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} }}");
                let body = json!({ "query": query, "variables": { "ref": reference } });
                assert_eq!(
                    wire::post(rig.public, Some("jg_whole"), &body).await.data()["job"]["state"],
                    "RUNNING"
                );
            }
        }
        let metrics = rig.calls(SimUpstream::Supermetrics);
        // one after the other: all at once, the longest wait of `Prefer: wait` would be too short for a slow
        // machine
        for secret in ["jg_kinds", "jg_label", token.as_str()] {
            let pairs = [
                (("mind", "hidden1"), ("mind", "missing")),
                (("metrics", "query01"), ("nowhere", "query01")),
                (("metrics", "query01"), ("metrics", "missing")),
            ];
            let all = pairs.map(|(there, absent)| same(rig.public, secret, there, absent));
            compared += join_all(all).await.into_iter().sum::<usize>();
        }
        assert_eq!(rig.calls(SimUpstream::Supermetrics), metrics, "no call to a foreign source");
    }
    assert_eq!(compared, 2 * (9 * 24 - 2));
    rig.assert_well_behaved();
}

/// The ids of the jobs that a client lists, with these labels.
async fn listed(rig: &Rig, secret: &str, labels: Value) -> Vec<String> {
    let query = "query($labels: [LabelInput!]) { jobList(filter: { labels: $labels }, first: 100) { nodes { externalId } } }";
    let body = json!({ "query": query, "variables": { "labels": labels } });
    let data = wire::post(rig.public, Some(secret), &body).await.data();
    let nodes = data["jobList"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["externalId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_discovered_job_is_hidden_on_every_path_like_a_missing_one() {
    room_for(3_000);
    let rig = rig_with(", discovery: { enabled: true }").await;
    let token = token(&rig, json!([external("mind", "export1")])).await;
    while listed(&rig, "jg_whole", json!(null)).await != ["export1", "hidden1"] {
        tokio::task::yield_now().await;
    }
    assert_eq!(listed(&rig, "jg_kinds", json!(null)).await, ["export1"]);
    assert_eq!(listed(&rig, "jg_label", json!(null)).await, [""; 0]);
    assert_eq!(listed(&rig, token.as_str(), json!(null)).await, ["export1"]);
    let blue = json!([{ "name": "team", "value": "blue" }]);
    for secret in ["jg_whole", "jg_kinds", "jg_label"] {
        assert_eq!(listed(&rig, secret, blue.clone()).await, [""; 0], "{secret}");
    }
    for secret in ["jg_kinds", "jg_label", token.as_str()] {
        assert!(same(rig.public, secret, ("mind", "hidden1"), ("mind", "missing")).await > 20);
    }
    rig.assert_well_behaved();
}

#[tokio::test]
async fn a_watch_token_created_over_http_reads_and_watches_its_job() {
    let rig = rig().await;
    let token = token(&rig, json!([external("mind", "export1")])).await;
    assert!(token.starts_with("jgw_"));
    let query =
        format!("query($ref: JobRef!) {{ job(ref: $ref) {ANY} sources {{ name budget {{ inFlight }} }} }}");
    let body = json!({ "query": query, "variables": { "ref": external("mind", "export1") } });
    let read = wire::post(rig.public, Some(&token), &body).await.data();
    assert_eq!(
        (&read["job"]["state"], &read["sources"]),
        (&json!("RUNNING"), &json!([{ "name": "mind", "budget": null }]))
    );
    let bearer = format!("Bearer {token}");
    let rest = wire::request("GET", "/v1/jobs/mind/export1", &[("authorization", &bearer)], "");
    assert_eq!(wire::exchange(rig.public, &rest).await.status, 200);
    rig.upstreams.set_state("export1", jobgate_simulator::MindBridgeStep::new("COMPLETE")).unwrap();
    let texts = socket(rig.public, &token, "mind", "export1").await;
    assert!(texts.iter().any(|message| message.contains("SUCCEEDED")), "{texts:?}");
    let tracked = json!({ "query": "mutation($ref: JobRef!) { trackJobs(input: { refs: [$ref] }) { results { __typename } } }", "variables": { "ref": external("mind", "export1") } });
    assert_eq!(wire::post(rig.public, Some(&token), &tracked).await.refusal().1, "FORBIDDEN");
    let (most, last) = token.split_at(token.len() - 1);
    for forged in
        [most.to_owned(), format!("{most}{}", if last == "A" { "B" } else { "A" }), "jgw_".to_owned()]
    {
        assert_eq!(
            wire::post(rig.public, Some(&forged), &body).await.refusal(),
            (401, "UNAUTHENTICATED".to_owned())
        );
    }
}
