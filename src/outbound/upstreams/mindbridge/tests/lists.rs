//! Lists of what changed: the requests, and what each response comes to.

use super::*;
use crate::domain::observation::Observation;
use crate::ports::listing::{JobListing, ListError, Listed};
use jiff::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};

/// A job that changed at this second of an hour.
fn changed(number: usize, version: u32, second: u32) -> Value {
    let at = format!("2026-11-28T22:00:{second:02}.250Z");
    json!({"id": format!("job{number}"), "status": "IN_PROGRESS", "version": version, "lastModifiedDate": at})
}

/// A tenant with so many changed jobs, whose pages have at most `most` of them.
fn busy(jobs: usize, most: usize, totals: bool) -> impl Fn(&SeenRequest) -> Vec<u8> {
    move |seen| {
        let (page, size) = page_of(seen);
        let size = size.min(most);
        let content: Vec<Value> =
            (0..jobs).skip(page * size).take(size).map(|number| changed(number, 1, 0)).collect();
        let mut page = json!({"content": content});
        if totals {
            page["totalPages"] = json!(jobs.div_ceil(size));
            page["totalElements"] = json!(jobs);
        }
        answer(200, "date: Sat, 28 Nov 2026 22:10:00 GMT\r\n", page.to_string())
    }
}

fn page_of(seen: &SeenRequest) -> (usize, usize) {
    let (_, query) = seen.target().split_once("/v1/async-results/query?").unwrap();
    let pairs: HashMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    (pairs["page"].parse().unwrap(), pairs["size"].parse().unwrap())
}

async fn list(reader: &Arc<dyn JobReader>) -> JobListing {
    let since: Timestamp = "2026-11-28T22:00:00.9Z".parse().unwrap();
    reader.list(since).await.unwrap()
}

fn jobs_of(listing: &JobListing) -> &[Observation] {
    let Ok(Listed::Changes(jobs)) = &listing.outcome else { panic!("{listing:?}") };
    jobs
}

fn ids_of(listing: &JobListing) -> Vec<String> {
    let mut ids: Vec<String> =
        jobs_of(listing).iter().map(|one| one.job.key.external_id.to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn list_requests_what_changed_since_a_whole_second() {
    let server = ScriptedServer::start(busy(1, 500, true));
    let listing = list(&open(&server)).await;
    assert_eq!(ids_of(&listing), ["job0"]);
    assert_eq!(listing.upstream_time, Some("2026-11-28T22:10:00Z".parse().unwrap()));
    let job = &jobs_of(&listing)[0].job;
    assert_eq!((job.counter(), job.updated_at), (Some(1), Some("2026-11-28T22:00:00.25Z".parse().unwrap())));
    let seen = server.seen();
    assert!(
        seen[0].head.starts_with("POST /api/v1/async-results/query?page=0&size=500 "),
        "{}",
        seen[0].head
    );
    let body: Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(body, json!({"lastModifiedDate": {"$gte": "2026-11-28T22:00:00Z"}}));
}

#[tokio::test]
async fn list_reads_all_pages_by_the_replys_own_numbers() {
    for (jobs, most, totals, calls) in [
        (0, 500, true, 1),
        (1_200, 500, true, 3),
        (250, 100, true, 3),
        (250, 100, false, 4),
        (0, 500, false, 1),
    ] {
        let server = ScriptedServer::start(busy(jobs, most, totals));
        let listing = list(&open(&server)).await;
        assert_eq!(ids_of(&listing).len(), jobs, "{jobs} {totals}");
        assert_eq!((listing.calls, server.seen().len()), (calls, calls as usize), "{jobs} {totals}");
    }
}

#[tokio::test]
async fn list_of_too_many_jobs_is_not_read_whatever_the_size_of_its_pages() {
    for (jobs, most, totals, calls) in
        [(10_001, 500, true, 1), (10_001, 500, false, 21), (10_001, 100, true, 1), (2_600, 25, true, 1)]
    {
        let server = ScriptedServer::start(busy(jobs, most, totals));
        let listing = list(&open(&server)).await;
        assert!(matches!(listing.outcome, Err(ListError::TooLong)), "{jobs} {totals}");
        assert_eq!((listing.calls, server.seen().len()), (calls, calls as usize), "{jobs} {totals}");
    }
    let server = ScriptedServer::start(busy(5_000, 100, true));
    let listing = list(&open(&server)).await;
    assert_eq!((ids_of(&listing).len(), listing.calls), (5_000, 50), "more than 20 pages");
}

#[tokio::test]
async fn larger_pages_are_requested_again_after_a_time() {
    let refuses = Arc::new(AtomicBool::new(true));
    let refused = Arc::clone(&refuses);
    let server = ScriptedServer::start(move |seen| match page_of(seen) {
        (_, 101..) if refused.load(Ordering::Relaxed) => json(400, &json!({"title": "no", "status": 400})),
        _ => busy(1, 500, true)(seen),
    });
    let reader = open(&server);
    list(&reader).await;
    refuses.store(false, Ordering::Relaxed);
    for _ in 0..300 {
        list(&reader).await;
    }
    let sizes: Vec<usize> = server.seen().iter().map(|seen| page_of(seen).1).collect();
    assert_eq!((sizes[..2].to_vec(), sizes.last()), (vec![500, 100], Some(&500)), "the largest size again");
}

#[tokio::test]
async fn list_keeps_the_newest_version_of_a_job_on_shifted_pages() {
    let pages = [json!([changed(1, 3, 5), changed(2, 1, 1)]), json!([changed(1, 4, 9), changed(2, 1, 1)])];
    let server = ScriptedServer::start(move |seen| {
        let content = &pages[page_of(seen).0];
        json(200, &json!({"content": content, "totalPages": 2}))
    });
    let listing = list(&open(&server)).await;
    assert_eq!(ids_of(&listing), ["job1", "job2"]);
    let newest = jobs_of(&listing).iter().find(|one| one.job.key.external_id.as_str() == "job1").unwrap();
    assert_eq!(newest.job.counter(), Some(4));
}

#[tokio::test]
async fn unreadable_items_of_a_list_are_omitted() {
    let content = json!([
        changed(1, 1, 1), null, "text", {"id": "job2"}, {"id": "query", "status": "COMPLETE"},
        {"id": "a/b", "status": "COMPLETE"}, {"status": "COMPLETE", "version": 1, "entityId": "e"}
    ]);
    let server =
        ScriptedServer::start(move |_| json(200, &json!({"content": content.clone(), "totalPages": 1})));
    assert_eq!(ids_of(&list(&open(&server)).await), ["job1"]);
}

#[tokio::test]
async fn a_list_is_refused_by_its_status_alone() {
    for (status, own, expected) in [
        (400, true, "refused 400"),
        (403, true, "refused 403"),
        (404, true, "refused 404"),
        (405, true, "refused 405"),
        (422, true, "refused 422"),
        (400, false, "refused 400"),
        (403, false, "refused 403"),
        (404, false, "refused 404"),
        (405, false, "refused 405"),
        (401, false, "CredentialRejected"),
        (422, false, "BadAnswer"),
        (429, false, "Throttled"),
        (500, false, "Unavailable"),
    ] {
        let server = ScriptedServer::start(move |_| {
            let page = "<html><title>No route</title></html>".to_owned();
            let body = if own { json!({"title": "No", "status": status}).to_string() } else { page };
            answer(status, "", body)
        });
        let reader = open(&server);
        let outcome = match list(&reader).await.outcome.unwrap_err() {
            ListError::Refused(status) => format!("refused {status}"),
            ListError::TooLong => "too long".to_owned(),
            ListError::Fetch(error) => format!("{error:?}"),
        };
        assert!(outcome.starts_with(expected), "{status} {own}: {outcome}");
        let is_refused = outcome.starts_with("refused");
        assert!(!is_refused || reader.status().health != SourceHealth::Degraded, "{status} {own}");
    }
}

#[tokio::test]
async fn smaller_pages_are_requested_where_large_ones_are_refused() {
    let server = ScriptedServer::start(|seen| match page_of(seen) {
        (_, 101..) => json(400, &json!({"title": "size is too large", "status": 400})),
        _ => busy(150, 500, true)(seen),
    });
    let reader = open(&server);
    assert_eq!(ids_of(&list(&reader).await).len(), 150);
    assert_eq!(server.seen().len(), 3);
    list(&reader).await;
    assert_eq!(server.seen().len(), 5, "the size is remembered");
}

#[tokio::test]
async fn smaller_pages_are_requested_where_large_ones_exceed_the_limit() {
    let server = ScriptedServer::start(|seen| match page_of(seen) {
        (_, 126..) => answer(200, "", "x".repeat(2 << 20)),
        _ => busy(100, 500, true)(seen),
    });
    let listing = list(&open(&server)).await;
    assert_eq!((ids_of(&listing).len(), listing.calls), (100, 3));
}
