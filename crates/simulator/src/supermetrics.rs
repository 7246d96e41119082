//! The simulated Supermetrics: the status call of one query, with its rows by offset, and the query history.
//!
//! Written from the vendor's public description alone; it shares nothing with the adapter it tests.

mod history;
mod parameters;
mod rows;

use std::time::Duration;

use http::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use self::parameters::StatusParameters;
use super::progress::{LifePosition, standing};
use super::reply::SimReply;
use super::request::{Incoming, SimRequest};
use super::world::{SimState, SimWorld};
use super::{Endpoint, FaultKind, QueryError, SimUpstream, SupermetricsJob, SupermetricsStep};

/// The vendor's default prefix, which is in the simulator's URL.
pub(super) const PREFIX: &str = "/enterprise/v2";

/// The prefixes in use; the vendor's own tools use all three.
const PREFIXES: [&str; 3] = [PREFIX, "/v2", ""];

/// Parses a request, without answering it.
pub(super) fn read(incoming: &Incoming) -> SimRequest {
    let mut question = SimRequest::new(SimUpstream::Supermetrics, incoming);
    let query = incoming.uri.query().unwrap_or_default();
    let call =
        PREFIXES.iter().find_map(|prefix| incoming.path().strip_prefix(prefix)?.strip_prefix("/query/"));
    match call {
        Some("status") => read_status(query, &mut question),
        Some("history") => history::read(query, &mut question),
        _ => {
            question.violation("a path that does not exist");
            return question;
        }
    }
    question.expect_method(&Method::GET);
    if !incoming.body.is_empty() {
        question.violation("a body on a GET");
    }
    question
}

fn read_status(query: &str, question: &mut SimRequest) {
    question.endpoint = Endpoint::Status;
    let StatusParameters { schedule_id, offset_start, offset_end, api_key, violations, refusal } =
        StatusParameters::read(query);
    for violation in violations {
        question.violation(&violation);
    }
    question.ids = schedule_id.into_iter().collect();
    question.offsets = (offset_start, offset_end);
    question.api_key = api_key;
    question.refusal = refusal;
}

/// Answers truly, by the current state. A `fault` of that kind changes the page of the history.
pub(super) fn answer(world: &SimWorld, question: &SimRequest, fault: Option<&FaultKind>) -> SimReply {
    if !matches!(question.endpoint, Endpoint::Status | Endpoint::List) {
        return error(world, 404, "NOT_FOUND", None, Some("there is no such path"));
    }
    if question.wrong_method {
        return error(world, 405, "METHOD_NOT_ALLOWED", None, Some("use GET"));
    }
    if !question.auth_accepted() {
        let (code, description) = match (&question.bearer, &question.api_key) {
            (Some(_), _) => ("ACCESS_TOKEN_INVALID", "the access token is not valid"),
            (None, Some(_)) => ("API_KEY_INVALID", "the API key is not valid"),
            (None, None) => ("API_KEY_REQUIRED", "an API key or an access token is required"),
        };
        return error(world, 401, code, None, Some(description));
    }
    if let Some(refusal) = &question.refusal {
        return error(world, 400, "PARAMETER_INVALID", None, Some(refusal));
    }
    if question.endpoint == Endpoint::List {
        return history::answer(world, question, fault);
    }
    let Some(id) = question.ids.first() else {
        return error(world, 400, "PARAMETER_REQUIRED", None, Some("schedule_id is required"));
    };
    let Some(seen) = snapshot(world, id) else {
        let status = world.lock().scenario.supermetrics.not_found_status;
        return error(
            world,
            status,
            "STATUS_NOT_FOUND",
            None,
            Some("no status was found for this schedule_id"),
        );
    };
    status(world, question, id, &seen)
}

/// Envelope 1, with the message that only repeats the code, as the service sends it.
pub(super) fn error(
    world: &SimWorld,
    status: u16,
    code: &str,
    message: Option<&str>,
    description: Option<&str>,
) -> SimReply {
    let mut error = json!({"code": code, "message": message.unwrap_or(code)});
    if let (Some(map), Some(description)) = (error.as_object_mut(), description) {
        map.insert("description".to_owned(), description.into());
    }
    SimReply::json(status, json!({"meta": {"request_id": world.request_id()}, "error": error}))
}

/// Envelope 2: RFC 9457 problem details.
pub(super) fn problem(status: u16, code: &str, detail: &str, path: &str) -> SimReply {
    let document = json!({
        "type": format!("https://docs.supermetrics.com/problems/{code}"),
        "title": http::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason()),
        "status": status,
        "detail": detail,
        "instance": path,
    });
    SimReply::problem(status, document)
}

/// The state of a query at one time.
struct QuerySnapshot {
    job: SupermetricsJob,
    step: SupermetricsStep,
    /// Which run of which birth, for cells that differ from run to run.
    run: u64,
    ran_for: Duration,
}

fn snapshot(world: &SimWorld, id: &str) -> Option<QuerySnapshot> {
    let now = world.now();
    let state = world.lock();
    let (job, born) = find(&state, id)?;
    let LifePosition { run, run_began, step, entered } =
        standing(born, job.rerun_every, job.runs, &job.moments(), now)?;
    let step = job.steps.get(step)?;
    // Steps after the terminal state, such as a late change of the licence queue's numbers, do not delay the expiry.
    let ended =
        job.steps.iter().find(|step| step.ends_the_run()).map(|step| run_began.saturating_add(step.at));
    if ended.is_some_and(|ended| now >= ended.saturating_add(job.expires_after)) {
        return None;
    }
    let ran_for = entered.saturating_sub(run_began);
    Some(QuerySnapshot { job: job.clone(), step: step.clone(), run, ran_for })
}

/// Finds a query by id, and the time of its birth, past or future.
pub(super) fn find<'a>(state: &'a SimState, id: &str) -> Option<(&'a SupermetricsJob, Duration)> {
    if state.is_forgotten(SimUpstream::Supermetrics, id) {
        return None;
    }
    let jobs = state.scenario.supermetrics.jobs.iter();
    // A plain id has precedence over a family that also matches it: a member whose state was set becomes a plain job.
    let mut found: Vec<_> = jobs.filter_map(|job| Some((job, job.family().birth(id)?))).collect();
    found.sort_by_key(|(job, _)| job.every.is_some());
    found.into_iter().next()
}

fn status(world: &SimWorld, question: &SimRequest, id: &str, seen: &QuerySnapshot) -> SimReply {
    let QuerySnapshot { job, step, run, ran_for } = seen;
    if let Some(QueryError { code, message, description, http_status }) = &step.error {
        return error(world, *http_status, code, message.as_deref(), description.as_deref());
    }
    let mut meta = Map::new();
    let mut put = |name: &str, value: Value| drop(meta.insert(name.to_owned(), value));
    put("request_id", world.request_id().into());
    put("schedule_id", id.into());
    put("status_code", step.status.as_str().into());
    put("progress", json!({"queries_ready": step.ready, "queries_total": step.total}));
    put("workflow", json!({"tasks_scheduled": step.tasks_scheduled, "tasks_running": step.tasks_running}));
    let mut data = Vec::new();
    if step.status.eq_ignore_ascii_case("SUCCESS") {
        let total = job.rows.count;
        let window = window(world, question.offsets, job.rows.readable.unwrap_or(total).min(total));
        let run_seconds = job.result.run_seconds.unwrap_or(ran_for.as_secs_f64());
        put("query", query_meta(job));
        put(
            "result",
            json!({
                "total_rows": total,
                "total_columns": job.rows.columns.len(),
                "run_seconds": run_seconds,
                "data_sampled": job.result.data_sampled,
                "cache_used": job.result.cache_used,
                "cache_time": job.result.cache_time,
            }),
        );
        put("paginate", paginate(question, id, &window, total));
        if !job.query.no_headers {
            data.push(rows::header(&job.rows));
        }
        // Each run has its own cells, and each page of a run the same.
        let seed = world.seed() ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        data.extend(window.map(|row| rows::row(&job.rows, seed, row)));
    }
    SimReply::json(200, json!({"meta": meta, "data": data}))
}

/// The requested rows: both offsets inclusive, all when they are absent.
fn window(world: &SimWorld, (start, end): (Option<u64>, Option<u64>), total: u64) -> std::ops::Range<u64> {
    let state = world.lock();
    let account = &state.scenario.supermetrics;
    let zero_is_unset = account.zero_offsets_mean_all && start.unwrap_or(0) == 0 && end.unwrap_or(0) == 0;
    let window = if account.ignores_offsets || zero_is_unset {
        0..total
    } else {
        start.unwrap_or(0).min(total)..end.map_or(total, |end| end.saturating_add(1).min(total))
    };
    let most = account.rows_per_answer.unwrap_or(u64::MAX);
    window.start..window.end.min(window.start.saturating_add(most))
}

fn query_meta(job: &SupermetricsJob) -> Value {
    let fields: Vec<Value> = job.rows.columns.iter().enumerate().map(|(n, it)| rows::field(n, it)).collect();
    json!({
        "start_date": job.query.start_date,
        "end_date": job.query.end_date,
        "ds_accounts": job.query.ds_accounts,
        "settings": {"no_headers": job.query.no_headers},
        "fields": fields,
    })
}

/// The links to the previous and next pages, which contain the key if the key was a parameter.
fn paginate(question: &SimRequest, id: &str, window: &std::ops::Range<u64>, total: u64) -> Value {
    let length = window.end.saturating_sub(window.start).max(1);
    let link = |start: u64, end: u64| {
        let mut parameters = json!({"schedule_id": id, "offset_start": start, "offset_end": end});
        let key =
            question.api_key.as_ref().filter(|_| question.bearer.is_none()).map(SecretString::expose_secret);
        if let (Some(map), Some(key)) = (parameters.as_object_mut(), key) {
            map.insert("api_key".to_owned(), key.into());
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("json", &parameters.to_string())
            .finish();
        format!("http://{}{}?{query}", question.local, question.path)
    };
    let next = (window.end < total).then(|| link(window.end, window.end.saturating_add(length - 1)));
    let prev = (window.start > 0).then(|| link(window.start.saturating_sub(length), window.start - 1));
    json!({"prev": prev, "next": next})
}
