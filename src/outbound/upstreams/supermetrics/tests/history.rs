//! The list of unfinished queries: the requests, and what each response comes to.

use std::collections::BTreeMap;

use super::*;
use crate::domain::state::JobState;
use crate::outbound::testing::SeenRequest;
use crate::ports::listing::{JobListing, ListError, Listed, UnfinishedJob};
use jiff::Timestamp;

fn open_listed(server: &ScriptedServer) -> Arc<dyn JobReader> {
    let data_sources = vec!["GAWA".to_owned(), "AW".to_owned()];
    let settings = SourceSettings { data_sources, ..settings(&server.url) };
    reader(Upstream::Supermetrics, settings, deps(OneKey::api_key(KEY)))
}

fn item(number: usize, status: &str, time: &str) -> Value {
    json!({
        "@type": "query_history", "schedule_id": format!("q{number}"), "status_code": status,
        "schedule_time": time, "ds_id": "GAWA", "app_id": 1
    })
}

/// An account with so many unfinished queries, of which at most `most` are on a page. Without totals, the pages have no
/// numbers.
fn busy(count: usize, most: usize, totals: bool) -> impl Fn(&SeenRequest) -> Vec<u8> {
    move |seen| {
        let asked = seen.json();
        let number = |name: &str| usize::try_from(asked[name].as_u64().unwrap()).unwrap();
        let limit = number("limit").min(most);
        let data: Vec<Value> = (0..count)
            .skip(number("offset"))
            .take(limit)
            .map(|number| item(number, "RUNNING", "2026-11-28 12:00:00"))
            .collect();
        let mut meta = json!({"request_id": "r"});
        if totals {
            meta["paginate"] = json!({"offset": asked["offset"], "limit": limit, "total": count});
        }
        json(200, &json!({"meta": meta, "data": data}))
    }
}

async fn list(reader: &Arc<dyn JobReader>) -> JobListing {
    reader.list(Timestamp::UNIX_EPOCH).await.unwrap()
}

fn jobs_of(listing: &JobListing) -> BTreeMap<&str, &UnfinishedJob> {
    let Ok(Listed::Unfinished(jobs)) = &listing.outcome else { panic!("{listing:?}") };
    jobs.iter().map(|job| (job.id.as_str(), job)).collect()
}

#[tokio::test]
async fn history_is_requested_for_unfinished_queries_of_five_hours() {
    let server = ScriptedServer::start(busy(1, 1_000, true));
    let listing = list(&open_listed(&server)).await;
    assert_eq!(jobs_of(&listing)["q0"].state, JobState::Running);
    let seen = server.seen();
    assert!(seen[0].head.starts_with("GET /api/query/history?json="), "{}", seen[0].head);
    let mut asked = seen[0].json();
    let since: Timestamp = asked["since"].as_str().unwrap().parse().unwrap();
    let now = deps(OneKey::api_key(KEY)).clock.time_of_day();
    assert_eq!(now.duration_since(since).as_hours(), 5);
    asked.as_object_mut().unwrap().remove("since");
    let expected = json!({
        "api_key": KEY, "ds_ids": ["GAWA", "AW"], "status_codes": ["SCHEDULED", "QUEUED", "RUNNING"],
        "offset": 0, "limit": 1_000
    });
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn source_without_data_sources_cannot_be_listed() {
    let server = ScriptedServer::start(busy(1, 1_000, true));
    assert_eq!(open(&server).list_support(), None);
    assert!(open_listed(&server).list_support().is_some());
}

#[tokio::test]
async fn history_is_read_page_by_page_with_an_overlap() {
    for (count, most, totals, calls) in [
        (0, 1_000, true, 1),
        (1_000, 1_000, true, 1),
        (1_001, 1_000, true, 2),
        (2_500, 1_000, true, 3),
        (250, 100, true, 3),
        (0, 1_000, false, 1),
        (999, 1_000, false, 2),
        (1_500, 1_000, false, 3),
        (250, 100, false, 4),
        (30, 10, false, 4),
    ] {
        let server = ScriptedServer::start(busy(count, most, totals));
        let listing = list(&open_listed(&server)).await;
        assert_eq!(jobs_of(&listing).len(), count, "{count} {most} {totals}");
        assert_eq!((listing.calls, server.seen().len()), (calls, calls as usize), "{count} {most} {totals}");
    }
}

#[tokio::test]
async fn history_with_a_limit_of_its_own_and_no_total_is_read_to_its_end() {
    let pages = |seen: &SeenRequest| {
        let offset = usize::try_from(seen.json()["offset"].as_u64().unwrap()).unwrap();
        let data = (offset..250).take(100).map(|number| item(number, "RUNNING", "2026-11-28 12:00:00"));
        json(200, &json!({"meta": {"paginate": {"limit": 100}}, "data": data.collect::<Vec<_>>()}))
    };
    let server = ScriptedServer::start(pages);
    let listing = list(&open_listed(&server)).await;
    assert_eq!((jobs_of(&listing).len(), listing.calls), (250, 3));
}

#[tokio::test]
async fn history_of_too_many_queries_is_not_read() {
    for (most, totals, calls) in [(1_000, true, 1), (100, true, 1), (1_000, false, 11)] {
        let server = ScriptedServer::start(busy(20_000, most, totals));
        let listing = list(&open_listed(&server)).await;
        assert!(matches!(listing.outcome, Err(ListError::TooLong)), "{totals}");
        assert_eq!(server.seen().len(), calls, "{totals}");
    }
}

#[tokio::test]
async fn newest_run_of_a_query_in_the_history_counts() {
    let data = json!([
        item(1, "QUEUED", "2026-11-28 12:00:00"), item(1, "running", "2026-11-28 11:00:00"),
        item(2, "SCHEDULED", "2026-11-28 11:00:00"), item(3, "SUCCESS", "2026-11-28 11:00:00"),
        item(4, "ON_HOLD", "2026-11-28 11:00:00"), null, {"schedule_id": "a/b", "status_code": "RUNNING"}
    ]);
    let server = ScriptedServer::start(move |_| json(200, &json!({"data": data.clone()})));
    let listing = list(&open_listed(&server)).await;
    let jobs = jobs_of(&listing);
    assert_eq!(jobs.keys().copied().collect::<Vec<_>>(), ["q1", "q2"]);
    assert_eq!((jobs["q1"].state, jobs["q2"].state), (JobState::Queued, JobState::Queued));
    assert_eq!(jobs["q1"].begun.as_deref(), Some("2026-11-28 12:00:00"));
}

#[tokio::test]
async fn a_history_is_refused_by_its_status_alone() {
    let cases = [
        (error(400, "PARAMETER_INVALID"), "refused 400"),
        (error(403, "ACCESS_NOT_ALLOWED"), "refused 403"),
        (error(404, "ROUTE_NOT_FOUND"), "refused 404"),
        (answer(400, "", "<html>"), "refused 400"),
        (answer(403, "", "<html>"), "refused 403"),
        (answer(403, "", ""), "refused 403"),
        (answer(404, "", "<html>"), "refused 404"),
        (answer(405, "", ""), "refused 405"),
        (error(403, "API_KEY_DISABLED"), "CredentialRejected"),
        (answer(200, "", "<html>"), "BadAnswer"),
        (error(401, "API_KEY_INVALID"), "CredentialRejected"),
        (error(429, "LICENSE_DAILY_QUERY_LIMIT_EXCEEDED"), "Throttled"),
        (answer(502, "", ""), "Unavailable"),
        (json(200, &json!({"data": [], "error": {"code": "INTERNAL"}})), "Unavailable"),
    ];
    for (bytes, expected) in cases {
        let case = String::from_utf8_lossy(&bytes).into_owned();
        let server = ScriptedServer::start(move |_| bytes.clone());
        let outcome = match list(&open_listed(&server)).await.outcome.unwrap_err() {
            ListError::Refused(status) => format!("refused {status}"),
            ListError::TooLong => "too long".to_owned(),
            ListError::Fetch(error) => format!("{error:?}"),
        };
        assert!(outcome.starts_with(expected), "{case}: {outcome}");
    }
}

#[tokio::test]
async fn history_without_a_list_is_not_an_empty_one() {
    let none = json!({"paginate": {"offset": 0, "limit": 1000, "total": 0}});
    for (meta, data, is_list) in [
        (json!({}), json!(null), false),
        (json!({}), json!({}), false),
        (json!({}), json!("x"), false),
        (json!({}), json!([]), true),
        (none, json!(null), true),
    ] {
        let body = json!({"meta": meta, "data": data});
        let server = ScriptedServer::start(move |_| json(200, &body));
        let listing = list(&open_listed(&server)).await;
        assert_eq!(listing.outcome.is_ok(), is_list, "{listing:?}");
    }
}
