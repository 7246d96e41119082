//! The live page as a person uses it: in a real Chromium and a real Firefox, checked by axe. `tests/all.sh` installs the
//! browsers and their drivers; the steps are in `tests/clients/page`.

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{
    FaultKind, MindBridgeJob, MindBridgeStep, SimFault, SimUpstream, SupermetricsJob, SupermetricsStep,
};
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::server::{Rig, Setup, external};
use crate::support::wire;

mod demo;
mod lighthouse;
mod login;
mod restart;

/// Reads each job every second, so that no test waits long.
const POLL: &str = "poll: { min_interval: 100ms, max_interval: 1s }\n";
const KEY: &str = "jg_person";
/// Of a client that may read runs of `mind` only.
const RUNS_KEY: &str = "jg_runs";

fn clients() -> String {
    let [hash, runs] = [KEY, RUNS_KEY].map(|key| ClientConfig::hex(&keys::hash(key)));
    format!(
        "clients:\n  - {{ name: person, key_sha256: \"{hash}\", sources: [mind, metrics] }}\n  \
         - {{ name: runs, key_sha256: \"{runs}\", sources: {{ mind: {{ kinds: [ANALYSIS_RUN] }} }} }}\n"
    )
}

/// A job of each kind of look: running, failed with a reason, succeeded with rows, running with progress.
fn world(rest: &str) -> Setup {
    let mut broken = MindBridgeJob::new("broken", &[(0, "ERROR")]);
    "ANALYSIS_SOURCE_INGESTION".clone_into(&mut broken.kind);
    broken.steps = vec![MindBridgeStep {
        error: Some("INGESTION_FAILED".to_owned()),
        error_message: Some("column 7 is not a date".to_owned()),
        ..MindBridgeStep::new("ERROR")
    }];
    let mut sales = SupermetricsJob::new("sales", &[(0, "SUCCESS")]);
    sales.rows.count = 25;
    "2026-01-01".clone_into(&mut sales.query.start_date);
    "2026-03-31".clone_into(&mut sales.query.end_date);
    let mut growing = SupermetricsJob::new("growing", &[(0, "RUNNING")]);
    growing.steps = vec![SupermetricsStep { ready: 3, total: 8, ..SupermetricsStep::new("RUNNING") }];
    let mut setup =
        Setup::with(vec![MindBridgeJob::new("run", &[(0, "IN_PROGRESS")]), broken], vec![sales, growing]);
    setup.rest = format!("{POLL}{rest}");
    setup
}

/// Has the gateway track jobs, with a label of those of `metrics` that are named.
async fn track(rig: &Rig, key: Option<&str>, refs: &[Value], labels: &Value) {
    let query = "mutation($refs: [JobRef!]!, $labels: [LabelInput!]!) {
        trackJobs(input: { refs: $refs, labels: $labels }) { isStored } }";
    for refs in refs.chunks(200) {
        let body = json!({ "query": query, "variables": { "refs": refs, "labels": labels } });
        wire::post(rig.public, key, &body).await.data();
    }
}

async fn start_world(rest: &str, key: Option<&str>) -> Rig {
    let rig = world(rest).start().await;
    let blue = json!([{ "name": "team", "value": "blue" }]);
    track(&rig, key, &[external("metrics", "sales")], &blue).await;
    let others = [external("mind", "run"), external("mind", "broken"), external("metrics", "growing")];
    track(&rig, key, &others, &json!([])).await;
    rig
}

async fn tour(browser: Browser) {
    let rig = start_world("", None).await;
    let options = json!({ "url": format!("http://{}/", rig.public) });
    let act = async |what: &str, id: Value| {
        assert_eq!(what, "complete");
        rig.upstreams.set_state(id.as_str().unwrap(), MindBridgeStep::new("COMPLETE")).unwrap();
        Value::Null
    };
    browser.run("tour", &options, act).await;
}

#[tokio::test]
async fn every_part_of_the_page_works_in_chromium() {
    tour(Browser::Chromium).await;
}

#[tokio::test]
async fn every_part_of_the_page_works_in_firefox() {
    tour(Browser::Firefox).await;
}

async fn sign_in(browser: Browser) {
    let rig = start_world(&clients(), Some(KEY)).await;
    let options = json!({ "url": format!("http://{}/", rig.public), "key": KEY, "runsKey": RUNS_KEY });
    browser.run("sign_in", &options, async |what, seconds| make_token(&rig, what, &seconds).await).await;
}

/// Makes a watch token for one job that is valid for so many seconds.
async fn make_token(rig: &Rig, what: &str, seconds: &Value) -> Value {
    assert_eq!(what, "watch token");
    let query = "mutation($input: CreateWatchTokenInput!) { createWatchToken(input: $input) { token } }";
    let input = json!({ "refs": [external("mind", "run")], "ttl": format!("{seconds}s") });
    let body = json!({ "query": query, "variables": { "input": input } });
    wire::post(rig.public, Some(KEY), &body).await.data()["createWatchToken"]["token"].take()
}

#[tokio::test]
async fn only_a_valid_credential_shows_jobs_in_chromium() {
    sign_in(Browser::Chromium).await;
}

#[tokio::test]
async fn only_a_valid_credential_shows_jobs_in_firefox() {
    sign_in(Browser::Firefox).await;
}

async fn outage(browser: Browser) {
    let rig = start_world("", None).await;
    let ids: Vec<String> = (0..20).map(|number| format!("more{number}")).collect();
    for id in &ids {
        rig.upstreams.add_job(MindBridgeJob::new(id, &[(0, "IN_PROGRESS")]));
    }
    let refs: Vec<Value> = ids.iter().map(|id| external("mind", id)).collect();
    track(&rig, None, &refs, &json!([])).await;
    let affected: Vec<&str> = ids.iter().map(String::as_str).chain(["run"]).collect();
    let options = json!({ "url": format!("http://{}/", rig.public), "affected": affected });
    let act = async |what: &str, _| {
        match what {
            "outage" => {
                let fault = SimFault::always(SimUpstream::MindBridge, FaultKind::CloseBeforeHeaders);
                rig.upstreams.push_fault(fault);
            }
            "recover" => rig.upstreams.clear_faults(None),
            other => unreachable!("{other}"),
        }
        Value::Null
    };
    note("outage", browser, &browser.run("outage", &options, act).await);
}

#[tokio::test]
async fn an_upstream_outage_shows_on_its_rows_in_chromium() {
    outage(Browser::Chromium).await;
}

#[tokio::test]
async fn an_upstream_outage_shows_on_its_rows_in_firefox() {
    outage(Browser::Firefox).await;
}

#[tokio::test]
async fn five_thousand_jobs_stay_responsive() {
    const JOBS: usize = 5_000;
    let mut setup = Setup::with(
        (0..JOBS).map(|number| MindBridgeJob::new(&format!("m{number}"), &[(0, "IN_PROGRESS")])).collect(),
        vec![],
    );
    // no poll within the test: what changes is changed by it
    setup.rest = "poll: { min_interval: 5m, max_interval: 5m }\n".to_owned();
    let rig = setup.start().await;
    let refs: Vec<Value> = (0..JOBS).map(|number| external("mind", &format!("m{number}"))).collect();
    track(&rig, None, &refs, &json!([])).await;
    let options = json!({ "url": format!("http://{}/", rig.public), "jobs": JOBS });
    let act = async |what: &str, _| {
        assert_eq!(what, "change");
        for number in 0..500 {
            rig.upstreams.set_state(&format!("m{number}"), MindBridgeStep::new("COMPLETE")).unwrap();
        }
        for refs in refs.chunks(200).take(3) {
            let query = "query($refs: [JobRef!]!) { jobs(refs: $refs, maxStaleness: \"0s\") { __typename } }";
            rig.execute(query, json!({ "refs": refs })).await;
        }
        Value::Null
    };
    note("5000 jobs", Browser::Chromium, &Browser::Chromium.run("many", &options, act).await);
}

#[tokio::test]
async fn every_designed_state_passes_axe_in_light_and_dark() {
    let rig = start_world("", None).await;
    let closed = Setup { rest: clients(), ..Setup::default() }.start().await;
    let options = json!({
        "url": format!("http://{}/", rig.public), "closed": format!("http://{}/", closed.public), "key": KEY,
        "succeeded": "metrics/sales", "failed": "mind/broken", "running": "metrics/growing",
    });
    let act = async |what: &str, argument: Value| {
        match what {
            "outage" => {
                let fault = SimFault::always(SimUpstream::Supermetrics, FaultKind::CloseBeforeHeaders);
                rig.upstreams.push_fault(fault);
            }
            "recover" => rig.upstreams.clear_faults(None),
            _ => return make_token(&closed, what, &argument).await,
        }
        Value::Null
    };
    let seen = Browser::Chromium.run("looks", &options, act).await;
    assert_eq!(seen["seen"].as_array().unwrap().len(), 12 * 4, "{seen}");
}

/// Prints what a scenario measured; `cargo test -- --nocapture` shows it.
#[expect(clippy::print_stderr, reason = "the output of the measurement")]
fn note(what: &str, browser: Browser, seen: &Value) {
    eprintln!("page, {what}, {browser:?}: {seen}");
}
