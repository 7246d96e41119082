//! The output and the outcome of the command, without a gateway.

use serde_json::{Value, json};

use super::*;
use crate::gateway::{JobOutcome, WireResult};
use crate::panel::{Panel, PanelJob, PanelSize};
use crate::screen::ScreenItem;
use crate::{line, panel, style, summary, table};

fn job(id: &str, more: Value) -> WireResult {
    let mut sent = json!({
        "__typename": "MindBridgeJob", "id": format!("opaque-{id}"), "source": { "name": "mind" }, "externalId": id,
        "state": "RUNNING", "isTerminal": false, "nativeState": "IN_PROGRESS", "progress": null, "failure": null,
        "freshness": { "ageMs": 7, "isStale": false, "staleReason": null },
    });
    merge(&mut sent, more);
    WireResult::read(sent).unwrap()
}

fn merge(base: &mut Value, over: Value) {
    if let Value::Object(over) = over {
        for (key, value) in over {
            base[key] = value;
        }
    }
}

fn problem(id: &str, code: &str) -> WireResult {
    let reference = json!({ "id": null, "source": "mind", "externalId": id });
    let sent = json!({ "__typename": "JobProblem", "ref": reference, "code": code, "message": "why", "retryAfterMs": 5 });
    WireResult::read(sent).unwrap()
}

fn refs(list: &[&str]) -> JobTable {
    JobTable::new(list.iter().map(|text| reference(text).unwrap()))
}

#[test]
fn status_line_shows_state_progress_and_escaped_failure() {
    for (more, line) in [
        (json!({}), "RUNNING"),
        (json!({ "progress": { "completed": 3, "total": 7 } }), "RUNNING 3/7"),
        (json!({ "progress": { "completed": 0, "total": 0 } }), "RUNNING"),
        (json!({ "state": "UNKNOWN", "nativeState": "AWAITING_REVIEW" }), "UNKNOWN (AWAITING_REVIEW)"),
        (json!({ "state": "FAILED", "failure": { "code": "E1", "message": "a\nb" } }), "FAILED E1: a b"),
        (json!({ "state": "FAILED", "failure": { "code": "E1", "message": "E1" } }), "FAILED E1"),
        (json!({ "state": "FAILED", "failure": { "code": null, "message": "why" } }), "FAILED why"),
        (json!({ "state": "FAILED", "failure": { "code": "E1", "message": null } }), "FAILED E1"),
        (json!({ "state": "FAILED", "failure": { "code": null, "message": null } }), "FAILED"),
        (
            json!({ "progress": { "completed": 0, "total": 2 }, "freshness": { "staleReason": "THROTTLED" } }),
            "RUNNING 0/2 stale: THROTTLED",
        ),
        (
            json!({ "state": "FAILED", "failure": { "code": null, "message": "\u{1b}[2J\u{9b}1m\u{202e}x\r\u{2028}" } }),
            "FAILED \u{fffd}[2J\u{fffd}1m\u{fffd}x \u{fffd}",
        ),
    ] {
        assert_eq!(line::text(&job("a", more), false), line);
    }
    assert_eq!(line::text(&problem("a", "NOT_FOUND"), true), "ERROR NOT_FOUND: why");
    assert_eq!(line::text(&problem("a", "UNAVAILABLE"), false), "RETRYING UNAVAILABLE: why");
}

#[test]
fn timeline_has_a_line_for_each_transition() {
    let transition = |state: &str, native: Value, second: u8| json!({ "state": state, "nativeState": native, "observedAt": format!("2026-11-21T20:40:0{second}.125Z"), "upstreamAt": null });
    let [queued, running] =
        [transition("QUEUED", json!("SCHEDULED\n"), 1), transition("RUNNING", Value::Null, 2)];
    let timeline = line::timeline(&job("a", json!({ "transitions": [queued, running] })));
    assert_eq!(timeline, ["  2026-11-21T20:40:01Z QUEUED (SCHEDULED )", "  2026-11-21T20:40:02Z RUNNING"]);
    for more in [json!({}), json!({ "transitions": [] }), json!({ "transitions": [queued] })] {
        assert_eq!(line::timeline(&job("a", more)), [""; 0]);
    }
}

#[test]
fn estimate_is_printed_and_is_no_change() {
    let estimated = |second: u8| {
        let at = |minute: u8| format!("2026-11-21T20:4{minute}:0{second}Z");
        job(
            "a",
            json!({ "estimate": { "expectedFinishAt": at(5), "earliest": at(2), "latest": at(9), "sampleSize": 9 } }),
        )
    };
    let line = "RUNNING expected 2026-11-21T20:45:01Z (2026-11-21T20:42:01Z to 2026-11-21T20:49:01Z)";
    assert_eq!(line::with_estimate(&estimated(1), false), line);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal::new(&mut out, &mut err, false);
    for form in [OutputForm::Lines, OutputForm::Json] {
        let screen = Screen::new(form, JobMode::Watch, &refs(&["mind/a"]), false, &mut terminal);
        let [one, other] = [1, 2].map(|second| screen.of(ScreenItem::Answer(&estimated(second))));
        assert_eq!(one, other, "{form:?}");
    }
}

#[test]
fn panel_requires_watch_mode_and_a_terminal() {
    for (json, mode, attended, env, shown) in [
        (false, JobMode::Watch, true, ("TERM", "xterm"), OutputForm::Panel),
        (false, JobMode::Watch, true, ("NO_COLOR", ""), OutputForm::Panel),
        (false, JobMode::Watch, true, ("NO_COLOR", "1"), OutputForm::Panel),
        (false, JobMode::Watch, true, ("TERM", "dumb"), OutputForm::Lines),
        (false, JobMode::Watch, false, ("TERM", "xterm"), OutputForm::Lines),
        (false, JobMode::Get, true, ("TERM", "xterm"), OutputForm::Lines),
        (false, JobMode::Await, true, ("TERM", "xterm"), OutputForm::Lines),
        (true, JobMode::Watch, true, ("TERM", "xterm"), OutputForm::Json),
        (true, JobMode::Get, false, ("TERM", "xterm"), OutputForm::Json),
    ] {
        let found = form(json, mode, attended, &|name| (name == env.0).then_some(env.1));
        assert_eq!(found, shown, "{mode:?} json {json}, attended {attended}, {env:?}");
    }
}

fn ended(id: &str, state: &str) -> WireResult {
    job(id, json!({ "state": state, "isTerminal": true }))
}

#[test]
fn outcome_of_a_job_follows_from_its_state() {
    use ExitOutcome::{Failure, Success, Unknown};
    for (answer, get, watch) in [
        (ended("a", "SUCCEEDED"), Success, Success),
        (ended("a", "FAILED"), Failure, Failure),
        (ended("a", "CANCELED"), Failure, Failure),
        (ended("a", "EXPIRED"), Failure, Failure),
        (ended("a", "A_LATER_WORD"), Failure, Failure),
        (job("a", json!({})), Success, Unknown),
        (job("a", json!({ "state": "UNKNOWN" })), Success, Unknown),
        (problem("a", "NOT_FOUND"), Unknown, Unknown),
        (problem("a", "EXPIRED"), Unknown, Unknown),
        (problem("a", "A_LATER_CODE"), Unknown, Unknown),
    ] {
        for (mode, outcome) in [(JobMode::Get, get), (JobMode::Watch, watch), (JobMode::Await, watch)] {
            let mut table = refs(&["mind/a"]);
            assert_eq!(table.take(&answer, "x", true, mode), Some(0));
            assert_eq!(table.outcome(), outcome, "{mode:?} {answer:?}");
        }
    }
}

#[test]
fn outcome_of_several_jobs_is_the_worst() {
    let mut table = refs(&["mind/a", "mind/b", "mind/c"]);
    table.take(&ended("a", "SUCCEEDED"), "x", true, JobMode::Watch);
    table.take(&ended("b", "FAILED"), "x", true, JobMode::Watch);
    assert_eq!(table.outcome(), ExitOutcome::Unknown, "the state of one is unknown");
    table.take(&ended("c", "SUCCEEDED"), "x", true, JobMode::Watch);
    assert_eq!(table.outcome(), ExitOutcome::Failure);
}

#[test]
fn duplicate_argument_is_one_job() {
    let mut table = refs(&["mind/a", "opaque-a", "mind/b", "mind/a"]);
    assert_eq!(table.jobs().len(), 3);
    let running = job("a", json!({}));
    assert_eq!(table.take(&running, "RUNNING", false, JobMode::Watch), Some(0), "it is reported once");
    assert_eq!(table.jobs()[1].label(), "mind/a", "a node ID is labelled by source and external id");
}

#[test]
fn unchanged_update_is_not_printed() {
    let mut table = refs(&["mind/a", "mind/b"]);
    let running = job("a", json!({}));
    let mut take =
        |answer: &WireResult, text: &str, is_final| table.take(answer, text, is_final, JobMode::Watch);
    assert_eq!(take(&running, "RUNNING", false), Some(0));
    assert_eq!(take(&running, "RUNNING", false), None);
    assert_eq!(take(&running, "RUNNING 1/2", false), Some(0));
    assert_eq!(take(&problem("b", "UNAVAILABLE"), "x", false), Some(1));
    assert_eq!(take(&problem("b", "UNAVAILABLE"), "x", true), Some(1), "a terminal state is a change");
}

#[test]
fn update_after_the_terminal_state_is_not_printed() {
    let mut table = refs(&["mind/a", "opaque-a"]);
    let end = ended("a", "SUCCEEDED");
    assert_eq!(table.take(&end, "SUCCEEDED", true, JobMode::Watch), Some(0));
    assert_eq!(table.take(&end, "SUCCEEDED", true, JobMode::Watch), None);
    assert_eq!(table.take(&job("a", json!({})), "RUNNING", false, JobMode::Watch), None);
    assert!(table.jobs().iter().all(table::JobTableRow::is_over));
}

#[test]
fn update_of_a_job_that_was_not_requested_is_not_printed() {
    let mut table = refs(&["mind/a"]);
    assert_eq!(table.take(&job("c", json!({})), "RUNNING", false, JobMode::Watch), None);
}

#[test]
fn many_jobs_are_requested_in_groups() {
    let names: Vec<String> = (0..401).map(|number| format!("mind/{number}")).collect();
    let table = JobTable::new(names.iter().map(|name| reference(name).unwrap()));
    let sizes: Vec<usize> = table.groups(200).iter().map(Vec::len).collect();
    assert_eq!(sizes, [200, 200, 1]);
}

fn panel(jobs: &[WireResult], rows: usize, columns: usize, coloured: bool) -> Vec<String> {
    let row = |answer: &WireResult| {
        let JobOutcome::Job(job) = &answer.outcome else { panic!("{answer:?}") };
        let label = format!("mind/{}", job.external_id);
        let mut row = PanelJob::new(&label);
        row.show(&label, answer);
        row
    };
    let jobs: Vec<PanelJob> = jobs.iter().map(row).collect();
    let now = "2026-11-21T20:43:10Z".parse().unwrap();
    panel::lines(&jobs, PanelSize { rows, columns, coloured }, now, "-")
}

fn running(id: &str) -> WireResult {
    let estimate = json!({
        "expectedFinishAt": "2026-11-21T20:45:20Z", "earliest": "2026-11-21T20:44:00Z",
        "latest": "2026-11-21T20:49:00Z", "sampleSize": 9,
    });
    let counts = json!({ "completed": 3, "total": 6 });
    job(id, json!({ "progress": counts, "stateSince": "2026-11-21T20:40:00Z", "estimate": estimate }))
}

#[test]
fn panel_fits_sixty_columns_and_shows_counts_and_estimate() {
    let lines = panel(&[running("65f0c0ffee00000000000001"), job("b", json!({}))], 24, 60, false);
    assert_eq!(
        lines,
        [
            "- mind/65f0c0ffee00000000000001 RUNNING  3m 3/6 2m left",
            "- mind/b                        RUNNING"
        ]
    );
}

#[test]
fn panel_has_a_bar_where_there_is_room() {
    let lines = panel(&[running("a"), job("b", json!({}))], 24, 100, false);
    assert_eq!(lines[0], "- mind/a RUNNING  3m [============>           ] 3/6 2m left");
    assert_eq!(lines[1].trim_end(), "- mind/b RUNNING");
}

#[test]
fn panel_respects_every_width_and_height() {
    let stale = json!({ "freshness": { "staleReason": "CREDENTIAL_REJECTED" } });
    let jobs = [running("a-name-that-is-longer-than-a-narrow-terminal-is"), job("b", stale), running("c")];
    for columns in 1..140 {
        for rows in 2..6 {
            for coloured in [false, true] {
                let lines = panel(&jobs, rows, columns, coloured);
                assert!(lines.len() < rows, "{rows} rows: {lines:?}");
                let longest = lines.iter().map(|line| style::width(line)).max().unwrap();
                assert!(longest < columns.max(2), "{columns} columns: {lines:?}");
            }
        }
    }
}

#[test]
fn panel_counts_the_jobs_that_do_not_fit() {
    let mut jobs: Vec<WireResult> = (0..10).map(|number| running(&number.to_string())).collect();
    jobs.push(job("last", json!({ "state": "QUEUED" })));
    let lines = panel(&jobs, 6, 80, false);
    assert_eq!((lines.len(), lines[4].as_str()), (5, "and 7 more: 6 RUNNING, 1 QUEUED"));
}

#[test]
fn panel_colours_the_state_only_on_request() {
    for coloured in [false, true] {
        let line = panel(&[running("a")], 24, 60, coloured).remove(0);
        assert_eq!(line.contains("\u{1b}[36mRUNNING\u{1b}[0m"), coloured, "{line:?}");
        assert_eq!(line.contains('\u{1b}'), coloured, "{line:?}");
    }
}

#[test]
fn panel_is_drawn_over_itself_and_erased() {
    let now: jiff::Timestamp = "2026-11-21T20:43:10Z".parse().unwrap();
    let mut panel = Panel::new(["mind/a", "mind/b"].into_iter(), false);
    let first = panel.draw(now, (24, 60));
    assert_eq!(first, "\r/ mind/a -     connecting\u{1b}[K\n/ mind/b -     connecting\u{1b}[K\n\u{1b}[J");
    panel.end(0);
    let second = panel.draw(now, (24, 60));
    assert_eq!(second, "\r\u{1b}[2A- mind/b -     connecting\u{1b}[K\n\u{1b}[J");
    assert_eq!(panel.erase(12), "\r\u{1b}[3A\u{1b}[J", "the line of 25 cells takes three rows of 12");
    assert_eq!(panel.erase(60), "\r\u{1b}[J", "nothing is left to erase");
}

#[test]
fn summary_counts_the_jobs_by_state() {
    let mut table = refs(&["mind/a", "mind/b", "mind/c", "mind/d", "mind/e"]);
    for (id, state) in [("a", "FAILED"), ("b", "SUCCEEDED"), ("c", "SUCCEEDED")] {
        table.take(&ended(id, state), "x", true, JobMode::Watch);
    }
    table.take(&job("d", json!({})), "x", false, JobMode::Watch);
    let text = "5 jobs after 2m: 2 SUCCEEDED, 1 FAILED, 1 RUNNING, 1 without a result";
    assert_eq!(summary::of(table.jobs(), 125, false), text);
    assert!(summary::of(table.jobs(), 125, true).contains("1 \u{1b}[31mFAILED\u{1b}[0m, "));
}

#[test]
fn unknown_result_typename_is_read_as_a_job() {
    let answer = job("a", json!({ "__typename": "AKindOfALaterGateway" }));
    assert!(matches!(answer.outcome, JobOutcome::Job(job) if job.external_id == "a"));
}
