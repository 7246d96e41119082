//! Lighthouse on the live page and on the status page of a demo: accessibility and best practices.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::demo::start_demo;
use super::note;
use crate::support::browser::Browser;

/// The lowest score of a category.
const LOWEST: u64 = 95;

/// Audits a page on a phone and on a desktop. `shown` is an audit that applies only if what matters is on the page.
async fn audit(address: SocketAddr, path: &str, shown: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    for needed in [folder.join("node_modules/lighthouse/package.json"), "/usr/bin/chromium".into()] {
        assert!(needed.exists(), "{} is missing: run tests/all.sh, which installs it", needed.display());
    }
    let mut command = Command::new("node");
    command.arg(folder.join("lighthouse.mjs")).arg(format!("http://{address}{path}"));
    let output = command.stdout(Stdio::piped()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let forms: Vec<&Value> = lines.iter().map(|line| &line["form"]).collect();
    assert_eq!(forms, ["phone", "desktop"]);
    for line in &lines {
        let scores = line["scores"].as_object().unwrap();
        assert_eq!(scores.len(), 2, "{line}");
        assert!(scores.values().all(|score| score.as_u64().is_some_and(|score| score >= LOWEST)), "{line}");
        assert!(line["applied"].as_array().unwrap().iter().any(|audit| audit == shown), "{line}");
        note("Lighthouse", Browser::Chromium, &line["scores"]);
    }
}

#[tokio::test]
async fn lighthouse_scores_of_the_live_page_are_high() {
    let mut demo = start_demo();
    // a progress bar: jobs are on the page
    audit(demo.address("public").await, "/", "aria-progressbar-name").await;
}

#[tokio::test]
async fn lighthouse_scores_of_the_status_page_are_high() {
    let mut demo = start_demo();
    // a list of definitions: sources are on the page
    audit(demo.address("admin").await, "/status", "dlitem").await;
}
