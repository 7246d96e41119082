//! The simulated `MindBridge`: one async result by id, and the paged query of the collection.
//!
//! Written from the vendor's public description alone; it shares nothing with the adapter it tests.

mod entity;
mod filter;

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde_json::{Value, json};
use url::form_urlencoded;

use self::entity::SimAsyncResult;
use self::filter::Filter;
use super::reply::SimReply;
use super::request::{Incoming, SimRequest, decode, note};
use super::world::{SimState, SimWorld, rotate};
use super::{Endpoint, FaultKind, MindBridgeJob, SimUpstream};

/// The prefix of the API's own paths on a tenant's host.
pub(super) const PREFIX: &str = "/api";

const COLLECTION: &str = "/api/v1/async-results";

/// Parses a request, without answering it.
pub(super) fn read(incoming: &Incoming) -> SimRequest {
    let mut question = SimRequest::new(SimUpstream::MindBridge, incoming);
    let segment = incoming.path().strip_prefix(COLLECTION).and_then(|rest| rest.strip_prefix('/'));
    match segment {
        Some("query") => {
            question.endpoint = Endpoint::Query;
            question.expect_method(&Method::POST);
            read_query(incoming, &mut question);
        }
        Some(id) if !id.is_empty() && !id.contains('/') => {
            question.endpoint = Endpoint::One;
            question.expect_method(&Method::GET);
            question.ids = vec![decode(id)];
            if incoming.uri.query().is_some() {
                question.violation("query parameters where none are defined");
            }
            if !incoming.body.is_empty() {
                question.violation("a body on a GET");
            }
        }
        _ => question.violation("a path that does not exist"),
    }
    question
}

fn read_query(incoming: &Incoming, question: &mut SimRequest) {
    let (mut page, mut size) = (None, None);
    for (name, value) in form_urlencoded::parse(incoming.uri.query().unwrap_or_default().as_bytes()) {
        let slot = match name.as_ref() {
            "page" => &mut page,
            "size" => &mut size,
            "api_key" | "token" | "access_token" => {
                question.violation("a credential in the query string");
                continue;
            }
            _ => {
                question.violation("an unexpected query parameter");
                continue;
            }
        };
        if slot.replace(value.into_owned()).is_some() {
            question.violation("a query parameter given twice");
        }
    }
    // The default page is the first; the default size is the vendor's 20.
    let page = page.map_or(Ok(0), |text| text.parse::<u64>());
    let size = size.map_or(Ok(20), |text| text.parse::<u64>());
    match (page, size) {
        (Ok(page), Ok(size)) if size >= 1 => question.page = Some((page, size)),
        _ => note(&mut question.refusal, "page must be 0 or more, size 1 or more"),
    }
    if incoming.header("content-type").is_none_or(|it| !it.starts_with("application/json")) {
        question.violation("a filter that is not sent as application/json");
    }
    match serde_json::from_slice::<Value>(&incoming.body).map_err(|error| error.to_string()) {
        Ok(document) => match Filter::read(&document) {
            Ok(filter) => {
                question.ids = filter.ids();
                question.filter = Some(document);
                if !filter.is_by_id() {
                    question.endpoint = Endpoint::List;
                }
            }
            Err(problem) => note(&mut question.refusal, &problem),
        },
        Err(problem) => note(&mut question.refusal, &format!("the filter is not JSON: {problem}")),
    }
}

/// Answers truly, by the current state. A `fault` of that kind changes the page.
pub(super) fn answer(world: &SimWorld, question: &SimRequest, fault: Option<&FaultKind>) -> SimReply {
    if !question.auth_accepted() {
        return problem(
            world,
            401,
            "UNAUTHORIZED",
            "the bearer token is missing or not valid",
            &question.path,
        );
    }
    match question.endpoint {
        Endpoint::Unexpected | Endpoint::Status => {
            problem(world, 404, "NOT_FOUND", "there is no such path", &question.path)
        }
        _ if question.wrong_method => {
            problem(world, 405, "METHOD_NOT_ALLOWED", "the method is not allowed here", &question.path)
        }
        Endpoint::One => {
            let id = question.ids.first().map_or("", String::as_str);
            one(world, id).map_or_else(
                || problem(world, 404, "NOT_FOUND", "no async result has this id", &question.path),
                |document| SimReply::json(200, document),
            )
        }
        Endpoint::Query | Endpoint::List => query(world, question, fault),
    }
}

fn query(world: &SimWorld, question: &SimRequest, fault: Option<&FaultKind>) -> SimReply {
    let is_list = question.endpoint == Endpoint::List;
    let refused = {
        let state = world.lock();
        let tenant = &state.scenario.mindbridge;
        tenant.refuse_query.or_else(|| tenant.list.refuse.filter(|_| is_list))
    };
    if let Some(status) = refused {
        return problem(world, status, "REFUSED", "this tenant does not offer the query", &question.path);
    }
    if let Some(refusal) = &question.refusal {
        return problem(world, 400, "BAD_REQUEST", refusal, &question.path);
    }
    let filter = question.filter.as_ref().and_then(|document| Filter::read(document).ok());
    let (Some((page, requested_size)), Some(filter)) = (question.page, filter) else {
        return problem(world, 400, "BAD_REQUEST", "the filter cannot be read", &question.path);
    };
    let mut size = requested_size;
    if let Some(limit) = world.lock().scenario.mindbridge.max_page_size {
        size = size.min(limit.into());
    }
    if let Some(FaultKind::PageSize { size: forced }) = fault {
        size = u64::from(*forced).max(1);
    }
    let now = world.now();
    let mut state = world.lock();
    let shift = if is_list { state.next_shift(question.upstream) } else { 0 };
    let mut found =
        if is_list { listed(world, &state, now) } else { by_id(world, &state, &question.ids, now) };
    found.retain(|job| filter.holds(&|field| job.field(field)));
    if let Some(FaultKind::Omit { ids }) = fault {
        found.retain(|job| !ids.iter().any(|id| id == job.id()));
    }
    rotate(&mut found, shift);
    SimReply::json(200, page_of(&found, page, size))
}

/// A page with every field the vendor documents, the deprecated ones included.
fn page_of(found: &[SimAsyncResult<'_>], page: u64, size: u64) -> Value {
    let total = found.len() as u64;
    let pages = total.div_ceil(size);
    let offset = page.saturating_mul(size);
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let take = usize::try_from(size).unwrap_or(usize::MAX);
    let content: Vec<Value> = found.iter().skip(skip).take(take).map(SimAsyncResult::to_json).collect();
    let sort = json!({"sorted": false, "unsorted": true, "empty": true});
    json!({
        "pageNumber": page,
        "totalPages": pages,
        "numberOfElements": content.len(),
        "totalElements": total,
        "pageable": {
            "pageNumber": page, "pageSize": size, "offset": offset, "paged": true, "unpaged": false, "sort": sort,
        },
        "pageSize": size,
        "sort": sort,
        "first": page == 0,
        "last": page.saturating_add(1) >= pages,
        "size": size,
        "number": page,
        "content": content,
    })
}

/// An error body in the vendor's dialect of RFC 7807.
pub(super) fn problem(world: &SimWorld, status: u16, code: &str, reason: &str, path: &str) -> SimReply {
    let document = json!({
        "type": format!("https://developer.mindbridge.ai/problems/{}", code.to_lowercase().replace('_', "-")),
        "title": http::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason()),
        "status": status,
        "instance": path,
        "origin": format!("simulator-{}", world.request_id()),
        "problems": [{"problemType": code, "severity": "ERROR", "reason": reason}],
    });
    SimReply::problem(status, document)
}

/// The jobs with these ids as they are now, in the order of the scenario.
fn by_id<'a>(
    world: &SimWorld,
    state: &'a SimState,
    ids: &[String],
    now: Duration,
) -> Vec<SimAsyncResult<'a>> {
    let mut left: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let jobs = state.scenario.mindbridge.jobs.iter();
    let mut found: Vec<_> = jobs
        .filter(|job| job.every.is_none() && left.remove(job.id.as_str()))
        .filter(|job| !state.is_forgotten(SimUpstream::MindBridge, &job.id))
        .filter_map(|job| SimAsyncResult::at(world, job, job.id.clone(), job.born, now))
        .collect();
    // The others are members of a family, or do not exist.
    found.extend(left.into_iter().filter_map(|id| {
        let (job, born) = find(state, id)?;
        SimAsyncResult::at(world, job, id.to_owned(), born, now)
    }));
    found
}

/// The jobs that the list contains now, in the order of the list.
fn listed<'a>(world: &SimWorld, state: &'a SimState, now: Duration) -> Vec<SimAsyncResult<'a>> {
    let jobs = state.scenario.mindbridge.jobs.iter();
    let born = jobs.flat_map(|job| job.family().listed_members(now).into_iter().map(move |born| (job, born)));
    // A member whose state was set is a plain job now, and listed as one.
    let replaced = |job: &MindBridgeJob, id: &str| {
        job.every.is_some() && find(state, id).is_none_or(|(found, _)| !std::ptr::eq(found, job))
    };
    let mut listed: Vec<_> = born
        .filter(|(job, (id, _))| !state.is_forgotten(SimUpstream::MindBridge, id) && !replaced(job, id))
        .filter_map(|(job, (id, born))| {
            let at = state.listed_at(SimUpstream::MindBridge, &id, born, now)?;
            SimAsyncResult::at(world, job, id, born, at)
        })
        .collect();
    listed.sort_by_cached_key(|job| world.list_position(job.id()));
    listed
}

fn one(world: &SimWorld, id: &str) -> Option<Value> {
    let state = world.lock();
    let (job, born) = find(&state, id)?;
    SimAsyncResult::at(world, job, id.to_owned(), born, world.now()).map(|job| job.to_json())
}

/// Finds a job by id, and the time of its birth, past or future.
pub(super) fn find<'a>(state: &'a SimState, id: &str) -> Option<(&'a MindBridgeJob, Duration)> {
    if state.is_forgotten(SimUpstream::MindBridge, id) {
        return None;
    }
    let jobs = state.scenario.mindbridge.jobs.iter();
    // A plain id has precedence over a family that also matches it: a member whose state was set becomes a plain job.
    let mut found: Vec<_> = jobs.filter_map(|job| Some((job, job.family().birth(id)?))).collect();
    found.sort_by_key(|(job, _)| job.every.is_some());
    found.into_iter().next()
}
