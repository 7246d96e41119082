//! The live page as a person uses it: in a real Chromium, driven by the npm package `playwright-core`, checked by axe.
//! `tests/all.sh` installs all three.

use std::path::Path;
use std::process::Stdio;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{MindBridgeJob, MindBridgeStep};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::support::server::{Rig, Setup};

fn setup(rest: &str) -> Setup {
    let mut setup = Setup::with(vec![MindBridgeJob::new("a", &[(0, "IN_PROGRESS")])], vec![]);
    setup.rest = format!("poll: {{ min_interval: 100ms, max_interval: 1s }}\n{rest}");
    setup
}

/// Opens the page, watches the job, completes it, and returns what the page showed.
async fn visit(rig: &Rig, key: Option<&str>) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    for needed in [folder.join("node_modules/playwright-core/package.json"), "/usr/bin/chromium".into()] {
        assert!(needed.exists(), "{} is missing: run tests/all.sh, which installs it", needed.display());
    }
    let mut command = Command::new("node");
    command.arg(folder.join("page.mjs")).arg(format!("http://{}/", rig.public)).arg("mind/a").args(key);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some(r#"{"before":"running"}"#));
    rig.upstreams.set_state("a", MindBridgeStep::new("COMPLETE")).unwrap();
    let seen = lines.next_line().await.unwrap().unwrap();
    assert!(child.wait().await.unwrap().success());
    serde_json::from_str(&seen).unwrap()
}

fn assert_well(seen: &Value) {
    assert_eq!((&seen["after"], &seen["hiddenByFilter"]), (&json!("succeeded"), &json!(true)), "{seen}");
    assert_eq!(seen["atStart"], json!(""), "a request of the page was rejected");
    assert_eq!(seen["elsewhere"], json!([]), "the page calls other hosts");
    assert_eq!(seen["violations"], json!([]), "axe reports violations");
    assert!(seen["errorMessage"].as_str().unwrap().contains("is not a job reference"), "{seen}");
    let sources: Vec<String> = serde_json::from_value(seen["sources"].clone()).unwrap();
    assert!(sources.iter().any(|source| source.starts_with("mind mindbridge")), "{seen}");
}

#[tokio::test]
async fn the_page_shows_a_job_reaching_its_terminal_state() {
    let rig = setup("").start().await;
    let seen = visit(&rig, None).await;
    assert_well(&seen);
    assert_eq!(seen["console"], json!([]), "the browser reports errors");
}

#[tokio::test]
async fn the_page_shows_no_data_without_a_key() {
    let hash = ClientConfig::hex(&keys::hash("jg_person"));
    let rest = format!("clients: [{{ name: person, key_sha256: \"{hash}\", sources: [mind] }}]");
    let rig = setup(&rest).start().await;
    let seen = visit(&rig, Some("jg_person")).await;
    assert_well(&seen);
    assert_eq!(seen["deskWithoutKey"], json!(false));
}
