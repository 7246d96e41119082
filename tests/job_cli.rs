//! `jobgate job` as people and scripts use it: the real binary against the real gateway and the simulated upstreams.
//! Without a terminal, as in a log.

use jiff::Timestamp;
use jobgate::config::ClientConfig;
use jobgate::domain::id::{ExternalId, JobKey, SourceName};
use jobgate::outbound::identity::keys;
use jobgate_simulator::{
    Addresses, MindBridgeJob, MindBridgeStep, Simulator, SupermetricsJob, SupermetricsStep,
};
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;
use crate::support::server::{KEY, Rig, Setup, TOKEN};
use crate::support::streams::LIMIT;

/// Polls often, so that no test waits for long.
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

/// Runs a command that times out after a second: the exit code, its output, and its duration. A slow machine may need
/// more time until this output appears, and gets it.
async fn timed(args: &[&str], env: &[(&str, &str)], words: &str) -> (Option<i32>, String, &'static str) {
    let mut ended = (None, String::new(), "");
    for time in ["1s", "5s", "30s"] {
        let (code, output) = run(&[&["job"], args, &["--timeout", time]].concat(), env).await;
        ended = (code, output, time);
        if ended.1.contains(words) {
            break;
        }
    }
    ended
}

fn watching(rig: &Rig, args: &[&str]) -> Process {
    Process::start(&[&["job"], args].concat(), &[("JOBGATE_URL", &url(rig))])
}

/// Whether this is the summary that ends a watch, such as `2 jobs after 3s: 2 SUCCEEDED`.
fn is_summary(line: &str) -> bool {
    line.split_once(" after ").is_some_and(|(jobs, _)| jobs.ends_with(" job") || jobs.ends_with(" jobs"))
}

/// The lines without their timestamps, and without the summary.
fn lines(output: &str) -> Vec<&str> {
    let line = |line| {
        let (time, rest) = str::split_once(line, ' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{line}");
        rest
    };
    output.lines().filter(|line| !is_summary(line)).map(line).collect()
}

#[tokio::test]
async fn job_get_prints_each_state_and_exits_with_the_worst() {
    let rig = setup().start().await;
    let key = JobKey {
        source: SourceName::parse("mind").unwrap(),
        external_id: ExternalId::parse("done").unwrap(),
    };
    let opaque = key.node_id();
    for (refs, code, expected) in [
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
        let (found, output) = job(&rig, &[&["get"], refs].concat()).await;
        // the counts of a stopped job are the upstream's own
        let output: Vec<String> =
            lines(&output).iter().map(|line| line.replace("CANCELED 0/1", "CANCELED")).collect();
        assert_eq!(
            (found, output),
            (Some(code), expected.iter().map(ToString::to_string).collect()),
            "{refs:?}"
        );
    }
    for reference in ["mind/nowhere", "elsewhere/done", "nonsense"] {
        let (code, output) = job(&rig, &["get", "mind/broken", reference]).await;
        let output = lines(&output);
        assert_eq!((code, output.len()), (Some(2), 2), "{output:?}");
        assert!(output[1].starts_with(&format!("{reference} ERROR ")), "{output:?}");
    }
}

#[tokio::test]
async fn job_get_prints_the_transitions_of_a_job() {
    let rig = setup().start().await;
    let get = ["get", "mind/runs", "--max-staleness", "0s"];
    job(&rig, &get).await;
    rig.upstreams.set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    let (code, output) = job(&rig, &get).await;
    let mut printed = output.lines();
    assert!(printed.next().unwrap().ends_with(" mind/runs SUCCEEDED"), "{output}");
    let timeline: Vec<&str> = printed.map(|line| line.strip_prefix("  ").unwrap()).collect();
    assert_eq!(
        (code, lines(&timeline.join("\n"))),
        (Some(0), vec!["RUNNING (IN_PROGRESS)", "SUCCEEDED (COMPLETE)"])
    );
}

#[tokio::test]
async fn job_watch_prints_each_change_exactly_once() {
    let rig = setup().start().await;
    let mut watch = watching(&rig, &["watch", "metrics/counted", "mind/broken"]);
    let upstreams = rig.upstreams.clone();
    let expect_line = |wanted: &'static str| move |line: &str| line.ends_with(wanted).then_some(());
    watch.find("the snapshot", expect_line("metrics/counted RUNNING 1/3")).await;
    upstreams.set_state("counted", counted(2, "RUNNING")).unwrap();
    watch.find("a change", expect_line("metrics/counted RUNNING 2/3")).await;
    watch.find("the end of the other", expect_line("mind/broken FAILED column 7 is no date")).await;
    upstreams.set_state("counted", counted(3, "SUCCESS")).unwrap();
    let (status, output) = watch.ended().await;
    let mut output = lines(&output);
    output.retain(|line| !line.starts_with("mind/broken"));
    assert_eq!(
        (status.code(), output),
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
async fn job_watch_ends_with_a_summary() {
    let rig = setup().start().await;
    let (code, output) = job(&rig, &["watch", "mind/done", "mind/broken", "mind/nowhere"]).await;
    let summary: Vec<&str> = output.lines().filter(|line| is_summary(line)).collect();
    assert_eq!((code, summary.len()), (Some(2), 1), "{output}");
    assert!(summary[0].starts_with("3 jobs after "), "{output}");
    assert!(summary[0].ends_with(": 1 SUCCEEDED, 1 FAILED, 1 without a result"), "{output}");
    let (_, output) = job(&rig, &["watch", "--json", "mind/done"]).await;
    assert!(!output.lines().any(is_summary), "{output}");
}

#[tokio::test]
async fn job_watch_stopped_by_ctrl_c_prints_a_summary() {
    let rig = setup().start().await;
    let mut watch = watching(&rig, &["watch", "mind/runs", "mind/done"]);
    for job in ["mind/runs RUNNING", "mind/done SUCCEEDED"] {
        watch.find(job, |line| line.ends_with(job).then_some(())).await;
    }
    watch.signal("INT").await;
    let (status, output) = watch.ended().await;
    assert_eq!(status.code(), Some(130), "{output}");
    assert!(
        output.lines().any(|line| is_summary(line) && line.ends_with(": 1 SUCCEEDED, 1 RUNNING")),
        "{output}"
    );
    assert!(!output.contains("is not terminal"), "{output}");
}

/// A Supermetrics query that succeeded with `count` rows, of which it returns the first `readable`.
async fn rig_with_rows(count: u64, readable: Option<u64>) -> Rig {
    let mut query = SupermetricsJob::new("query", &[(0, "SUCCESS")]);
    (query.rows.count, query.rows.readable) = (count, readable);
    let failed = SupermetricsJob::new("failed", &[(0, "FAILURE")]);
    let runs = SupermetricsJob::new("runs", &[(0, "RUNNING")]);
    let mind = vec![MindBridgeJob::new("done", &[(0, "COMPLETE")])];
    Setup { rest: FOLLOW.to_owned(), ..Setup::with(mind, vec![query, failed, runs]) }.start().await
}

#[tokio::test]
async fn job_rows_prints_every_row_once() {
    let rig = rig_with_rows(2_500, None).await;
    let (code, csv) = job(&rig, &["rows", "metrics/query", "--csv"]).await;
    assert_eq!((code, csv.lines().count()), (Some(0), 2_501), "{csv}");
    assert_eq!(csv.lines().next(), Some("Date,Campaign,Clicks,Cost"));
    let (code, json) = job(&rig, &["rows", "metrics/query", "--json"]).await;
    let rows: Vec<Vec<Value>> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, rows.len()), (Some(0), 2_501));
    for (line, row) in csv.lines().zip(&rows) {
        let cells: Vec<String> = row
            .iter()
            .map(|cell| match cell.as_str() {
                Some(text) if text.contains([',', '"']) => format!("\"{}\"", text.replace('"', "\"\"")),
                Some(text) => text.to_owned(),
                None => cell.to_string(),
            })
            .collect();
        assert_eq!(line, cells.join(","));
    }
    assert!(csv.contains("\"Newsletter, weekly\"") && csv.contains("\"Höst \"\"24\"\"\""), "{csv}");
}

#[tokio::test]
async fn job_rows_of_a_job_without_rows_is_an_error() {
    let rig = rig_with_rows(1, None).await;
    for (reference, code, expected) in [
        ("metrics/failed", 1, "metrics/failed has no rows: FAILED"),
        ("metrics/runs", 2, "metrics/runs is RUNNING"),
        ("mind/done", 2, "mind/done is not a Supermetrics query"),
        ("metrics/nowhere", 2, "NOT_FOUND: "),
    ] {
        let (found, output) = job(&rig, &["rows", reference]).await;
        assert_eq!((found, output.lines().count()), (Some(code), 1), "{reference}: {output}");
        assert!(output.starts_with("jobgate: ") && output.contains(expected), "{reference}: {output}");
    }
}

#[tokio::test]
async fn job_rows_exits_with_2_when_rows_are_missing() {
    let rig = rig_with_rows(150, Some(120)).await;
    let (code, output, _) =
        timed(&["rows", "metrics/query"], &[("JOBGATE_URL", &url(&rig))], "after the first 120").await;
    assert_eq!(code, Some(2), "{output}");
    for words in ["BAD_ANSWER", "; retrying in ", "rows are missing after the first 120: timed out after "] {
        assert!(output.contains(words), "{words}: {output}");
    }
    assert_eq!(output.lines().filter(|line| !line.starts_with("jobgate: ")).count(), 121, "{output}");
}

#[tokio::test]
async fn job_await_prints_only_the_terminal_state() {
    let rig = setup().start().await;
    let waits = watching(&rig, &["await", "mind/runs", "mind/done"]);
    tokio::time::timeout(LIMIT, rig.upstreams.wait_for_requests(3)).await.unwrap();
    rig.upstreams.set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    let (status, output) = waits.ended().await;
    let mut output = lines(&output);
    output.sort_unstable();
    assert_eq!((status.code(), output), (Some(0), vec!["mind/done SUCCEEDED", "mind/runs SUCCEEDED"]));
}

#[tokio::test]
async fn job_await_exits_with_2_when_it_times_out() {
    let rig = setup().start().await;
    let await_it = ["await", "metrics/counted"];
    let (code, output, time) = timed(&await_it, &[("JOBGATE_URL", &url(&rig))], "RUNNING 1/3").await;
    assert_eq!(code, Some(2), "{output}");
    let up = format!("timed out after {time}");
    for words in [up.as_str(), "metrics/counted RUNNING 1/3", "metrics/counted is not terminal"] {
        assert!(output.contains(words), "{words}: {output}");
    }
}

#[tokio::test]
async fn job_await_exits_with_2_for_an_unknown_job() {
    let rig = setup().start().await;
    let (code, output) = job(&rig, &["await", "mind/nowhere"]).await;
    assert_eq!((code, lines(&output).len()), (Some(2), 1), "{output}");
    assert!(output.contains("mind/nowhere ERROR NOT_FOUND: "), "{output}");
}

#[tokio::test]
async fn job_commands_accept_more_jobs_than_one_stream_allows() {
    let names: Vec<String> = (0..401).map(|number| format!("job-{number}")).collect();
    let jobs = names.iter().map(|name| MindBridgeJob::new(name, &[(0, "COMPLETE")]));
    let rig = Setup::with(jobs.collect(), Vec::new()).start().await;
    let refs: Vec<String> = names.iter().map(|name| format!("mind/{name}")).collect();
    let refs: Vec<&str> = refs.iter().map(String::as_str).collect();
    for mode in ["get", "watch", "await"] {
        let (code, output) = job(&rig, &[&[mode], refs.as_slice()].concat()).await;
        let mut output = lines(&output);
        output.sort_unstable();
        let mut wanted: Vec<String> = refs.iter().map(|name| format!("{name} SUCCEEDED")).collect();
        wanted.sort_unstable();
        assert_eq!((code, output), (Some(0), wanted.iter().map(String::as_str).collect()), "{mode}");
    }
}

#[tokio::test]
async fn json_output_is_one_schema_object_per_line() {
    let rig = setup().start().await;
    let objects = |output: &str| -> Vec<Value> {
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (code, output) =
        job(&rig, &["get", "--json", "metrics/counted", "mind/broken", "mind/nowhere"]).await;
    let got = objects(&output);
    assert_eq!((code, got.len()), (Some(2), 3), "{output}");
    assert_eq!(got[0]["__typename"], "SupermetricsJob");
    assert_eq!(got[0]["source"]["name"], "metrics");
    assert_eq!((&got[0]["progress"]["completed"], &got[0]["progress"]["total"]), (&1.into(), &3.into()));
    assert_eq!((&got[0]["isTerminal"], &got[1]["isTerminal"]), (&false.into(), &true.into()));
    assert_eq!(got[1]["failure"]["message"], "column 7 is no date");
    assert_eq!((&got[2]["code"], &got[2]["ref"]["externalId"]), (&"NOT_FOUND".into(), &"nowhere".into()));

    let (code, output) = job(&rig, &["watch", "--json", "mind/done"]).await;
    let got = objects(&output);
    assert_eq!((code, got.len()), (Some(0), 1), "{output}");
    assert_eq!((&got[0]["kind"], &got[0]["isFinal"]), (&"SNAPSHOT".into(), &true.into()));
    assert_eq!(got[0]["result"]["state"], "SUCCEEDED");

    let (code, output) = job(&rig, &["await", "--json", "mind/done"]).await;
    assert_eq!((code, &objects(&output)[0]["state"]), (Some(0), &"SUCCEEDED".into()), "{output}");
}

/// A gateway with four jobs that were read, so that it has stored them.
async fn rig_with_stored_jobs() -> Rig {
    let rig = setup().start().await;
    let refs = ["get", "mind/done", "mind/runs", "mind/broken", "metrics/counted"];
    let (code, output) = job(&rig, &refs).await;
    assert_eq!(code, Some(1), "{output}");
    rig
}

#[tokio::test]
async fn job_list_prints_the_jobs_that_match_its_filters() {
    let rig = rig_with_stored_jobs().await;
    for (args, expected) in [
        (&["--all"][..], &["metrics/counted", "mind/broken", "mind/done", "mind/runs"][..]),
        (
            &["--order", "state", "--source", "mind", "--state", "failed", "--state", "running"],
            &["mind/broken", "mind/runs"],
        ),
        (&["--all", "--source", "mind", "--state", "running"], &["mind/runs"]),
        (&["--text", "COLUMN 7"], &["mind/broken"]),
        (&["--origin", "tracked"], &[]),
        (&["--label", "team=tax"], &[]),
        (&["--updated-since", "2999-01-01T00:00:00Z"], &[]),
    ] {
        let (code, output) = job(&rig, &[&["list"], args].concat()).await;
        let listed: Vec<&str> = output
            .lines()
            .filter(|line| line.contains('/'))
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!((code, listed), (Some(0), expected.to_vec()), "{args:?}: {output}");
        let last = match expected.len() {
            0 => "no jobs match".to_owned(),
            1 => "1 job".to_owned(),
            count => format!("{count} jobs"),
        };
        assert!(output.lines().any(|line| line == last), "{args:?}: {output}");
    }
}

#[tokio::test]
async fn job_list_reports_how_many_jobs_it_leaves_out() {
    let rig = rig_with_stored_jobs().await;
    let (code, output) = job(&rig, &["list", "--first", "3"]).await;
    let listed = output.lines().filter(|line| line.contains('/')).count();
    assert_eq!((code, listed), (Some(0), 3), "{output}");
    assert!(output.contains("3 of 4 jobs; --all lists all"), "{output}");
    assert_eq!(job(&rig, &["list", "--count"]).await, (Some(0), "4\n".to_owned()));
}

#[tokio::test]
async fn job_list_reads_more_jobs_than_one_page_has() {
    let names: Vec<String> = (0..230).map(|number| format!("job-{number:03}")).collect();
    let jobs = names.iter().map(|name| MindBridgeJob::new(name, &[(0, "COMPLETE")]));
    let rig = Setup::with(jobs.collect(), Vec::new()).start().await;
    let refs: Vec<String> = names.iter().map(|name| format!("mind/{name}")).collect();
    let (code, output) =
        job(&rig, &[&["get"], refs.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat()).await;
    assert_eq!(code, Some(0), "{output}");
    for (args, count, last) in
        [(&["--all"][..], 230, "230 jobs"), (&["--first", "150"], 150, "150 of 230 jobs; --all lists all")]
    {
        let (code, output) = job(&rig, &[&["list"], args].concat()).await;
        let listed: std::collections::BTreeSet<&str> =
            output.lines().filter(|line| line.starts_with("mind/")).collect();
        assert_eq!((code, listed.len()), (Some(0), count), "{output}");
        assert!(output.lines().any(|line| line == last), "{output}");
    }
    let (code, output) = job(&rig, &["list", "--all", "--json"]).await;
    let ids: Vec<String> = output
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["node"]["externalId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!((code, ids), (Some(0), names));
}

#[tokio::test]
async fn job_list_json_has_each_job_with_labels_and_origin() {
    let rig = rig_with_stored_jobs().await;
    let (code, output) = job(&rig, &["list", "--json", "--source", "metrics"]).await;
    let edge: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(code, Some(0), "{output}");
    assert_eq!((&edge["origin"], &edge["labels"]), (&"REQUESTED".into(), &Value::Array(Vec::new())));
    assert_eq!(
        (&edge["node"]["scheduleId"], &edge["node"]["progress"]["total"]),
        (&"counted".into(), &3.into())
    );
}

#[tokio::test]
async fn the_key_from_a_file_or_the_environment_is_never_printed() {
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
        let (found, output) = run(&[&args, more].concat(), env).await;
        assert_eq!(found, Some(code), "{args:?} {more:?} {env:?}: {output}");
        assert!(!output.contains("cAnaRy") && !output.contains("wrOng"), "{output}");
        let reason = ["(401)", "/nowhere/at/all cannot be read"];
        assert!(code == 0 || reason.iter().any(|reason| output.contains(reason)), "{output}");
    }
}

#[tokio::test]
async fn an_unreachable_gateway_exits_with_code_2() {
    // bound without listening: no other process gets the port meanwhile
    let unbound = TcpSocket::new_v4().unwrap();
    unbound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", unbound.local_addr().unwrap());
    for mode in ["get", "watch", "await"] {
        let (code, output, _) = timed(&[mode, "mind/done", "--url", &url], &[], "cannot be reached").await;
        assert_eq!(code, Some(2), "{mode}: {output}");
        assert!(
            output.contains("cannot be reached") && output.contains("no result for mind/done"),
            "{output}"
        );
        assert_eq!(
            output.matches("cannot be reached").count(),
            1,
            "printed once, however often it is retried: {output}"
        );
    }
    let (code, output) = run(&["job", "list", "--url", &url], &[]).await;
    assert_eq!((code, output.matches("cannot be reached").count()), (Some(2), 1), "{output}");
}

/// Whether the gateway is killed or drains: the watcher reconnects by itself, prints nothing twice, and prints the
/// terminal state once.
#[tokio::test]
async fn job_watch_reconnects_after_a_gateway_restart() {
    let setup = setup();
    let upstreams = Simulator::start(setup.scenario.clone(), Addresses::ephemeral()).await.unwrap();
    let yaml = setup.yaml(&upstreams.mindbridge_url(), &upstreams.supermetrics_url());
    let secrets = [("MIND_TOKEN", TOKEN), ("METRICS_KEY", KEY)];
    // bound here as well without listening, so that no other process gets the port between two gateways
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
        // no other client calls this gateway: an upstream fetch means that the watcher has reconnected
        tokio::time::timeout(LIMIT, upstreams.handle().wait_for_requests(2)).await.unwrap();
    }
    upstreams.handle().set_state("runs", MindBridgeStep::new("COMPLETE")).unwrap();
    let (status, output) = watch.ended().await;
    assert_eq!(status.code(), Some(0), "{output}");
    // its output about the connection depends on when it retries
    let expected: Vec<&str> = output.lines().filter(|line| !line.starts_with("jobgate: ")).collect();
    let expected = expected.join("\n");
    let mut expected = lines(&expected);
    expected.sort_unstable();
    assert_eq!(expected, ["mind/done SUCCEEDED", "mind/runs RUNNING", "mind/runs SUCCEEDED"], "{output}");
}
