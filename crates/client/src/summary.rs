//! How many jobs are in which state, as one line. Pure text.

use super::gateway::JobOutcome;
use super::style;
use super::table::JobTableRow;

/// The order in which states are listed; others follow.
const ORDER: [&str; 7] = ["SUCCEEDED", "FAILED", "CANCELED", "EXPIRED", "RUNNING", "QUEUED", "UNKNOWN"];
/// In place of the state of a job without one.
const WITHOUT: &str = "without a result";

/// The summary of all jobs of a command: `3 jobs after 2m: 2 SUCCEEDED, 1 FAILED`.
pub(super) fn of(jobs: &[JobTableRow], seconds: u64, coloured: bool) -> String {
    let state = |job: &JobTableRow| match job.last().map(|last| &last.outcome) {
        Some(JobOutcome::Job(job)) => job.state.clone(),
        Some(JobOutcome::Problem(_)) | None => WITHOUT.to_owned(),
    };
    let states: Vec<String> = jobs.iter().map(state).collect();
    let word = if jobs.len() == 1 { "job" } else { "jobs" };
    let time = style::span(i64::try_from(seconds).unwrap_or(i64::MAX));
    let states = by_state(states.iter().map(String::as_str), coloured);
    format!("{} {word} after {time}: {states}", jobs.len())
}

/// `2 SUCCEEDED, 1 FAILED`.
pub(super) fn by_state<'a>(states: impl Iterator<Item = &'a str>, coloured: bool) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for state in states {
        match counts.iter_mut().find(|(known, _)| *known == state) {
            Some((_, count)) => *count += 1,
            None => counts.push((state, 1)),
        }
    }
    let place = |state: &str| ORDER.iter().position(|known| *known == state).unwrap_or(ORDER.len());
    counts.sort_by_key(|(state, _)| place(state));
    let text = |(state, count): &(&str, usize)| {
        let state = super::line::visible(state);
        format!("{count} {}", style::paint(&state, &state, coloured))
    };
    counts.iter().map(text).collect::<Vec<_>>().join(", ")
}
