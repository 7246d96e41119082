//! The usual clients from npm and `PyPI`, as published and with their default options, against a real gateway on a real socket.
//! `tests/all.sh` installs them.

use std::path::Path;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{MindBridgeJob, MindBridgeStep};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::server::{Rig, Setup, external};

/// On the object type: without `possibleTypes` Apollo's cache drops a fragment on an interface.
const FOLLOW: &str = "subscription($refs: [JobRef!]!) { jobUpdates(refs: $refs) {
    kind isFinal result { ... on MindBridgeJob { state } ... on JobProblem { code } } } }";

/// The clients of `tests/clients/subscribe.mjs`.
const NPM: [&str; 7] =
    ["graphql-ws", "graphql-sse", "apollo-ws", "apollo-multipart", "urql-ws", "urql-fetch", "relay-ws"];
/// Those of `tests/clients/subscribe.py`.
const PYPI: [&str; 2] = ["gql-websockets", "gql-aiohttp"];

/// A running client.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(rig: &Rig, client: &str, query: &str, key: Option<&str>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join("tests/clients");
        let (program, script, package) = if PYPI.contains(&client) {
            let program = root.join("target/tools/clients/bin/python");
            (program.clone(), folder.join("subscribe.py"), program)
        } else {
            let package = folder.join("node_modules/relay-runtime/package.json");
            ("node".into(), folder.join("subscribe.mjs"), package)
        };
        assert!(package.exists(), "{} is missing: run tests/all.sh, which installs it", package.display());
        let mut command = Command::new(program);
        command.arg(script).arg(client).arg(format!("{}/graphql", rig.public));
        command.arg(query).arg(json!({ "refs": [external("mind", "a")] }).to_string());
        command.args(key.map(|key| format!("Bearer {key}")));
        let spawned = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn();
        assert!(spawned.is_ok(), "{client} does not start ({spawned:?}): run tests/all.sh");
        let mut child = spawned.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap();
        serde_json::from_str(&line.unwrap_or_else(|| "{\"end\":\"nothing\"}".to_owned())).unwrap()
    }

    async fn update(&mut self) -> [String; 3] {
        let answer = self.next().await;
        let update = &answer["data"]["jobUpdates"];
        [&update["kind"], &update["result"]["state"], &update["isFinal"]].map(|value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        })
    }

    /// Expects no more output, and that the client exits by itself.
    async fn over(mut self) {
        assert_eq!(self.lines.next_line().await.unwrap(), None);
        assert!(self.child.wait().await.unwrap().success());
    }
}

fn setup(rest: &str) -> Setup {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    setup.rest = format!("poll: {{ min_interval: 100ms, max_interval: 1s }}\n{rest}");
    setup
}

#[tokio::test]
async fn stock_clients_follow_a_job_to_complete() {
    let rig = setup("").start().await;
    let all = NPM.into_iter().chain(PYPI);
    let mut clients: Vec<_> = all.map(|name| (name, Client::start(&rig, name, FOLLOW, None))).collect();
    for (name, client) in &mut clients {
        assert_eq!(client.update().await, ["SNAPSHOT", "RUNNING", "false"], "{name}");
    }
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for (name, mut client) in clients {
        assert_eq!(client.update().await, ["ENDED", "SUCCEEDED", "true"], "{name}");
        assert_eq!(client.next().await, json!({ "end": "complete" }), "{name}");
        client.over().await;
    }
}

#[tokio::test]
async fn stock_clients_receive_a_terminal_state_at_once() {
    let rig = setup("").start().await;
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for transport in ["graphql-ws", "graphql-sse"] {
        let mut client = Client::start(&rig, transport, FOLLOW, None);
        assert_eq!(client.update().await, ["SNAPSHOT", "SUCCEEDED", "true"]);
        assert_eq!(client.next().await, json!({ "end": "complete" }));
    }
}

/// A gateway with the client `ui`.
async fn with_client() -> Rig {
    let hash = ClientConfig::hex(&keys::hash("jg_ui"));
    setup(&format!("clients: [{{ name: ui, key_sha256: \"{hash}\", sources: [mind] }}]")).start().await
}

#[tokio::test]
async fn stock_clients_report_a_rejected_credential() {
    let rig = with_client().await;
    let unknown = "Unauthorized: unknown client key or token";
    let missing = "Unauthorized: no credential; set \"authorization\": \"Bearer <key>\" in the payload of connection_init";
    for (client, key, end) in [
        ("graphql-ws", Some("jg_other"), json!({ "end": "error", "code": 4401, "reason": unknown })),
        ("graphql-ws", None, json!({ "end": "error", "code": 4401, "reason": missing })),
        ("graphql-sse", Some("jg_other"), json!({ "end": "error", "status": 401 })),
    ] {
        let mut client = Client::start(&rig, client, FOLLOW, key);
        assert_eq!(client.next().await, end, "{key:?}");
        client.over().await;
    }
    for (client, why) in [("gql-websockets", unknown), ("gql-aiohttp", "closed")] {
        let mut client = Client::start(&rig, client, FOLLOW, Some("jg_other"));
        let end = client.next().await;
        assert!(end["end"] == "error" && end["why"].as_str().unwrap().contains(why), "{end}");
    }
}

#[tokio::test]
async fn stock_clients_report_an_invalid_subscription() {
    let rig = with_client().await;
    let invalid = "subscription { unknown }";
    let mut client = Client::start(&rig, "graphql-ws", invalid, Some("jg_ui"));
    assert_eq!(client.next().await, json!({ "end": "error", "errors": ["GRAPHQL_VALIDATION_FAILED"] }));
    client.over().await;
    // on an event stream the protocol has no other form for it than a response
    let mut client = Client::start(&rig, "graphql-sse", invalid, Some("jg_ui"));
    assert_eq!(client.next().await["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(client.next().await, json!({ "end": "complete" }));
}

#[tokio::test]
async fn stock_clients_authenticate_with_a_client_key() {
    let rig = with_client().await;
    let all = NPM.into_iter().chain(PYPI);
    let clients: Vec<_> = all.map(|name| (name, Client::start(&rig, name, FOLLOW, Some("jg_ui")))).collect();
    for (name, mut client) in clients {
        assert_eq!(client.update().await, ["SNAPSHOT", "RUNNING", "false"], "{name}");
    }
}
