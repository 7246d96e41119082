//! `jobgate job watch` as a person sees it: the real binary on a pseudo-terminal of 60 columns, against the real gateway
//! and the simulated upstreams.

use jobgate_simulator::{MindBridgeJob, MindBridgeStep, SupermetricsJob, SupermetricsStep};
use vt100::{Color, Screen};

use crate::support::server::{Rig, Setup};
use crate::support::terminal::{TerminalProcess, colours, rows};

const COLUMNS: u16 = 60;
/// Fewer than the jobs.
const ROWS: u16 = 9;
/// The colours that every terminal knows, by their codes.
const RED: Color = Color::Idx(1);
const GREEN: Color = Color::Idx(2);
const CYAN: Color = Color::Idx(6);
/// Wider than the terminal.
const LONG: &str = "65f0c0ffee00000000000001-and-a-name-that-is-longer-than-the-terminal-is-wide";

/// Ten running jobs, one of them with counts and one with a long name, one that succeeded and one that failed.
async fn rig() -> Rig {
    let failed = MindBridgeStep {
        error_message: Some("column 7 is no date".to_owned()),
        ..MindBridgeStep::new("ERROR")
    };
    let mut mind = vec![
        MindBridgeJob { steps: vec![failed], ..MindBridgeJob::new("broken", &[]) },
        MindBridgeJob::new("done", &[(0, "COMPLETE")]),
        MindBridgeJob::new(LONG, &[(0, "IN_PROGRESS")]),
    ];
    mind.extend((1..9).map(|number| MindBridgeJob::new(&format!("run{number}"), &[(0, "IN_PROGRESS")])));
    let step = SupermetricsStep { ready: 1, total: 3, ..SupermetricsStep::new("RUNNING") };
    let counted = SupermetricsJob { steps: vec![step], ..SupermetricsJob::new("counted", &[]) };
    let poll = "poll: { min_interval: 100ms, max_interval: 1s }".to_owned();
    Setup { rest: poll, ..Setup::with(mind, vec![counted]) }.start().await
}

fn references() -> Vec<String> {
    let running = (1..9).map(|number| format!("mind/run{number}"));
    let others = ["mind/broken", "mind/done", "metrics/counted"].map(ToOwned::to_owned);
    others.into_iter().chain([format!("mind/{LONG}")]).chain(running).collect()
}

/// Watches all of them on a terminal of this many rows.
fn watch(rig: &Rig, rows: u16, env: &[(&str, &str)]) -> TerminalProcess {
    let url = format!("http://{}", rig.public);
    let references = references();
    let args: Vec<&str> = ["job", "watch"].into_iter().chain(references.iter().map(String::as_str)).collect();
    TerminalProcess::start(rows, COLUMNS, &args, &[&[("JOBGATE_URL", url.as_str())], env].concat())
}

/// The rows of a screen that is filled by the panel, with the state of each running job.
fn settled(screen: &Screen) -> Option<Vec<String>> {
    let rows = rows(screen);
    let is_settled =
        rows.last()?.ends_with("more: 3 RUNNING") && !rows.iter().any(|row| row.contains("connecting"));
    is_settled.then_some(rows)
}

#[tokio::test]
async fn watched_jobs_fit_sixty_columns() {
    let rig = rig().await;
    let mut watch = watch(&rig, ROWS, &[]);
    let (shown, wrapped) = watch
        .find("panel", |screen| {
            let wrapped = (0..ROWS).filter(|row| screen.row_wrapped(*row)).count();
            settled(screen).map(|rows| (rows, wrapped))
        })
        .await;
    assert_eq!(wrapped, 0, "{shown:#?}");
    // the last row is left to the cursor
    assert_eq!(shown.len(), usize::from(ROWS) - 1, "{shown:#?}");
    let names = ["metrics/counted ", "mind/65f0c0ffee", "mind/run1 ", "mind/run2 ", "mind/run3 "];
    for (row, name) in shown.iter().zip(names) {
        assert!(row.split_once(' ').unwrap().1.starts_with(name) && row.contains(" RUNNING "), "{shown:#?}");
    }
    assert!(shown[0].contains("1/3"), "{shown:#?}");
    assert!(shown[1].contains('…') && shown[1].contains("wide"), "the name is cut in its middle: {shown:#?}");
    assert_eq!(shown[7], "and 3 more: 3 RUNNING");
}

#[tokio::test]
async fn watched_states_are_coloured_unless_no_color_is_set() {
    let rig = rig().await;
    let states = ["SUCCEEDED", "FAILED", "RUNNING"];
    for (env, expected) in [(&[][..], [GREEN, RED, CYAN]), (&[("NO_COLOR", "1")], [Color::Default; 3])] {
        let mut watch = watch(&rig, 24, env);
        let complete = |screen: &Screen| {
            let found = states.map(|state| colours(screen, state));
            found.iter().all(|colours| !colours.is_empty()).then_some(found)
        };
        let found = watch.find("line of each state", complete).await;
        for ((state, colours), expected) in states.iter().zip(&found).zip(expected) {
            assert!(colours.iter().all(|colour| *colour == expected), "{state}: {colours:?}");
        }
    }
}

#[tokio::test]
async fn watch_ends_with_a_summary_in_place_of_the_panel() {
    let rig = rig().await;
    let mut watch = watch(&rig, ROWS, &[]);
    watch.find("panel", settled).await;
    let complete = |id: &str| rig.upstreams.set_state(id, MindBridgeStep::new("COMPLETE")).unwrap();
    for number in 1..9 {
        complete(&format!("run{number}"));
    }
    complete(LONG);
    let done = SupermetricsStep { ready: 3, total: 3, ..SupermetricsStep::new("SUCCESS") };
    rig.upstreams.set_state("counted", done).unwrap();
    let (status, screen) = watch.ended().await;
    let rows = rows(&screen);
    assert_eq!(status.code(), Some(1), "one job failed: {rows:#?}");
    let summary = rows.last().unwrap();
    assert!(
        summary.starts_with("12 jobs after ") && summary.ends_with(": 11 SUCCEEDED, 1 FAILED"),
        "{rows:#?}"
    );
    assert!(!rows.iter().any(|row| row.contains("RUNNING") || row.contains(" more: ")), "{rows:#?}");
}

#[tokio::test]
async fn ctrl_c_ends_a_watch_with_a_summary_and_130() {
    let rig = rig().await;
    let mut watch = watch(&rig, ROWS, &[]);
    watch.find("panel", settled).await;
    watch.press("\u{3}");
    let (status, screen) = watch.ended().await;
    let rows = rows(&screen);
    assert_eq!(status.code(), Some(130), "{rows:#?}");
    let summary = rows.last().unwrap();
    assert!(summary.starts_with("12 jobs after "), "{rows:#?}");
    assert!(summary.ends_with(": 1 SUCCEEDED, 1 FAILED, 10 RUNNING"), "{rows:#?}");
    assert!(!rows.iter().any(|row| row.contains(" more: ")), "the panel is erased: {rows:#?}");
}
