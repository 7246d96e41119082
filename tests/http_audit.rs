//! The server audit of the npm package `graphql-http` against a real gateway: every MUST passes, and each deviation
//! from a SHOULD or a MAY is listed with its reason. An audit with another result fails the test.
//!
//! `docs/graphql-over-http.md` documents the same for readers. `tests/all.sh` installs the package.

use std::collections::BTreeMap;
use std::path::Path;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use serde::Deserialize;
use tokio::process::Command;

use crate::support::server::Setup;

/// SHOULDs of older drafts, each dropped or reversed by the edition of September 2026: (audit, our status).
const SHOULD_REVERSED: [(&str, &str); 4] = [
    ("572B", "400 on a parse failure also as application/json: legacy clients get the status of all others"),
    ("FDE2", "400 on its document, which does not even parse, for the same reason"),
    ("7B9B", "422 on a variable that does not fit, for the same reason"),
    ("86EE", "422 and not 400 on a variable that does not fit"),
];

/// MAYs that we do not implement: 422 where older drafts allowed 400 for a parameter that is missing or of the wrong
/// type.
const MAY_DECLINED: [&str; 18] = [
    "423L", "LKJ0", "LKJ1", "LKJ2", "LKJ3", "6C00", "6C01", "6C02", "6C03", "4760", "4761", "4762", "4763",
    "58B0", "58B1", "58B2", "58B3", "3E3A",
];

#[derive(Debug, Deserialize)]
struct Audit {
    id: String,
    name: String,
    /// `ok`, `error` (a MUST failed), `warn` (a SHOULD) or `notice` (a MAY).
    status: String,
    reason: Option<String>,
}

async fn audit(url: &str, authorization: Option<&str>) -> Vec<Audit> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let package = folder.join("node_modules/graphql-http/package.json");
    assert!(
        package.exists(),
        "{} is missing: run `npm ci` in tests/clients, or tests/all.sh",
        package.display()
    );
    let script = folder.join("audit.mjs");
    let run =
        Command::new("node").arg(script).arg(url).args(authorization).current_dir(folder).output().await;
    assert!(run.is_ok(), "node does not start ({run:?}): install Node.js, or run tests/all.sh");
    let run = run.unwrap();
    let (output, complained) =
        (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert!(run.status.success(), "the audit failed: {complained}");
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The required results of every gateway, with clients and without.
fn judge(audits: &[Audit]) {
    // 1.23.1 has so many; a newer version has to be read before it is trusted
    assert_eq!(audits.len(), AUDITS, "the number of audits changed: read the new ones and update the lists");
    let mut by_status: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for audit in audits {
        by_status.entry(audit.status.as_str()).or_default().push(&audit.id);
        assert_ne!(audit.status, "error", "a MUST failed: {audit:?}");
        assert!(audit.status == "ok" || audit.reason.is_some(), "{audit:?}");
        assert!(!audit.name.is_empty());
    }
    let found = |status: &str| {
        let mut ids = by_status.get(status).cloned().unwrap_or_default();
        ids.sort_unstable();
        ids
    };
    let sorted = |mut ids: Vec<&'static str>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(
        found("warn"),
        sorted(SHOULD_REVERSED.map(|(id, _)| id).to_vec()),
        "failed SHOULDs: {audits:#?}"
    );
    assert_eq!(found("notice"), sorted(MAY_DECLINED.to_vec()), "declined MAYs: {audits:#?}");
}

/// The audits of graphql-http 1.23.1.
const AUDITS: usize = 61;

#[tokio::test]
async fn the_audit_passes_every_must_and_lists_each_deviation() {
    let rig = Setup::default().start().await;
    judge(&audit(&format!("http://{}/graphql", rig.public), None).await);
    assert_eq!(rig.upstreams.record(), [], "the audit queries no job");
}

#[tokio::test]
async fn the_audit_passes_with_client_authentication() {
    let hash = ClientConfig::hex(&keys::hash("jg_audit"));
    let rest = format!("clients: [{{ name: audit, key_sha256: \"{hash}\", sources: [mind] }}]");
    let rig = Setup { rest, ..Setup::default() }.start().await;
    let url = format!("http://{}/graphql", rig.public);
    judge(&audit(&url, Some("Bearer jg_audit")).await);
    let refused = audit(&url, None).await;
    assert!(refused.iter().any(|audit| audit.status == "error"), "without the key the audit cannot pass");
}
