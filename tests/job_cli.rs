//! `jobgate job` as people and scripts meet it: the real binary against the real gateway and the simulated upstreams.
//! Without a terminal, as in a log.

use jiff::Timestamp;
use jobgate::config::ClientConfig;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::outbound::identity::keys;
use jobgate::simulator::{
    Addresses, MindBridgeJob, MindBridgeStep, Simulator, SupermetricsJob, SupermetricsStep,
};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Rig, Setup, TOKEN};
use crate::support::streams::LIMIT;

/// Looks often, so that no test waits for long.
const FOLLOW: &str = "poll: { min_interval: 100ms, max_interval: 1s, missing_for: 1s }";

fn setup() -> Setup {
    let broken = MindBridgeStep {
        error_message: Some("column 7 is no date".to_owned()),
        ..MindBridgeStep::new("ERROR")
    };
    let broken = MindBridgeJob { steps: vec![broken], ..MindBridgeJob::new("broken", &[]) };
    let mind = vec![
        MindBridgeJob::new("done", &[(0, "COMPLETE")]),
        MindBridgeJob::new("runs", &[(0, "IN_PROGRESS")]),
        broken,
    ];
    let counted =
        SupermetricsJob { steps: vec![counted(1, "RUNNING")], ..SupermetricsJob::new("counted", &[]) };
    let stopped = SupermetricsJob::new("stopped", &[(0, "STOPPED")]);
    Setup { rest: FOLLOW.to_owned(), ..Setup::with(mind, vec![counted, stopped]) }
}

fn counted(ready: u64, status: &str) -> SupermetricsStep {
    SupermetricsStep { ready, total: 3, ..SupermetricsStep::new(status) }
}

fn url(rig: &Rig) -> String {
    format!("http://{}", rig.public)
}

async fn job(rig: &Rig, args: &[&str]) -> (Option<i32>, String) {
    run(&[&["job"], args].concat(), &[("JOBGATE_URL", &url(rig))]).await
}

/// Runs a command that gives up after a second: the exit code, what it said, and its time. A slow machine needs more of that to
/// come as far as to say these words, and is given more.
async fn timed(args: &[&str], env: &[(&str, &str)], words: &str) -> (Option<i32>, String, &'static str) {
    let mut ended = (None, String::new(), "");
    for time in ["1s", "5s", "30s"] {
        let (code, said) = run(&[&["job"], args, &["--timeout", time]].concat(), env).await;
        ended = (code, said, time);
        if ended.1.contains(words) {
            break;
        }
    }
    ended
}

fn watching(rig: &Rig, args: &[&str]) -> Process {
    Process::start(&[&["job"], args].concat(), &[("JOBGATE_URL", &url(rig))])
}

/// The lines without the times in front of them.
fn lines(said: &str) -> Vec<&str> {
    let line = |line| {
        let (time, rest) = str::split_once(line, ' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{line}");
        rest
    };
    said.lines().map(line).collect()
}

#[tokio::test]
async fn get_tells_how_each_job_stands_and_the_worst_is_the_exit_code() {
    let rig = setup().start().await;
    let key = JobKey {
        source: SourceName::parse("mind").unwrap(),
        external_id: ExternalId::parse("done").unwrap(),
    };
    let opaque = key.node_id();
    for (refs, code, told) in [
        (&["mind/done"][..], 0, &["mind/done SUCCEEDED"][..]),
        (&[&opaque], 0, &["mind/done SUCCEEDED"]),
        (&["mind/runs", "metrics/counted"], 0, &["mind/runs RUNNING", "metrics/counted RUNNING 1/3"]),
        (
            &["mind/broken", "mind/done"],
            1,
            &["mind/broken FAILED column 7 is no date", "mind/done SUCCEEDED"],
        ),
        (&["metrics/stopped"], 1, &["metrics/stopped CANCELED"]),
        (&["mind/done", "mind/done", &opaque], 0, &["mind/done SUCCEEDED"]),
    ] {
        let (found, said) = job(&rig, &[&["get"], refs].concat()).await;
        // the counts of a stopped job are the upstream's own
        let said: Vec<String> =
            lines(&said).iter().map(|line| line.replace("CANCELED 0/1", "CANCELED")).collect();
        assert_eq!((found, said), (Some(code), told.iter().map(ToString::to_string).collect()), "{refs:?}");
    }
    for reference in ["mind/nowhere", "elsewhere/done", "nonsense"] {
        let (code, said) = job(&rig, &["get", "mind/broken", reference]).await;
        let said = lines(&said);
        assert_eq!((code, said.len()), (Some(2), 2), "{said:?}");
        assert!(said[1].starts_with(&format!("{reference} ERROR ")), "{said:?}");
    }
}

#[tokio::test]
async fn watch_tells_each_change_once_and_ends_with_the_last_job() {
    let rig = setup().start().await;
    let mut watch = watching(&rig, &["watch", "metrics/counted", "mind/broken"]);
    let upstreams = rig.upstreams.clone();
    let told = |wanted: &'static str| move |line: &str| line.ends_with(wanted).then_some(());
    watch.find("the snapshot", told("metrics/counted RUNNING 1/3")).await;
    upstreams.set_state("counted", counted(2, "RUNNING")).unwrap();
    watch.find("a change", told("metrics/counted RUNNING 2/3")).await;
    watch.find("the end of the other", told("mind/broken FAILED column 7 is no date")).await;
    upstreams.set_state("counted", counted(3, "SUCCESS")).unwrap();
    let (status, said) = watch.ended().await;
    let mut said = lines(&said);
    said.retain(|line| !line.starts_with("mind/broken"));
    assert_eq!(
        (status.code(), said),
        (
            Some(1),
            vec![
                "metrics/counted RUNNING 1/3",
                "metrics/counted RUNNING 2/3",
                "metrics/counted SUCCEEDED 3/3"
            ]
        )
    );
}

#[tokio::test]
async fn await_says_nothing_but_the_end() {
    let rig = setup().start().await;
    let waits = watching(&rig, &["await", "mind/runs", "mind/done"]);
    tokio::time::timeout(LIMIT, rig.upstreams.asked(3)).await.unwrap();
    rig.upstreams.set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    let (status, said) = waits.ended().await;
    let mut said = lines(&said);
    said.sort_unstable();
    assert_eq!((status.code(), said), (Some(0), vec!["mind/done SUCCEEDED", "mind/runs SUCCEEDED"]));

    let await_it = ["await", "metrics/counted"];
    let (code, said, time) = timed(&await_it, &[("JOBGATE_URL", &url(&rig))], "RUNNING 1/3").await;
    assert_eq!(code, Some(2), "{said}");
    let up = format!("timed out after {time}");
    for words in [up.as_str(), "metrics/counted RUNNING 1/3", "metrics/counted is not terminal"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, said) = job(&rig, &["await", "mind/nowhere"]).await;
    assert_eq!((code, lines(&said).len()), (Some(2), 1), "{said}");
    assert!(said.contains("mind/nowhere ERROR NOT_FOUND: "), "{said}");
}

#[tokio::test]
async fn more_jobs_than_fit_into_one_stream_take_several() {
    let names: Vec<String> = (0..401).map(|number| format!("job-{number}")).collect();
    let jobs = names.iter().map(|name| MindBridgeJob::new(name, &[(0, "COMPLETE")]));
    let rig = Setup::with(jobs.collect(), Vec::new()).start().await;
    let refs: Vec<String> = names.iter().map(|name| format!("mind/{name}")).collect();
    let refs: Vec<&str> = refs.iter().map(String::as_str).collect();
    for mode in ["get", "watch", "await"] {
        let (code, said) = job(&rig, &[&[mode], refs.as_slice()].concat()).await;
        let mut said = lines(&said);
        said.sort_unstable();
        let mut wanted: Vec<String> = refs.iter().map(|name| format!("{name} SUCCEEDED")).collect();
        wanted.sort_unstable();
        assert_eq!((code, said), (Some(0), wanted.iter().map(String::as_str).collect()), "{mode}");
    }
}

#[tokio::test]
async fn json_is_one_object_a_line_with_the_names_of_the_schema() {
    let rig = setup().start().await;
    let objects =
        |said: &str| -> Vec<Value> { said.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let (code, said) = job(&rig, &["get", "--json", "metrics/counted", "mind/broken", "mind/nowhere"]).await;
    let got = objects(&said);
    assert_eq!((code, got.len()), (Some(2), 3), "{said}");
    assert_eq!(got[0]["__typename"], "SupermetricsJob");
    assert_eq!(got[0]["source"]["name"], "metrics");
    assert_eq!((&got[0]["progress"]["completed"], &got[0]["progress"]["total"]), (&1.into(), &3.into()));
    assert_eq!((&got[0]["isTerminal"], &got[1]["isTerminal"]), (&false.into(), &true.into()));
    assert_eq!(got[1]["failure"]["message"], "column 7 is no date");
    assert_eq!((&got[2]["code"], &got[2]["ref"]["externalId"]), (&"NOT_FOUND".into(), &"nowhere".into()));

    let (code, said) = job(&rig, &["watch", "--json", "mind/done"]).await;
    let got = objects(&said);
    assert_eq!((code, got.len()), (Some(0), 1), "{said}");
    assert_eq!((&got[0]["kind"], &got[0]["isFinal"]), (&"SNAPSHOT".into(), &true.into()));
    assert_eq!(got[0]["result"]["state"], "SUCCEEDED");

    let (code, said) = job(&rig, &["await", "--json", "mind/done"]).await;
    assert_eq!((code, &objects(&said)[0]["state"]), (Some(0), &"SUCCEEDED".into()), "{said}");
}

#[tokio::test]
async fn a_key_comes_from_a_file_or_the_environment_and_is_shown_nowhere() {
    let hash = ClientConfig::hex(&keys::hash("jg_cAnaRy"));
    let rest = format!("clients: [{{ name: c, key_sha256: \"{hash}\", sources: [mind] }}]");
    let rig = Setup { rest, ..setup() }.start().await;
    let (url, file, wrong) = (url(&rig), Scratch::new("jg_cAnaRy\n"), Scratch::new("jg_wrOng\n"));
    let get = ["job", "get", "mind/done", "--url", &url];
    let watch = ["job", "watch", "mind/done", "--url", &url];
    for (args, more, env, code) in [
        (get, &["--key-file", file.path()][..], &[][..], 0),
        (watch, &["--key-file", file.path()], &[("JOBGATE_KEY", "jg_wrOng")], 0),
        (get, &[], &[("JOBGATE_KEY", "jg_cAnaRy")], 0),
        (watch, &[], &[("JOBGATE_KEY", "jg_cAnaRy")], 0),
        (get, &[], &[], 2),
        (watch, &[], &[], 2),
        (get, &["--key-file", wrong.path()], &[("JOBGATE_KEY", "jg_cAnaRy")], 2),
        (watch, &["--key-file", wrong.path()], &[], 2),
        (get, &["--key-file", "/nowhere/at/all"], &[("JOBGATE_KEY", "jg_cAnaRy")], 2),
    ] {
        let (found, said) = run(&[&args, more].concat(), env).await;
        assert_eq!(found, Some(code), "{args:?} {more:?} {env:?}: {said}");
        assert!(!said.contains("cAnaRy") && !said.contains("wrOng"), "{said}");
        let reason = ["(401)", "/nowhere/at/all cannot be read"];
        assert!(code == 0 || reason.iter().any(|reason| said.contains(reason)), "{said}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_apart_from_a_job_that_failed() {
    // bound and not listened on: nobody else gets the port meanwhile
    let nobody = TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    for mode in ["get", "watch", "await"] {
        let (code, said, _) = timed(&[mode, "mind/done", "--url", &url], &[], "cannot be reached").await;
        assert_eq!(code, Some(2), "{mode}: {said}");
        assert!(said.contains("cannot be reached") && said.contains("no result for mind/done"), "{said}");
        assert_eq!(
            said.matches("cannot be reached").count(),
            1,
            "said once, however often it is tried: {said}"
        );
    }
}

/// Whether the gateway is killed or drains: the watcher comes back by itself, says nothing twice, and tells the end once.
#[tokio::test]
async fn a_watcher_outlives_its_gateway() {
    let setup = setup();
    let upstreams = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let yaml = setup.yaml(&upstreams.mindbridge_url(), &upstreams.supermetrics_url());
    let secrets = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    // bound here as well and not listened on, so that nobody else gets the port between two gateways
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    let same = Scratch::new(&yaml.replacen("127.0.0.1:0", &address, 1));
    let mut gateway = Process::start(&["serve", "--config", same.path()], &secrets);
    assert_eq!(gateway.address("public").await.to_string(), address);

    let url = format!("http://{address}");
    let mut watch = Process::start(&["job", "watch", "mind/runs", "mind/done", "--url", &url], &[]);
    for job in ["mind/runs RUNNING", "mind/done SUCCEEDED"] {
        watch.find(job, |line| line.ends_with(job).then_some(())).await;
    }
    for signal in ["KILL", "TERM"] {
        gateway.signal(signal).await;
        gateway.ended().await;
        upstreams.handle().clear_record();
        gateway = Process::start(&["serve", "--config", same.path()], &secrets);
        assert_eq!(gateway.address("public").await.to_string(), address);
        // nobody else asks this gateway: a look upstream means that the watcher is back
        tokio::time::timeout(LIMIT, upstreams.handle().asked(2)).await.unwrap();
    }
    upstreams.handle().set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    let (status, said) = watch.ended().await;
    assert_eq!(status.code(), Some(0), "{said}");
    // what it says of the connection depends on when it tries
    let told: Vec<&str> = said.lines().filter(|line| !line.starts_with("jobgate: ")).collect();
    let told = told.join("\n");
    let mut told = lines(&told);
    told.sort_unstable();
    assert_eq!(told, ["mind/done SUCCEEDED", "mind/runs RUNNING", "mind/runs SUCCEEDED"], "{said}");
}
