//! Every code block of the documents is run as a reader would run it: shell commands against the demo and a configured
//! gateway, GraphQL against the schema, configuration by the loader, `PromQL` by promtool, `JavaScript` by Node's
//! parser. A block that needs a cluster, a registry or a third party is only parsed, and is listed in [`PARSED_ONLY`]
//! with its reason.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use jobgate::config::{Config, Environment};
use jobgate_simulator::{Addresses, Scenario, Simulator};
use serde_json::{Value, json};

use crate::support::process::{Process, run};
use crate::support::scratch::{Scratch, ScratchFolder};
use crate::support::wire;

/// Blocks that are parsed and not run: the document, a part of the block, and why.
const PARSED_ONLY: [(&str, &str, &str); 19] = [
    ("README.md", "-- demo", "it is the gateway that the other blocks are run against"),
    ("README.md", "bash tests/all.sh", "it runs this test"),
    ("clients/typescript/README.md", "npm install", "it needs a registry"),
    ("clients/python/README.md", "pip install", "it needs a registry"),
    ("examples/README.md", "npm install", "it needs a registry"),
    ("docs/cli.md", "jobgate demo\n", "it is the gateway that the other blocks are run against"),
    ("docs/configuration.md", "key_sha256:\n  -", "a part of a client"),
    ("docs/graphql-over-http.md", "\"errors\"", "an answer"),
    ("docs/guide.md", "-- demo", "it is the gateway that the other blocks are run against"),
    ("docs/guide.md", "connection_init", "a message of a socket, sent by `clients_streams`"),
    ("docs/kubernetes.md", "docker build", "it needs a registry"),
    ("docs/kubernetes.md", "kubectl create", "it needs a cluster"),
    ("docs/kubernetes.md", "helm install", "it needs a cluster"),
    ("docs/kubernetes.md", "curl -sN https", "it needs a cluster"),
    ("docs/kubernetes.md", "helm upgrade", "it needs a cluster"),
    ("docs/logs.md", "\"timestamp\"", "a log line"),
    ("docs/clients.md", "connection_init", "a message of a socket, sent by `clients_streams`"),
    ("docs/streams.md", "connection_init", "a message of a socket, sent by `clients_streams`"),
    ("docs/security-listener.md", "cargo test", "it runs a part of this suite"),
];

/// The documents whose YAML is values of the chart, or objects of a cluster.
const CHART: [&str; 2] = ["charts/jobgate/README.md", "docs/kubernetes.md"];

/// A fenced code block: its location, its language, and its text.
#[derive(Debug)]
struct Block {
    document: String,
    line: usize,
    language: String,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    fn is_parsed_only(&self) -> bool {
        PARSED_ONLY.iter().any(|(document, part, _)| self.document == *document && self.text.contains(part))
    }
}

fn blocks() -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    for path in super::documents() {
        let document = path.strip_prefix(super::root()).unwrap().to_str().unwrap().to_owned();
        let mut is_open = false;
        for (number, line) in super::read(&path).lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if is_open => is_open = false,
                Some(language) => {
                    is_open = true;
                    let language = language.to_owned();
                    found.push(Block {
                        document: document.clone(),
                        line: number + 1,
                        language,
                        text: String::new(),
                    });
                }
                None if is_open => writeln!(found.last_mut().unwrap().text, "{line}").unwrap(),
                None => {}
            }
        }
        assert!(!is_open, "{document}: a fence is not closed");
    }
    found
}

fn blocks_of(language: &str) -> Vec<Block> {
    blocks().into_iter().filter(|block| block.language == language).collect()
}

/// Runs a program with this input: whether it succeeded, and its output on both streams.
fn pipe(program: &str, args: &[&str], input: &str) -> (bool, String) {
    use std::io::Write as _;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    assert!(child.is_ok(), "{program} cannot be started: {child:?}");
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn every_block_has_a_language_that_a_test_reads() {
    const READ: [&str; 10] = ["sh", "graphql", "json", "yaml", "promql", "js", "ts", "jsx", "python", "text"];
    let unread: Vec<String> = blocks()
        .iter()
        .filter(|block| !READ.contains(&block.language.as_str()))
        .map(|block| format!("{} {:?}", block.place(), block.language))
        .collect();
    assert_eq!(unread, Vec::<String>::new());
}

#[test]
fn every_exception_names_a_block() {
    let blocks = blocks();
    let names_one = |(document, part, _): &&(&str, &str, &str)| {
        blocks.iter().any(|block| block.document == *document && block.text.contains(part))
    };
    let unused: Vec<_> = PARSED_ONLY.iter().filter(|exception| !names_one(exception)).collect();
    assert_eq!(unused, Vec::<&(&str, &str, &str)>::new());
}

#[test]
fn every_json_block_parses() {
    for block in blocks_of("json") {
        let parsed = serde_json::from_str::<Value>(&block.text);
        assert!(parsed.is_ok() && block.is_parsed_only(), "{}: {parsed:?}", block.place());
    }
}

#[test]
fn every_promql_block_is_accepted_by_promtool() {
    let blocks = blocks_of("promql");
    assert!(blocks.len() > 10, "the blocks were read");
    for block in blocks {
        let expressions = block.text.split("\n\n").enumerate();
        let rules: Vec<Value> = expressions
            .map(|(number, expression)| json!({ "record": format!("r{number}"), "expr": expression }))
            .collect();
        let file = Scratch::new(&json!({ "groups": [{ "name": "documents", "rules": rules }] }).to_string());
        let (is_good, output) = pipe("promtool", &["check", "rules", file.path()], "");
        assert!(is_good, "{}: {output}", block.place());
    }
}

#[test]
fn every_javascript_block_is_parsed_by_node() {
    for language in ["js", "ts"] {
        for block in blocks_of(language) {
            let folder = ScratchFolder::new();
            let file = folder.path().join("block.mjs");
            std::fs::write(&file, &block.text).unwrap();
            let (is_good, output) = pipe("node", &["--check", file.to_str().unwrap()], "");
            assert!(is_good, "{}: {output}", block.place());
        }
    }
}

/// `kits` runs them, and compiles those in `jsx`: those of `docs/clients.md` are examples, and that of `docs/guide.md` is a sample.
#[test]
fn every_python_block_is_parsed_by_python() {
    let blocks = blocks_of("python");
    assert!(!blocks.is_empty(), "the blocks were read");
    for block in blocks {
        let (is_good, output) =
            pipe("python3", &["-c", "import ast, sys; ast.parse(sys.stdin.read())"], &block.text);
        assert!(is_good, "{}: {output}", block.place());
    }
}

/// Blocks of the configuration are loaded on top of one source; those of the chart are rendered by `tests/chart/check.py`.
#[test]
fn every_yaml_block_is_accepted() {
    let env = ["AUDIT_TOKEN", "MARKETING_KEY"]
        .iter()
        .fold(Environment::default(), |env, name| env.with(name, "a-credential-of-sixteen"));
    let base = json!({
        "sources": {
            "audit": { "upstream": "mindbridge", "base_url": "https://audit.example/api", "credential": { "bearer": { "env": "AUDIT_TOKEN" } } },
            "marketing": { "upstream": "supermetrics", "base_url": "https://marketing.example/v2", "credential": { "bearer": { "env": "MARKETING_KEY" } } },
        }
    });
    let blocks = blocks_of("yaml");
    assert!(blocks.len() > 10, "the blocks were read");
    for block in blocks {
        let parsed: Result<Value, _> = serde_saphyr::from_str(&block.text);
        let Ok(Value::Object(parsed)) = parsed else { panic!("{}: {parsed:?}", block.place()) };
        if CHART.contains(&block.document.as_str()) || block.is_parsed_only() {
            continue;
        }
        let mut config = base.as_object().unwrap().clone();
        config.extend(parsed);
        let loaded = Config::from_yaml(&Value::Object(config).to_string(), &env);
        assert!(loaded.is_ok(), "{}: {}", block.place(), loaded.unwrap_err());
    }
}

#[tokio::test]
async fn every_graphql_block_is_valid() {
    let (demo, address) = demo().await;
    for block in blocks_of("graphql") {
        let reply = wire::post(address, None, &json!({ "query": block.text })).await;
        let errors = reply.json()["errors"].to_string();
        let is_invalid = ["GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"]
            .iter()
            .any(|code| errors.contains(code));
        assert!(!is_invalid, "{}: {errors}", block.place());
    }
    demo.signal("TERM").await;
    demo.ended().await;
}

/// The demo on its own ports, and the address of its public listener.
async fn demo() -> (Process, std::net::SocketAddr) {
    let args = ["demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut demo = Process::start(&args, &[]);
    let address = demo.address("public").await;
    (demo, address)
}

/// The environment of a block: the programs that it uses, and the files in its folder.
fn preamble(folder: &Path) -> String {
    let jobgate = env!("CARGO_BIN_EXE_jobgate");
    // a server that serves is stopped, and a stream that is still open is a success
    format!(
        "set -euo pipefail\ncd '{}'\n\
         serve() {{\n\
           local log pid line\n\
           coproc '{jobgate}' \"$@\" 2>&1\n\
           pid=$COPROC_PID; exec {{log}}<&\"${{COPROC[0]}}\"\n\
           while read -r line <&\"$log\"; do echo \"$line\"; [[ $line != *listening* ]] || kill \"$pid\"; done\n\
           wait \"$pid\"\n\
         }}\n\
         jobgate() {{ if [ \"$1\" = serve ]; then serve \"$@\"; else '{jobgate}' \"$@\"; fi; }}\n\
         cargo() {{ [ \"$1 $2\" = 'run --' ]; shift 2; jobgate \"$@\"; }}\n\
         curl() {{ command curl --fail --silent --show-error --max-time 3 \"$@\" || [ $? = 28 ]; }}\n",
        folder.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shell_block_succeeds() {
    let mut demo = demo().await;
    let admin = demo.0.address("admin").await;
    let simulator = Simulator::start(Scenario::demo(), Addresses::ephemeral()).await.unwrap();
    let (code, made) = run(&["key", "new", "dashboard"], &[]).await;
    assert_eq!(code, Some(0), "{made}");
    let key = made.split_whitespace().find(|word| word.starts_with("jg_")).unwrap();
    let hash = made.split('"').find(|text| text.len() == 64).unwrap();
    let folder = ScratchFolder::new();
    let config = json!({
        "server": { "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0" },
        "store": { "kind": "memory" },
        "clients": [{ "name": "dashboard", "key_sha256": hash, "sources": ["audit", "marketing"] }],
        "sources": {
            "audit": { "upstream": "mindbridge", "base_url": simulator.mindbridge_url(), "credential": { "bearer": { "env": "AUDIT_TOKEN" } } },
            "marketing": { "upstream": "supermetrics", "base_url": simulator.supermetrics_url(), "credential": { "bearer": { "env": "MARKETING_KEY" } } },
        },
    });
    std::fs::write(folder.path().join("jobgate.yaml"), config.to_string()).unwrap();
    std::fs::write(folder.path().join("next-step"), "#!/bin/sh\n").unwrap();
    let env = [("AUDIT_TOKEN", "demo-mindbridge-token"), ("MARKETING_KEY", "demo-supermetrics-key")];
    let config_path = folder.path().join("jobgate.yaml");
    let mut served = Process::start(&["serve", "--config", config_path.to_str().unwrap()], &env);
    let guarded = served.address("public").await;

    let mut failed = Vec::new();
    let blocks = blocks_of("sh");
    assert!(blocks.len() > 20, "the blocks were read");
    for block in &blocks {
        let (is_good, output) = pipe("bash", &["-n"], &block.text);
        if !is_good {
            failed.push(format!("{}: {output}", block.place()));
        }
        if block.is_parsed_only() {
            continue;
        }
        let public = if block.text.contains("jg_…") { guarded } else { demo.1 };
        let text = block.text.replace("jg_…", key).replace("127.0.0.1:8080", &public.to_string());
        let text = text.replace("127.0.0.1:9090", &admin.to_string());
        let script = format!(
            "{}export JOBGATE_URL=http://{public} AUDIT_TOKEN={} MARKETING_KEY={}\nchmod +x next-step\n{text}",
            preamble(folder.path()),
            env[0].1,
            env[1].1
        );
        let (is_good, output) = pipe("bash", &["-s"], &script);
        let graphql_errors = output.contains("\"errors\":[");
        if !is_good || graphql_errors {
            failed.push(format!("{}: {output}", block.place()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    for process in [demo.0, served] {
        process.signal("TERM").await;
        process.ended().await;
    }
    simulator.stop().await;
}
