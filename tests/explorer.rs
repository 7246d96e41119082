//! GraphiQL as a person uses it: in a real Chromium, against the real binary, with the files that `graphiql/build.sh` makes.

use std::path::Path;
use std::process::Stdio;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{Addresses, Scenario, Simulator};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::wire;

const ANY_PORT: &str = "127.0.0.1:0";

async fn demo() -> (Process, std::net::SocketAddr) {
    let mut demo = Process::start(&["demo", "--listen", ANY_PORT, "--admin-listen", ANY_PORT], &[]);
    let address = demo.address("public").await;
    (demo, address)
}

/// Runs the query and the subscription of an example, and returns what was shown.
async fn explore(address: std::net::SocketAddr, key: Option<&str>) -> Value {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let folder = Path::new(env!("CARGO_BIN_EXE_jobgate")).parent().and_then(Path::parent).unwrap();
    let files = folder.join("share/jobgate/graphiql/graphiql.js.gz");
    for needed in
        [clients.join("node_modules/playwright-core/package.json"), files, "/usr/bin/chromium".into()]
    {
        assert!(needed.exists(), "{} is missing: run tests/all.sh, which installs it", needed.display());
    }
    let mut command = Command::new("node");
    command.arg(clients.join("graphiql.mjs")).arg(format!("http://{address}/graphiql")).args(key);
    let output = command.stdout(Stdio::piped()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn assert_explored(seen: &Value) {
    assert_eq!(seen["tabs"], json!(["MindBridgeJob", "SupermetricsJob", "EveryJob", "Sources"]));
    assert!(
        seen["query"].as_str().unwrap().contains("\"externalId\": \"65f0c0ffee00000000000001\""),
        "{seen}"
    );
    assert!(seen["last"].as_str().unwrap().contains("\"state\": \"SUCCEEDED\""), "{seen}");
    assert_eq!(seen["sockets"], json!(["/graphql"]), "the subscription came by WebSocket");
    assert_eq!(seen["elsewhere"], json!([]), "the explorer calls other hosts");
    assert_eq!(seen["console"], json!([]), "the browser reports errors");
    assert_eq!((&seen["stored"], &seen["keyStored"]), (&json!(0), &json!(false)), "{seen}");
}

#[tokio::test]
async fn graphiql_runs_a_query_and_a_subscription() {
    let (demo, address) = demo().await;
    assert_explored(&explore(address, None).await);
    demo.signal("TERM").await;
    demo.ended().await;
}

/// With clients and introspection: a key in the headers opens queries, and subscriptions by `connection_init`.
#[tokio::test]
async fn graphiql_uses_a_key_and_stores_none() {
    let hash = ClientConfig::hex(&keys::hash("jg_explorer"));
    let upstreams = Simulator::start(Scenario::demo(), Addresses::ephemeral()).await.unwrap();
    let config = Scratch::new(&format!(
        "server: {{ listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0 }}\nstore: {{ kind: memory }}\n\
         sources: {{ audit: {{ upstream: mindbridge, base_url: \"{}\", credential: {{ bearer: {{ env: TOKEN }} }} }} }}\n\
         clients: [{{ name: explorer, key_sha256: \"{hash}\", sources: [audit] }}]\ngraphql: {{ introspection: on }}\n",
        upstreams.mindbridge_url()
    ));
    let env = [("TOKEN", "demo-mindbridge-token")];
    let mut gateway = Process::start(&["serve", "--config", config.path()], &env);
    let address = gateway.address("public").await;
    let mut seen = explore(address, Some("jg_explorer")).await;
    // the browser itself reports the 401 of the first introspection, which has no key yet
    let console = seen["console"].take();
    let unexpected: Vec<&Value> =
        console.as_array().unwrap().iter().filter(|line| !line.to_string().contains("401")).collect();
    assert_eq!(unexpected, Vec::<&Value>::new());
    seen["console"] = json!([]);
    assert_explored(&seen);
    gateway.signal("TERM").await;
    gateway.ended().await;
}

#[tokio::test]
async fn every_example_of_graphiql_is_answered() {
    let (demo, address) = demo().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("graphiql/examples");
    let mut operations = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let id = if text.contains("MindBridge") {
            json!({ "source": "audit", "externalId": "65f0c0ffee00000000000001" })
        } else {
            json!({ "source": "marketing", "externalId": "demo_sales_2026" })
        };
        let variables = if text.contains("$ref") { json!({ "ref": { "external": id } }) } else { json!({}) };
        for line in text.lines() {
            let Some((kind, rest)) =
                line.split_once(' ').filter(|(kind, _)| ["query", "subscription"].contains(kind))
            else {
                continue;
            };
            operations += 1;
            let name = rest.split(['(', ' ']).next().unwrap();
            let body = json!({ "query": text, "operationName": name, "variables": variables });
            let reply = wire::post(address, None, &body).await;
            if kind == "query" {
                let data = reply.data();
                assert!(data.as_object().unwrap().values().all(|value| !value.is_null()), "{name}: {data}");
                assert!(!data.to_string().contains("\"code\""), "{name}: {data}");
            } else {
                // valid, and refused only because it was sent over a transport with a single response
                let code = &reply.json()["errors"][0]["extensions"]["code"];
                assert_eq!(code, "SUBSCRIPTION_NEEDS_STREAM", "{name}: {}", reply.json());
            }
        }
    }
    assert_eq!(operations, 7, "the examples were read");
    demo.signal("TERM").await;
    demo.ended().await;
}
