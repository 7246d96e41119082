//! The query history: the list of the queries that were requested within a span of time.

mod filter;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::filter::{SimHistoryFilter, whole_second};
use super::parameters::GivenParameters;
use super::{error, find};
use crate::progress::{LifePosition, listed_runs, standing};
use crate::reply::SimReply;
use crate::request::SimRequest;
use crate::world::{SimState, SimWorld, rotate};
use crate::{Endpoint, FaultKind, SimUpstream, SupermetricsJob};

/// The parameters, without the key.
const PARAMETERS: [&str; 6] = ["ds_ids", "status_codes", "since", "until", "offset", "limit"];

/// Parses a request, without answering it.
pub(super) fn read(query: &str, question: &mut SimRequest) {
    question.endpoint = Endpoint::List;
    let mut given = GivenParameters::read(query);
    question.api_key = given.take_key();
    question.refusal = given.refusal;
    for violation in given.violations {
        question.violation(&violation);
    }
    for (name, value) in &given.values {
        if !PARAMETERS.contains(&name.as_str()) {
            question.violation("an unexpected query parameter");
        }
        if matches!(name.as_str(), "since" | "until") && value.as_str().is_some_and(is_too_precise) {
            question.violation(
                "a time with a fraction of a second or an offset, which the pattern does not allow",
            );
        }
    }
    question.filter = Some(Value::Object(given.values));
}

/// Whether a time is of another form than `2026-01-01T00:00:00Z` or `2026-01-01T00:00:00`.
fn is_too_precise(text: &str) -> bool {
    text.contains(':') && !(text.len() == 19 || text.len() == 20 && text.ends_with('Z'))
}

/// Answers with the list, by the state that it shows now. A `fault` of that kind changes the page.
pub(super) fn answer(world: &SimWorld, question: &SimRequest, fault: Option<&FaultKind>) -> SimReply {
    let refused = world.lock().list(SimUpstream::Supermetrics).refuse;
    if let Some(status) = refused {
        let code = match status {
            400 => "BAD_REQUEST",
            403 => "FORBIDDEN",
            404 => "NOT_FOUND",
            405 => "METHOD_NOT_ALLOWED",
            _ => "REFUSED",
        };
        return error(world, status, code, None, Some("this licence does not offer the query history"));
    }
    let now = world.now();
    let none = Map::new();
    let parameters = question.filter.as_ref().and_then(Value::as_object).unwrap_or(&none);
    let clock = whole_second(world.wall(SimUpstream::Supermetrics, now));
    let filter = match SimHistoryFilter::read(parameters, clock) {
        Ok(filter) => filter,
        Err((code, description)) => return error(world, 400, code, None, Some(&description)),
    };
    let request_id = world.request_id();
    let mut state = world.lock();
    let shift = state.next_shift(SimUpstream::Supermetrics);
    let mut found = matching(&filter, world, &state, now);
    found.sort_by_cached_key(|entry| world.list_position(&format!("{}@{}", entry.id, entry.requested)));
    if let Some(FaultKind::Omit { ids }) = fault {
        found.retain(|entry| !ids.contains(&entry.id));
    }
    let mut limit = filter.limit;
    if let Some(FaultKind::PageSize { size }) = fault {
        limit = u64::from(*size).max(1);
    }
    rotate(&mut found, shift);
    let skip = usize::try_from(filter.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    let data: Vec<Value> = found.iter().skip(skip).take(take).map(SimHistoryEntry::to_json).collect();
    let meta = json!({
        "request_id": request_id,
        "filter": {"since": filter.since.to_string(), "until": filter.until.to_string()},
        "paginate": {"offset": filter.offset, "limit": limit, "total": found.len()},
    });
    SimReply::json(200, json!({"meta": meta, "data": data}))
}

/// The matching queries. One that ran more than once is listed once for each run.
fn matching<'a>(
    filter: &SimHistoryFilter,
    world: &SimWorld,
    state: &'a SimState,
    now: Duration,
) -> Vec<SimHistoryEntry<'a>> {
    // A member whose state was set is a plain job now, and listed as one.
    let replaced = |job: &SupermetricsJob, id: &str| {
        job.every.is_some() && find(state, id).is_none_or(|(found, _)| !std::ptr::eq(found, job))
    };
    let mut found = Vec::new();
    for job in &state.scenario.supermetrics.jobs {
        if !filter.ds_ids.contains(&job.ds_id.to_lowercase()) {
            continue;
        }
        for (id, born) in job.family().listed_members(now) {
            if state.is_forgotten(SimUpstream::Supermetrics, &id) || replaced(job, &id) {
                continue;
            }
            let runs = listed_runs(born, job.rerun_every, job.runs, now).into_iter();
            found.extend(runs.filter_map(|began| {
                let at = state.listed_at(SimUpstream::Supermetrics, &id, began, now)?;
                SimHistoryEntry::at(world, job, &id, began, at)
                    .filter(|entry| filter.holds(entry.requested, entry.status_code))
            }));
        }
    }
    found
}

/// One run of a query in the list.
struct SimHistoryEntry<'a> {
    id: String,
    job: &'a SupermetricsJob,
    requested: Timestamp,
    status_code: &'a str,
    /// The rows and the run time, of a run that succeeded or failed.
    result: Option<(u64, f64)>,
}

impl<'a> SimHistoryEntry<'a> {
    /// The run that began then, as it is at a time.
    fn at(
        world: &SimWorld,
        job: &'a SupermetricsJob,
        id: &str,
        began: Duration,
        at: Duration,
    ) -> Option<Self> {
        let LifePosition { step, .. } = standing(began, None, None, &job.moments(), at)?;
        let lived = job.steps.get(..=step)?;
        let current = lived.last()?;
        let status_code = if current.error.is_some() { "FAILURE" } else { current.status.as_str() };
        let rows = match status_code.to_ascii_uppercase().as_str() {
            "SUCCESS" => Some(job.rows.count),
            "FAILURE" => Some(0),
            _ => None,
        };
        let ran_for = lived.iter().find(|step| step.ends_the_run()).map_or(Duration::ZERO, |step| step.at);
        let run_seconds = job.result.run_seconds.unwrap_or(ran_for.as_secs_f64());
        Some(Self {
            id: id.to_owned(),
            job,
            requested: whole_second(
                job.schedule_time.unwrap_or_else(|| world.wall(SimUpstream::Supermetrics, began)),
            ),
            status_code,
            result: rows.map(|rows| (rows, run_seconds)),
        })
    }

    fn to_json(&self) -> Value {
        let mut entry = json!({
            "@type": "query_history",
            "schedule_time": self.requested.to_string(),
            "schedule_id": self.id,
            "status_code": self.status_code,
            "app_id": self.job.app_id,
            "ds_id": self.job.ds_id,
        });
        if let (Some((rows, run_seconds)), Some(entry)) = (self.result, entry.as_object_mut()) {
            entry.insert("total_rows".to_owned(), rows.into());
            entry.insert("run_seconds".to_owned(), run_seconds.into());
        }
        entry
    }
}
