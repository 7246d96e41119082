//! The output and the outcome of the command, without a gateway.

use std::sync::Arc;

use indicatif::TermLike;
use serde_json::{Value, json};

use super::*;
use crate::gateway::{JobOutcome, WireResult};
use crate::screen::ScreenItem;
use crate::{bars, line, table};

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
        let screen = Screen::new(form, JobMode::Watch, &refs(&["mind/a"]), &mut terminal);
        let [one, other] = [1, 2].map(|second| screen.of(ScreenItem::Answer(&estimated(second))));
        assert_eq!(one, other, "{form:?}");
    }
}

#[test]
fn progress_bars_require_watch_mode_and_a_terminal() {
    for (json, mode, attended, env, shown) in [
        (false, JobMode::Watch, true, ("TERM", "xterm"), OutputForm::Bars),
        (false, JobMode::Watch, true, ("NO_COLOR", ""), OutputForm::Bars),
        (false, JobMode::Watch, true, ("NO_COLOR", "1"), OutputForm::Lines),
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

/// A terminal that records its output.
#[derive(Clone, Debug, Default)]
struct TestTerminal(Arc<std::sync::Mutex<String>>);

impl TermLike for TestTerminal {
    fn width(&self) -> u16 {
        100
    }

    fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> std::io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> std::io::Result<()> {
        self.0.lock().unwrap().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bars of two jobs of which the first reports counts, and what was drawn since the last call.
fn bars_of_two() -> (bars::Bars, impl Fn() -> String) {
    let paper = TestTerminal::default();
    let target = indicatif::ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
    let mut bars = bars::Bars::on(target, ["mind/a", "mind/bcd"].into_iter());
    bars.show(0, "mind/a", &job("a", json!({ "progress": { "completed": 3, "total": 6 } })));
    bars.suspend(|| Ok(())).unwrap();
    (bars, move || std::mem::take(&mut *paper.0.lock().unwrap()))
}

#[test]
fn progress_bar_shows_counts_only_if_the_job_reports_them() {
    let (mut bars, drawn) = bars_of_two();
    let text = drawn();
    // its age, which depends on the machine, is between its name and its counts
    let counted = text
        .split("mind/a ")
        .filter_map(|rest| rest.split_once("s ["))
        .any(|(age, bar)| age.trim().parse::<u64>().is_ok() && bar.starts_with("============> "));
    assert!(counted, "{text:?}");
    assert!(text.contains("RUNNING 3/6") && text.contains("mind/bcd"), "{text:?}");
    bars.show(0, "mind/a", &job("a", json!({})));
    bars.end(1);
    drawn();
    bars.suspend(|| Ok(())).unwrap();
    let text = drawn();
    assert!(text.contains("RUNNING") && !text.contains("3/6") && !text.contains('['), "{text:?}");
}

#[test]
fn progress_bar_of_a_completed_job_is_removed() {
    let (bars, drawn) = bars_of_two();
    assert!(drawn().contains("mind/bcd"));
    bars.end(1);
    drawn();
    bars.suspend(|| Ok(())).unwrap();
    let text = drawn();
    assert!(text.contains("mind/a") && !text.contains("mind/bcd"), "{text:?}");
}

#[test]
fn unknown_result_typename_is_read_as_a_job() {
    let answer = job("a", json!({ "__typename": "AKindOfALaterGateway" }));
    assert!(matches!(answer.outcome, JobOutcome::Job(job) if job.external_id == "a"));
}
