//! The true answers of the upstreams: scripts, pages, rows, credentials and violations.

use tokio::time::advance;

use super::*;
use crate::{MindBridgeStep, QueryError, SupermetricsStep};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn async_result_follows_its_script() {
    let mut job = MindBridgeJob::new("a1", &[(0, "IN_PROGRESS"), (20, "ERROR")]);
    job.born = s(5);
    job.gone_at = Some(s(100));
    job.steps[1].error = Some("FAILED".to_owned());
    job.steps[1].error_message = Some("no header row".to_owned());
    let fixture = SimulatorFixture::new(scenario(vec![job], vec![]));
    let missing = fixture.one("a1").await;
    assert_eq!((missing.status, missing.header("content-type")), (404, "application/problem+json"));
    assert_eq!(missing.at("/problems/0/problemType"), "NOT_FOUND");
    advance(s(5)).await;
    let person = json!({"userId": "5e8d2a7b4c1f3e6a9b0c1d2e", "userName": "Ada Auditor"});
    assert_eq!(
        fixture.one("a1").await.json(),
        json!({
            "id": "a1", "version": 1,
            "creationDate": "2026-01-01T00:00:05Z", "lastModifiedDate": "2026-01-01T00:00:05Z",
            "createdUserInfo": person, "lastModifiedUserInfo": person,
            "type": "ANALYSIS_RUN", "status": "IN_PROGRESS",
            "entityId": "5f9b3c2e1d4a5b6c7d8e9f01", "entityType": "ANALYSIS",
        })
    );
    advance(s(50)).await;
    let failed = fixture.one("a1").await;
    for (pointer, value) in [
        ("/version", json!(2)),
        ("/status", json!("ERROR")),
        ("/error", json!("FAILED")),
        ("/errorMessage", json!("no header row")),
        ("/creationDate", json!("2026-01-01T00:00:05Z")),
        ("/lastModifiedDate", json!("2026-01-01T00:00:25Z")),
    ] {
        assert_eq!(failed.at(pointer), value, "{pointer}");
    }
    advance(s(50)).await;
    assert_eq!(fixture.one("a1").await.status, 404, "removed 100 s after the birth");
    assert_eq!(fixture.handle.violations(), Vec::<String>::new());
}

/// Five jobs, in pages of two; and a filter that three of them match.
fn five_jobs() -> (SimulatorFixture, Value) {
    let job = |n: u32| MindBridgeJob::new(&format!("job{n}"), &[(0, "COMPLETE")]);
    let mut scenario = scenario((0..5).map(job).collect(), vec![]);
    scenario.mindbridge.max_page_size = Some(2);
    (SimulatorFixture::new(scenario), json!({"id": {"$in": ["job4", "job1", "absent", "job2"]}}))
}

#[tokio::test(start_paused = true)]
async fn query_pages_through_the_matching_jobs() {
    let (fixture, filter) = five_jobs();
    let first = fixture.query("?page=0&size=100", &filter).await;
    assert_eq!(ids(&first), ["job1", "job2"]);
    let document = first.json();
    for (field, value) in [
        ("pageNumber", json!(0)),
        ("totalPages", json!(2)),
        ("numberOfElements", json!(2)),
        ("totalElements", json!(3)),
        ("pageSize", json!(2)),
        ("size", json!(2)),
        ("number", json!(0)),
        ("first", json!(true)),
        ("last", json!(false)),
    ] {
        assert_eq!(document[field], value, "{field}");
    }
    assert!(document["pageable"].is_object() && document["sort"].is_object());
    let second = fixture.query("?page=1&size=100", &filter).await;
    assert_eq!((ids(&second), second.at("/last")), (vec!["job4".to_owned()], json!(true)));
    assert_eq!(ids(&fixture.query("?page=2&size=100", &filter).await), Vec::<String>::new());
    assert_eq!(ids(&fixture.query("", &json!({"id": "job3"})).await), ["job3"]);
    assert_eq!(fixture.handle.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn query_is_recorded_with_its_page_and_ids() {
    let (fixture, filter) = five_jobs();
    fixture.query("?page=0&size=100", &filter).await;
    let request = &fixture.handle.record()[0];
    assert_eq!((request.endpoint, request.page), (Endpoint::Query, Some((0, 100))));
    assert_eq!(request.ids, ["job4", "job1", "absent", "job2"]);
}

#[tokio::test(start_paused = true)]
async fn query_with_an_invalid_page_or_filter_returns_400() {
    let (fixture, filter) = five_jobs();
    for page in ["?page=-1", "?page=x", "?size=0", "?size=-5"] {
        assert_eq!(fixture.query(page, &filter).await.status, 400, "{page}");
    }
    assert_eq!(fixture.query("", &json!({"nonsense": 1})).await.status, 400);
}

/// A query that runs twice and expires after each run.
fn rerunning() -> SimulatorFixture {
    let mut job = SupermetricsJob::new("q", &[(0, "QUEUED"), (5, "RUNNING"), (10, "SUCCESS")]);
    job.steps[0].total = 0;
    job.steps[1].tasks_running = 3;
    job.rerun_every = Some(s(100));
    job.runs = Some(2);
    job.expires_after = s(60);
    SimulatorFixture::new(scenario(vec![], vec![job]))
}

#[tokio::test(start_paused = true)]
async fn status_has_the_documented_fields() {
    let fixture = rerunning();
    let queued = fixture.status("q", 0, 0).await.json();
    let request_id = queued["meta"]["request_id"].clone();
    assert_eq!(
        queued,
        json!({
            "meta": {
                "request_id": request_id, "schedule_id": "q", "status_code": "QUEUED",
                "progress": {"queries_ready": 0, "queries_total": 0},
                "workflow": {"tasks_scheduled": 0, "tasks_running": 0},
            },
            "data": [],
        })
    );
    let again = fixture.status("q", 0, 0).await;
    assert_ne!(again.at("/meta/request_id"), request_id, "new with each request");
}

#[tokio::test(start_paused = true)]
async fn query_follows_its_script_over_several_runs() {
    let fixture = rerunning();
    // (seconds to let pass, expected word or error code)
    let walk = [
        (0, "QUEUED"),
        (5, "RUNNING"),
        (5, "SUCCESS"),
        (59, "SUCCESS"),
        (1, "STATUS_NOT_FOUND"),
        (30, "QUEUED"),
        (10, "SUCCESS"),
        (60, "STATUS_NOT_FOUND"),
        (9_000, "STATUS_NOT_FOUND"),
    ];
    for (step, (seconds, expected)) in walk.into_iter().enumerate() {
        advance(s(seconds)).await;
        let seen = fixture.status("q", 0, 0).await;
        let word = if seen.status == 200 { seen.at("/meta/status_code") } else { seen.at("/error/code") };
        assert_eq!(word, expected, "step {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn expired_query_is_answered_like_an_unknown_one() {
    let fixture = rerunning();
    advance(s(70)).await;
    let (expired, never) = (fixture.status("q", 0, 0).await, fixture.status("never", 0, 0).await);
    assert_eq!((expired.status, expired.at("/error")), (never.status, never.at("/error")), "equal");
    assert_eq!(expired.at("/error/code"), "STATUS_NOT_FOUND");
}

/// A completed query of 25 rows.
fn with_rows() -> SimulatorFixture {
    let mut job = SupermetricsJob::new("q", &[(0, "SUCCESS")]);
    job.rows.count = 25;
    SimulatorFixture::new(scenario(vec![], vec![job]))
}

fn rows(seen: &Seen) -> Vec<Value> {
    seen.at("/data").as_array().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn rows_are_paged_by_inclusive_offsets_after_the_header() {
    let fixture = with_rows();
    let mut gathered = Vec::new();
    // (start, end, rows expected, next offered, prev offered)
    for (start, end, count, next, prev) in
        [(0, 9, 10, true, false), (10, 19, 10, true, true), (20, 29, 5, false, true)]
    {
        let page = fixture.status("q", start, end).await;
        let rows = rows(&page);
        assert_eq!(rows[0], json!(["Date", "Campaign", "Clicks", "Cost"]));
        assert_eq!(rows.len(), 1 + count, "{start}..={end}");
        assert_eq!(page.at("/meta/paginate/next").is_string(), next);
        assert_eq!(page.at("/meta/paginate/prev").is_string(), prev);
        gathered.extend(rows.into_iter().skip(1));
    }
    let everything = fixture
        .send(
            SimUpstream::Supermetrics,
            "GET",
            "/query/status?schedule_id=q",
            &[("authorization", &format!("Bearer {KEY}"))],
            "",
        )
        .await;
    assert_eq!(rows(&everything).split_off(1), gathered, "the pages are the whole result");
}

#[tokio::test(start_paused = true)]
async fn status_describes_the_result_of_a_completed_query() {
    let cheap = with_rows().status("q", 0, 0).await;
    assert_eq!((rows(&cheap).len(), cheap.at("/meta/result/total_rows")), (2, json!(25)));
    assert_eq!(cheap.at("/meta/result/total_columns"), 4);
    assert_eq!(cheap.at("/meta/query/fields/0/field_id"), "Date");
}

#[tokio::test(start_paused = true)]
async fn offsets_of_zero_can_mean_all_rows() {
    let fixture = with_rows();
    fixture.world.lock().scenario.supermetrics.zero_offsets_mean_all = true;
    assert_eq!(rows(&fixture.status("q", 0, 0).await).len(), 26);
    assert_eq!(rows(&fixture.status("q", 0, 1).await).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_are_reported_in_each_form() {
    let silent = SupermetricsJob::new("silent", &[(0, "FAILURE")]);
    let exited = SupermetricsJob::new("exited", &[(0, "Process_Exited")]);
    let mut loud = SupermetricsJob::new("loud", &[(0, "FAILURE")]);
    loud.steps[0].error = Some(QueryError {
        code: "QUERY_ACCOUNT_UNAVAILABLE".to_owned(),
        message: None,
        description: Some("log in again".to_owned()),
        http_status: 500,
    });
    let fixture = SimulatorFixture::new(scenario(vec![], vec![silent, exited, loud]));
    for (id, word) in [("silent", "FAILURE"), ("exited", "Process_Exited")] {
        let seen = fixture.status(id, 0, 0).await;
        assert_eq!(
            (seen.status, seen.at("/meta/status_code"), seen.at("/data")),
            (200, json!(word), json!([]))
        );
    }
    let loud = fixture.status("loud", 0, 0).await;
    assert_eq!(loud.status, 500);
    let code = "QUERY_ACCOUNT_UNAVAILABLE";
    assert_eq!(loud.at("/error"), json!({"code": code, "message": code, "description": "log in again"}));
}

fn one_of_each() -> SimulatorFixture {
    SimulatorFixture::new(scenario(
        vec![MindBridgeJob::new("a", &[(0, "COMPLETE")])],
        vec![SupermetricsJob::new("q", &[(0, "RUNNING")])],
    ))
}

#[tokio::test(start_paused = true)]
async fn credentials_are_checked_in_both_forms() {
    let fixture = one_of_each();
    let (sm, mb) = (SimUpstream::Supermetrics, SimUpstream::MindBridge);
    let in_json = |key: &str| status_uri(&json!({"schedule_id": "q", "api_key": key}));
    let flat = format!("/v2/query/status?schedule_id=q&api_key={KEY}");
    let plain = "/query/status?schedule_id=q".to_owned();
    let job = "/api/v1/async-results/a".to_owned();
    // (upstream, uri, bearer, status, error code, auth recorded)
    let table = [
        (sm, plain.clone(), Some(KEY), 200, json!(null), Auth::Bearer),
        (sm, in_json(KEY), None, 200, json!(null), Auth::ApiKey),
        (sm, flat, None, 200, json!(null), Auth::ApiKey),
        (sm, plain.clone(), None, 401, json!("API_KEY_REQUIRED"), Auth::None),
        (sm, in_json("no"), None, 401, json!("API_KEY_INVALID"), Auth::Wrong),
        (sm, plain, Some("no"), 401, json!("ACCESS_TOKEN_INVALID"), Auth::Wrong),
        (mb, job.clone(), Some(TOKEN), 200, json!(null), Auth::Bearer),
        (mb, job.clone(), Some("no"), 401, json!(null), Auth::Wrong),
        (mb, job, None, 401, json!(null), Auth::None),
    ];
    for (upstream, uri, bearer, status, code, auth) in table {
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        let seen = fixture.send(upstream, "GET", &uri, &headers, "").await;
        let last = fixture.handle.record().pop().unwrap();
        assert_eq!((seen.status, seen.at("/error/code"), last.auth), (status, code, auth), "{uri}");
        assert_eq!((last.violation, last.status), (None, Some(status)), "{uri}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_never_recorded() {
    let fixture = one_of_each();
    fixture.one("a").await;
    fixture.status("q", 0, 0).await;
    for uri in [
        status_uri(&json!({"schedule_id": "q", "api_key": KEY})),
        format!("/v2/query/status?schedule_id=q&api_key={KEY}"),
    ] {
        fixture.send(SimUpstream::Supermetrics, "GET", &uri, &[], "").await;
    }
    assert_eq!(fixture.handle.record().len(), 4);
    assert!(!format!("{:?}", fixture.handle.record()).contains("planted"));
}

#[tokio::test(start_paused = true)]
async fn replaced_credential_is_not_accepted_any_more() {
    let fixture = one_of_each();
    fixture.handle.set_credential(SimUpstream::MindBridge, "rotated");
    assert_eq!(fixture.one("a").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn next_link_contains_the_key_only_if_sent_as_a_parameter() {
    let fixture = SimulatorFixture::new(scenario(vec![], vec![SupermetricsJob::new("q", &[(0, "SUCCESS")])]));
    let next = |seen: Seen| seen.at("/meta/paginate/next").as_str().unwrap().to_owned();
    assert!(!next(fixture.status("q", 0, 0).await).contains(KEY));
    let uri = status_uri(&json!({"schedule_id": "q", "offset_start": 0, "offset_end": 3, "api_key": KEY}));
    let link = next(fixture.send(SimUpstream::Supermetrics, "GET", &uri, &[], "").await);
    assert!(link.contains(KEY), "{link}");
    let followed = fixture.send(SimUpstream::Supermetrics, "GET", &link, &[], "").await;
    assert_eq!((followed.status, fixture.handle.record()[2].offsets), (200, (Some(4), Some(7))));
}

/// Upstream, method, URI, headers, and a part of the remark expected.
type Wrong<'a> = (SimUpstream, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test(start_paused = true)]
async fn client_protocol_violations_are_recorded() {
    let fixture = SimulatorFixture::new(scenario(vec![], vec![]));
    let (sm, mb) = (SimUpstream::Supermetrics, SimUpstream::MindBridge);
    let one = "/api/v1/async-results/a";
    let status = "/query/status?schedule_id=q";
    let with_key = format!("{status}&api_key={KEY}");
    let bearer = format!("Bearer {KEY}");
    let table: [Wrong<'_>; 14] = [
        (mb, "GET", "/api/v1/async-results/", &[], "path"),
        (mb, "GET", "/api/v1/async-results/a/b", &[], "path"),
        (mb, "GET", "/v1/async-results/a", &[], "path"),
        (mb, "POST", one, &[], "method"),
        (mb, "GET", "/api/v1/async-results/a?api_key=x", &[], "query parameters"),
        (mb, "GET", one, &[("referer", "https://a.example")], "referer"),
        (mb, "GET", one, &[("cookie", "a=b")], "cookie"),
        (mb, "GET", one, &[("authorization", "Basic eDp5")], "bearer"),
        (mb, "POST", "/api/v1/async-results/query?sort=id", &[], "unexpected query parameter"),
        (sm, "GET", "/enterprise/v2/query/results", &[], "path"),
        (sm, "POST", status, &[], "method"),
        (sm, "GET", "/query/status?schedule_id=q&x=1", &[], "unexpected query parameter"),
        (sm, "GET", &with_key, &[("authorization", &bearer)], "both credentials"),
        (sm, "GET", status, &[("x-api-key", KEY)], "x-api-key"),
    ];
    for (upstream, method, uri, headers, expected) in table {
        fixture.handle.clear_record();
        fixture.send(upstream, method, uri, headers, "").await;
        let violations = fixture.handle.violations().join("; ");
        assert!(violations.contains(expected), "{method} {uri}: {violations:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn handle_sets_the_state_of_one_member_of_a_family() {
    let mut family = MindBridgeJob::new("f##", &[(0, "IN_PROGRESS"), (50, "COMPLETE")]);
    family.every = Some(s(30));
    let fixture = SimulatorFixture::new(scenario(vec![family], vec![]));
    let handle = &fixture.handle;
    advance(s(65)).await;
    assert_eq!(handle.job_ids(SimUpstream::MindBridge), ["f00", "f01", "f02"]);
    assert_eq!(
        fixture.list(SimUpstream::MindBridge).await,
        ["f00 COMPLETE", "f01 IN_PROGRESS", "f02 IN_PROGRESS"]
    );
    handle.set_state("f01", MindBridgeStep::new("ERROR")).unwrap();
    let jumped = fixture.one("f01").await;
    assert_eq!((jumped.at("/status"), jumped.at("/version")), (json!("ERROR"), json!(2)));
    assert_eq!(jumped.at("/creationDate"), "2026-01-01T00:00:30Z");
    assert_eq!(jumped.at("/lastModifiedDate"), "2026-01-01T00:01:05Z");
    assert_eq!(fixture.one("f02").await.at("/status"), "IN_PROGRESS", "the others still exist");
    // Once in a batch and in the list, though both the family and the job whose state was set match the id.
    assert_eq!(ids(&fixture.query("", &json!({"id": {"$in": ["f01"]}})).await), ["f01"]);
    assert_eq!(fixture.list(SimUpstream::MindBridge).await, ["f00 COMPLETE", "f01 ERROR", "f02 IN_PROGRESS"]);
}

#[tokio::test(start_paused = true)]
async fn query_whose_state_was_set_does_not_run_again() {
    let mut query = SupermetricsJob::new("q", &[(0, "RUNNING"), (10, "SUCCESS")]);
    query.rerun_every = Some(s(20));
    let fixture = SimulatorFixture::new(scenario(vec![], vec![query]));
    advance(s(65)).await;
    fixture.handle.set_state("q", SupermetricsStep::new("STOPPED")).unwrap();
    advance(s(495)).await;
    assert_eq!(fixture.status("q", 0, 0).await.at("/meta/status_code"), "STOPPED");
}

#[tokio::test(start_paused = true)]
async fn handle_adds_jobs() {
    let fixture = SimulatorFixture::new(scenario(vec![], vec![]));
    let handle = &fixture.handle;
    advance(s(65)).await;
    handle.add_job(MindBridgeJob::new("at once", &[(0, "IN_PROGRESS")]));
    handle.set_state("at once", MindBridgeStep::new("COMPLETE")).unwrap();
    let at_once = fixture.one("at%20once").await;
    assert_eq!((at_once.at("/status"), at_once.at("/version")), (json!("COMPLETE"), json!(2)));
    handle.add_job(SupermetricsJob::new("q", &[(0, "SCHEDULED"), (5, "LAUNCHING")]));
    assert_eq!(fixture.status("q", 0, 0).await.at("/meta/status_code"), "SCHEDULED");
    advance(s(5)).await;
    assert_eq!(fixture.status("q", 0, 0).await.at("/meta/status_code"), "LAUNCHING");
}

#[tokio::test(start_paused = true)]
async fn handle_removes_jobs() {
    let query = SupermetricsJob::new("q", &[(0, "RUNNING")]);
    let fixture = SimulatorFixture::new(scenario(vec![], vec![query]));
    fixture.handle.forget(SimUpstream::Supermetrics, "q");
    assert_eq!(fixture.status("q", 0, 0).await.at("/error/code"), "STATUS_NOT_FOUND");
    assert!(fixture.handle.set_state("q", SupermetricsStep::new("RUNNING")).is_err());
    fixture.handle.add_job(SupermetricsJob::new("q", &[(0, "SCHEDULED")]));
    assert_eq!(fixture.status("q", 0, 0).await.at("/meta/status_code"), "SCHEDULED", "added again");
}

fn demo() -> SimulatorFixture {
    let fixture = SimulatorFixture::new(Scenario::demo());
    fixture.handle.set_credential(SimUpstream::MindBridge, TOKEN);
    fixture.handle.set_credential(SimUpstream::Supermetrics, KEY);
    fixture.world.lock().scenario.supermetrics.hourly_limit = None;
    fixture
}

#[tokio::test(start_paused = true)]
async fn demo_always_has_unfinished_jobs() {
    let fixture = demo();
    for minute in 0..20 {
        let running = fixture.query("?size=200", &json!({"status": "IN_PROGRESS"})).await;
        assert!(!ids(&running).is_empty(), "minute {minute}");
        let mut alive = 0;
        for id in fixture.handle.job_ids(SimUpstream::Supermetrics) {
            let word = fixture.status(&id, 0, 0).await.at("/meta/status_code");
            alive += usize::from(word == "QUEUED" || word == "RUNNING");
        }
        assert!(alive > 0, "minute {minute}");
        advance(s(60)).await;
    }
    assert_eq!(fixture.handle.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn demo_lists_ever_more_jobs() {
    let fixture = demo();
    let mut counts = Vec::new();
    for _ in 0..4 {
        let mindbridge = fixture.list(SimUpstream::MindBridge).await;
        let supermetrics = fixture.list(SimUpstream::Supermetrics).await;
        let ad_hoc = |all: Vec<String>, id: &str| all.iter().filter(|job| job.starts_with(id)).count();
        counts.push((ad_hoc(mindbridge, "65f0c0ffee00000002"), ad_hoc(supermetrics, "demo_ad_hoc_")));
        advance(s(60)).await;
    }
    assert_eq!(counts, [(0, 0), (2, 1), (3, 1), (3, 2)]);
}

#[tokio::test(start_paused = true)]
async fn demo_has_every_field() {
    let fixture = demo();
    advance(s(60)).await;
    let job = fixture.one("65f0c0ffee00000000000001").await.json();
    for field in ["id", "version", "type", "status", "entityId", "entityType"] {
        assert!(job[field].is_string() || job[field].is_i64(), "{field}");
    }
    assert_ne!(job["createdUserInfo"], job["lastModifiedUserInfo"]);
    let query = fixture.status("demo_sales_2026", 0, 0).await;
    for pointer in ["/meta/query/fields/5/data_type", "/meta/result/cache_time", "/meta/paginate/next"] {
        assert!(query.at(pointer).is_string(), "{pointer}");
    }
}
