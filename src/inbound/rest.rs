//! Plain REST for clients without GraphQL: `GET /v1/jobs` and `GET /v1/jobs/{source}/{externalId}`, described in
//! `schema/openapi.yaml`.
//!
//! `Prefer: wait=25` waits for a terminal state (RFC 7240); `Retry-After` is the recommended time of the next request;
//! `ETag` and `If-None-Match` save the body; errors are problem details (RFC 9457). It calls the same use cases as
//! GraphQL. Not here: the form of problem details, which the layers use as well (`http/refusal_form`).

mod list;
mod view;

use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::domain::error::{Problem, Retry};
use crate::domain::principal::Principal;
use crate::inbound::answer_limits::answer_memory::{AnswerMemory, ClientMemory};
use crate::inbound::auth::authenticator;
use crate::inbound::client_limits::{ClientLimits, RequestPermit};
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::http::etag;
use crate::inbound::http::request_facts::RequestFacts;
use crate::inbound::http::route::Route;
use crate::jobs::Jobs;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::visibility::RequestedRef;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
/// The longest accepted wait, in seconds: below the idle timeout of common proxies.
const WAIT_MAX: u64 = 25;

/// The routes of plain REST.
pub fn router(jobs: Jobs, limits: ClientLimits, memory: AnswerMemory) -> Router {
    let nothing = async || {
        let message = "not found; jobs are at /v1/jobs and /v1/jobs/{source}/{externalId}";
        HttpRefusal::new(RefusalKind::NoSuchPath, message).into_problem()
    };
    Router::new()
        .route(Route::RestJob.pattern(), any(serve))
        .route(Route::RestJobs.pattern(), any(serve_list))
        .route(Route::RestOther.pattern(), any(nothing))
        .with_state((jobs, limits, memory))
}

type RestState = (Jobs, ClientLimits, AnswerMemory);

async fn serve(
    State(state): State<RestState>,
    method: Method,
    headers: HeaderMap,
    facts: RequestFacts,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let request = RestRequest { route: Route::RestJob, method, headers, facts };
    let answered = job(&state, &request, path).await;
    answered.unwrap_or_else(HttpRefusal::into_problem)
}

async fn serve_list(
    State(state): State<RestState>,
    method: Method,
    headers: HeaderMap,
    facts: RequestFacts,
    RawQuery(query): RawQuery,
) -> Response {
    let request = RestRequest { route: Route::RestJobs, method, headers, facts };
    let answered = job_list(&state, &request, query.as_deref()).await;
    answered.unwrap_or_else(HttpRefusal::into_problem)
}

/// A request without its path and query.
struct RestRequest {
    route: Route,
    method: Method,
    headers: HeaderMap,
    facts: RequestFacts,
}

impl RestRequest {
    /// Authenticates the client, and admits its request.
    fn enter(&self, (jobs, limits, _): &RestState) -> Result<(Principal, RequestPermit), HttpRefusal> {
        if !matches!(self.method, Method::GET | Method::HEAD) {
            return Err(HttpRefusal::method(self.route.allow(), "method not allowed; use GET"));
        }
        let principal = authenticator::authenticate_request(jobs, &self.headers, &self.facts)?;
        self.facts.set_client(&principal);
        let permit = limits.admit(&principal)?;
        Ok((principal, permit))
    }
}

async fn job(
    state: &RestState,
    request: &RestRequest,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, HttpRefusal> {
    let (principal, _permit) = request.enter(state)?;
    let (jobs, _, memory) = state;
    let Ok(Path((source, external_id))) = path else {
        return Err(HttpRefusal::new(RefusalKind::Unreadable, "the path is not percent-encoded UTF-8"));
    };
    let wait = preferred_wait(&request.headers);
    let seen =
        lookup(jobs, &principal, RequestedRef::external(source, external_id), wait).await.map_err(refuse)?;
    respond(jobs, &seen, &request.headers, wait, &memory.of(&principal))
}

async fn job_list(
    state: &RestState,
    request: &RestRequest,
    query: Option<&str>,
) -> Result<Response, HttpRefusal> {
    let (principal, _permit) = request.enter(state)?;
    let (jobs, _, memory) = state;
    let listed = list::request(query)?;
    let page = jobs.list(&principal, &listed).await.map_err(refuse)?;
    let mut answer = HeaderMap::new();
    answer.insert(header::CONTENT_TYPE, JSON);
    if let Some(link) = list::link(query, &page).and_then(|link| HeaderValue::try_from(link).ok()) {
        answer.insert(header::LINK, link);
    }
    let json = memory.write(|out| list::write(jobs, &page, listed.counts, out));
    let body = memory.of(&principal).send(json.ok_or_else(|| memory.too_large())?)?;
    Ok((StatusCode::OK, answer, body).into_response())
}

async fn lookup(
    jobs: &Jobs,
    principal: &Principal,
    job: RequestedRef,
    wait: Option<u64>,
) -> Result<JobSnapshot, Problem> {
    match wait {
        Some(seconds) => jobs.await_end(principal, job, Duration::from_secs(seconds)).await,
        None => jobs.lookup_one(principal, job, None).await,
    }
}

fn respond(
    jobs: &Jobs,
    seen: &JobSnapshot,
    headers: &HeaderMap,
    wait: Option<u64>,
    memory: &ClientMemory,
) -> Result<Response, HttpRefusal> {
    let mut answer = HeaderMap::new();
    let etag = view::etag(seen);
    answer.insert(header::ETAG, etag.clone());
    if let Some(seconds) = wait {
        answer.insert(PREFERENCE_APPLIED, wait_applied(seconds));
    }
    if !seen.observation.job.is_terminal() {
        answer.insert(header::RETRY_AFTER, HeaderValue::from(view::worth_asking_in(seen)));
    }
    if etag::is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    answer.insert(header::CONTENT_TYPE, JSON);
    let body = memory.send(view::body(seen, jobs.estimate(seen)).into_bytes())?;
    Ok((StatusCode::OK, answer, body).into_response())
}

/// The seconds of `Prefer: wait=…`, capped; any other preference is ignored.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut each = preferences.flat_map(|list| list.split([',', ';']));
    let seconds = each.find_map(|one| {
        let (name, value) = one.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    })?;
    Some(seconds.min(WAIT_MAX))
}

fn wait_applied(seconds: u64) -> HeaderValue {
    HeaderValue::try_from(format!("wait={seconds}")).unwrap_or_else(|_| HeaderValue::from_static("wait"))
}

fn refuse(problem: Problem) -> HttpRefusal {
    let refusal = HttpRefusal::new(RefusalKind::Problem(problem.code), problem.message);
    match problem.retry {
        Retry::After(wait) => refusal.retry_after(wait),
        Retry::Never | Retry::Whenever => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_wait_is_parsed_in_any_position_and_capped() {
        let cases = [
            (vec!["wait=5"], Some(5)),
            (vec!["respond-async, wait=7"], Some(7)),
            (vec!["return=minimal", "Wait=\"9\""], Some(9)),
            (vec!["wait=99999"], Some(25)),
            (vec!["wait"], None),
            (vec!["wait=soon"], None),
            (vec!["wait=-1"], None),
            (vec!["await=5"], None),
            (vec![], None),
        ];
        for (sent, expected) in cases {
            let headers = sent.iter().map(|value| (PREFER, HeaderValue::from_static(value))).collect();
            assert_eq!(preferred_wait(&headers), expected, "{sent:?}");
        }
    }
}
