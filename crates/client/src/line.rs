//! One job as one line, for a terminal and for a log. Pure text; `screen` adds the time.

use std::borrow::Cow;

use jiff::Timestamp;

use super::gateway::{JobOutcome, WireEstimate, WireFailure, WireJob, WireResult, WireTransition};
use super::style;

/// The text of a result: `RUNNING 3/7`, `FAILED CODE: why`, `RUNNING stale: THROTTLED`, `ERROR NOT_FOUND: why`.
///
/// `RETRYING NOT_FOUND: why` while the gateway continues to poll.
pub(super) fn text(answer: &WireResult, is_final: bool) -> String {
    match &answer.outcome {
        JobOutcome::Job(job) => of_job(job),
        JobOutcome::Problem(problem) => {
            let word = if is_final { "ERROR" } else { "RETRYING" };
            format!("{word} {}: {}", visible(&problem.code), visible(&problem.message))
        }
    }
}

fn of_job(job: &WireJob) -> String {
    let mut words = vec![visible(&job.state)];
    words.extend(native(job));
    words.extend(progress(job).map(Cow::from));
    words.extend(reasons(job));
    words.join(" ")
}

/// The counts of a job, as `3/7`.
pub(super) fn progress(job: &WireJob) -> Option<String> {
    // 0/0 means that nothing is known yet
    let progress = job.progress.filter(|progress| progress.total > 0)?;
    Some(format!("{}/{}", progress.completed, progress.total))
}

/// What there is to say beside the state and the counts: `CODE: why`, `stale: THROTTLED`, and with a time `2m left`.
pub(super) fn detail(job: &WireJob, now: Option<Timestamp>) -> String {
    let left = job.estimate.as_ref().zip(now).and_then(|(estimate, now)| {
        let finish: Timestamp = estimate.expected_finish_at.parse().ok()?;
        match finish.as_second() - now.as_second() {
            ..=0 => Some("due now".into()),
            seconds => Some(format!("{} left", style::span(seconds)).into()),
        }
    });
    let words: Vec<Cow<'_, str>> = native(job).into_iter().chain(reasons(job)).chain(left).collect();
    words.join(" ")
}

/// The upstream's own name of a state that the gateway does not know.
fn native(job: &WireJob) -> Option<Cow<'_, str>> {
    let native = job.native_state.as_ref().filter(|_| job.state == "UNKNOWN")?;
    Some(format!("({})", visible(native)).into())
}

fn reasons(job: &WireJob) -> impl Iterator<Item = Cow<'_, str>> {
    let stale =
        job.freshness.stale_reason.as_ref().map(|reason| format!("stale: {}", visible(reason)).into());
    job.failure.as_ref().and_then(of_failure).into_iter().chain(stale)
}

/// The same with the estimate, which changes with the time: `RUNNING expected 2026-11-21T20:45:00Z (… to …)`. It is no
/// reason to print a line.
pub(super) fn with_estimate(answer: &WireResult, is_final: bool) -> String {
    let text = text(answer, is_final);
    let estimate = match &answer.outcome {
        JobOutcome::Job(job) => job.estimate.as_ref(),
        JobOutcome::Problem(_) => None,
    };
    let Some(WireEstimate { expected_finish_at, earliest, latest }) = estimate else { return text };
    let [expected, earliest, latest] = [expected_finish_at, earliest, latest].map(|time| seconds(time));
    format!("{text} expected {expected} ({earliest} to {latest})")
}

/// The transitions of a job as lines: the time, the state and the upstream's own name for it. Empty if the job had one
/// state only, which the line of the job shows.
pub(super) fn timeline(answer: &WireResult) -> Vec<String> {
    let transitions = match &answer.outcome {
        JobOutcome::Job(job) if job.transitions.len() > 1 => job.transitions.as_slice(),
        JobOutcome::Job(_) | JobOutcome::Problem(_) => &[],
    };
    let line = |one: &WireTransition| {
        let native = one.native_state.as_deref().map(|native| format!(" ({})", visible(native)));
        format!("  {} {}{}", seconds(&one.observed_at), visible(&one.state), native.unwrap_or_default())
    };
    transitions.iter().map(line).collect()
}

/// A time without fractions of a second.
pub(super) fn seconds(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| visible(time).into_owned(), |time| format!("{time:.0}"))
}

fn of_failure(failure: &WireFailure) -> Option<Cow<'_, str>> {
    match (failure.code.as_deref(), failure.message.as_deref()) {
        // a message that equals the code is printed once
        (Some(code), Some(message)) if code == message => Some(visible(code)),
        (Some(code), Some(message)) => Some(format!("{}: {}", visible(code), visible(message)).into()),
        (Some(one), None) | (None, Some(one)) => Some(visible(one)),
        (None, None) => None,
    }
}

/// The text without characters that control a terminal or break a line of a log. Upstreams can send any text.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return text.into();
    }
    let shown = |c| match c {
        '\n' | '\r' | '\t' => ' ',
        c if obeyed(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect::<String>().into()
}
