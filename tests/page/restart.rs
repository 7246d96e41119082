//! The page stays open while its gateway is killed: it never shows what the gateway does not answer.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use jobgate_simulator::{
    Addresses, Handle, MindBridgeJob, MindBridgeStep, Simulator, SupermetricsJob, SupermetricsStep,
};
use serde_json::{Map, Value, json};

use super::note;
use crate::support::browser::Browser;
use crate::support::crashes::{Folder, serve};
use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::{Setup, external};
use crate::support::wire;

/// Jobs of each source.
const JOBS: usize = 180;
/// How long the gateway is away, in milliseconds.
const AWAY: u64 = 20_000;

/// A configuration with a store, a port that stays the same, and a budget that needs some time for all jobs.
fn config(folder: &Path, simulator: &Simulator) -> (Scratch, u16) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let rest = format!(
        "server: {{ listen: \"127.0.0.1:{port}\", admin_listen: \"127.0.0.1:0\" }}\n\
         store: {{ kind: embedded, path: \"{}\" }}\n\
         poll: {{ min_interval: 1s, max_interval: 5s }}\n",
        folder.display()
    );
    let setup = Setup {
        source: "budget: { per_second: 20, per_hour: 1000000, concurrency: 20 }",
        rest,
        ..Setup::default()
    };
    (Scratch::new(&setup.yaml(&simulator.mindbridge_url(), &simulator.supermetrics_url())), port)
}

fn mind(number: usize) -> String {
    format!("m{number:03}")
}

fn metrics(number: usize) -> String {
    format!("q{number:03}")
}

/// Ends every third job, as happens while the gateway is away.
fn end_some(upstreams: &Handle) {
    for number in (0..JOBS).step_by(3) {
        upstreams.set_state(&mind(number), MindBridgeStep::new("COMPLETE")).unwrap();
        upstreams.set_state(&metrics(number), SupermetricsStep::new("SUCCESS")).unwrap();
    }
}

/// What the gateway answers about each job at this moment, and the state that the upstream has at last.
async fn answers(port: u16) -> Value {
    let query = "query($after: String) { jobList(first: 100, after: $after) {
        nodes { externalId state } pageInfo { hasNextPage endCursor } } }";
    let mut answers = Map::new();
    let mut after = Value::Null;
    loop {
        let body = json!({ "query": query, "variables": { "after": after } });
        let data = wire::post((Ipv4Addr::LOCALHOST, port).into(), None, &body).await.data();
        let list = &data["jobList"];
        for node in list["nodes"].as_array().unwrap() {
            let id = node["externalId"].as_str().unwrap();
            let has_ended = id.trim_start_matches(['m', 'q']).parse::<usize>().unwrap().is_multiple_of(3);
            let last = if has_ended { "SUCCEEDED" } else { "RUNNING" };
            answers.insert(id.to_owned(), json!({ "state": node["state"], "final": last }));
        }
        if list["pageInfo"]["hasNextPage"] == json!(false) {
            return Value::Object(answers);
        }
        after = list["pageInfo"]["endCursor"].clone();
    }
}

async fn track(port: u16) {
    let query = "mutation($refs: [JobRef!]!) { trackJobs(input: { refs: $refs }) { isStored } }";
    let of = |source: &'static str, id: fn(usize) -> String| {
        (0..JOBS).map(move |number| external(source, &id(number))).collect::<Vec<_>>()
    };
    for refs in [of("mind", mind), of("metrics", metrics)] {
        let body = json!({ "query": query, "variables": { "refs": refs } });
        wire::post((Ipv4Addr::LOCALHOST, port).into(), None, &body).await.data();
    }
}

async fn restart(browser: Browser) {
    let folder = Folder::new();
    let mut scenario = Setup::default().scenario;
    scenario.mindbridge.jobs =
        (0..JOBS).map(|number| MindBridgeJob::new(&mind(number), &[(0, "IN_PROGRESS")])).collect();
    scenario.supermetrics.jobs =
        (0..JOBS).map(|number| SupermetricsJob::new(&metrics(number), &[(0, "RUNNING")])).collect();
    let simulator = Simulator::start(scenario, Addresses::ephemeral()).await.unwrap();
    let (config, port) = config(&folder.0, &simulator);
    let mut gateway: Option<Process> = Some(serve(&config).await.0);
    track(port).await;
    let options = json!({ "url": format!("http://127.0.0.1:{port}/"), "jobs": 2 * JOBS, "away": AWAY });
    let act = async |what: &str, _| match what {
        "kill" => {
            let killed = gateway.take().unwrap();
            killed.signal("KILL").await;
            killed.ended().await;
            end_some(&simulator.handle());
            Value::Null
        }
        "start" => {
            gateway = Some(serve(&config).await.0);
            Value::Null
        }
        "answers" => answers(port).await,
        other => unreachable!("{other}"),
    };
    note("restart", browser, &browser.run("restart", &options, act).await);
}

#[tokio::test]
async fn no_row_is_wrong_after_a_kill_in_chromium() {
    restart(Browser::Chromium).await;
}

#[tokio::test]
async fn no_row_is_wrong_after_a_kill_in_firefox() {
    restart(Browser::Firefox).await;
}
