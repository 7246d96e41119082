//! One job as one line, for a terminal and for a log. Pure text; `screen` adds the time.

use std::borrow::Cow;

use super::gateway::{JobOutcome, WireFailure, WireJob, WireResult};

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
    if job.state == "UNKNOWN"
        && let Some(native) = &job.native_state
    {
        words.push(format!("({})", visible(native)).into());
    }
    // 0/0 means that nothing is known yet
    if let Some(progress) = &job.progress
        && progress.total > 0
    {
        words.push(format!("{}/{}", progress.completed, progress.total).into());
    }
    if let Some(failure) = &job.failure {
        words.extend(of_failure(failure));
    }
    if let Some(reason) = &job.freshness.stale_reason {
        words.push(format!("stale: {}", visible(reason)).into());
    }
    words.join(" ")
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
