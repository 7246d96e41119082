//! The npm clients `graphql-ws` and `graphql-sse`, as published, against a real gateway on a real socket.
//! `tests/all.sh` installs them.

use std::path::Path;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate::simulator::{MindBridgeJob, MindBridgeStep};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::server::{Rig, Setup, external};

const FOLLOW: &str = "subscription($refs: [JobRef!]!) { jobUpdates(refs: $refs) {
    kind isFinal result { ... on Job { state } ... on JobProblem { code } } } }";

/// A client at work.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(rig: &Rig, transport: &str, query: &str, key: Option<&str>) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let package = folder.join("node_modules/graphql-ws/package.json");
        let missing = "is missing: run `npm ci` in tests/clients, or tests/all.sh";
        assert!(package.exists(), "{} {missing}", package.display());
        let mut command = Command::new("node");
        command.arg(folder.join("subscribe.mjs")).arg(transport).arg(format!("{}/graphql", rig.public));
        command.arg(query).arg(json!({ "refs": [external("mind", "a")] }).to_string());
        command.args(key.map(|key| format!("Bearer {key}")));
        let spawned = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn();
        assert!(spawned.is_ok(), "node does not start ({spawned:?}): install Node.js, or run tests/all.sh");
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

    /// Expects nothing more, and that the client ends by itself.
    async fn over(mut self) {
        assert_eq!(self.lines.next_line().await.unwrap(), None);
        assert!(self.child.wait().await.unwrap().success());
    }
}

fn setup(rest: &str) -> Setup {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    // a client of a busy machine may take its time for its first message
    let patient = "streams: { init_timeout: 60s }";
    setup.rest = format!("follow: {{ fastest: 100ms, slowest: 1s }}\n{patient}\n{rest}");
    setup
}

#[tokio::test]
async fn the_npm_clients_follow_a_job_to_complete() {
    let rig = setup("").start().await;
    let mut clients = ["ws", "sse"].map(|transport| Client::start(&rig, transport, FOLLOW, None));
    for client in &mut clients {
        assert_eq!(client.update().await, ["SNAPSHOT", "RUNNING", "false"]);
    }
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    for mut client in clients {
        assert_eq!(client.update().await, ["ENDED", "SUCCEEDED", "true"]);
        assert_eq!(client.next().await, json!({ "end": "complete" }));
        client.over().await;
    }
    // whoever comes later gets the end at once
    for transport in ["ws", "sse"] {
        let mut client = Client::start(&rig, transport, FOLLOW, None);
        assert_eq!(client.update().await, ["SNAPSHOT", "SUCCEEDED", "true"]);
        assert_eq!(client.next().await, json!({ "end": "complete" }));
    }
}

#[tokio::test]
async fn the_npm_clients_understand_how_they_are_refused() {
    let hash = ClientConfig::hex(&keys::hash("jg_ui"));
    let rest = format!("clients: [{{ name: ui, key_sha256: \"{hash}\", sources: [mind] }}]");
    let rig = setup(&rest).start().await;
    let invalid = "subscription { unknown }";
    for (transport, query, key, end) in [
        ("ws", invalid, "jg_ui", json!({ "end": "error", "errors": ["GRAPHQL_VALIDATION_FAILED"] })),
        ("ws", FOLLOW, "jg_other", json!({ "end": "error", "code": 4403 })),
        ("sse", FOLLOW, "jg_other", json!({ "end": "error", "status": 401 })),
    ] {
        let mut client = Client::start(&rig, transport, query, Some(key));
        assert_eq!(client.next().await, end, "{transport} {key} {query}");
        client.over().await;
    }
    // on an event stream the protocol has no other form for it than an answer
    let mut client = Client::start(&rig, "sse", invalid, Some("jg_ui"));
    assert_eq!(client.next().await["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(client.next().await, json!({ "end": "complete" }));
    for transport in ["ws", "sse"] {
        let mut client = Client::start(&rig, transport, FOLLOW, Some("jg_ui"));
        assert_eq!(client.update().await, ["SNAPSHOT", "RUNNING", "false"]);
    }
}
