//! The lists of the upstreams: `MindBridge`'s query by anything but ids, and Supermetrics' query history.

use tokio::time::advance;

use super::*;
use crate::{QueryError, SupermetricsStep};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three jobs that start and change at different times.
fn async_results() -> SimulatorFixture {
    let later = MindBridgeJob { born: s(30), ..MindBridgeJob::new("later", &[(0, "IN_PROGRESS")]) };
    SimulatorFixture::new(scenario(
        vec![
            MindBridgeJob::new("still", &[(0, "IN_PROGRESS")]),
            MindBridgeJob::new("ends", &[(0, "IN_PROGRESS"), (20, "COMPLETE")]),
            later,
        ],
        vec![],
    ))
}

async fn listed(fixture: &SimulatorFixture, filter: Value) -> Vec<String> {
    let mut listed = ids(&fixture.query("", &filter).await);
    listed.sort();
    listed
}

#[tokio::test(start_paused = true)]
async fn list_contains_the_jobs_that_changed_since_a_time() {
    let fixture = async_results();
    advance(s(30)).await;
    let since = |time: &str| json!({"lastModifiedDate": {"$gte": time}});
    assert_eq!(listed(&fixture, since("2026-01-01T00:00:00Z")).await, ["ends", "later", "still"]);
    assert_eq!(listed(&fixture, since("2026-01-01T00:00:20Z")).await, ["ends", "later"]);
    assert_eq!(listed(&fixture, since("2026-01-01T00:00:20.001Z")).await, ["later"]);
    assert!(listed(&fixture, since("2026-01-01T01:00:00+00:00")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn list_contains_the_jobs_in_a_state() {
    let fixture = async_results();
    advance(s(30)).await;
    assert_eq!(listed(&fixture, json!({"status": "IN_PROGRESS"})).await, ["later", "still"]);
    let both = json!({"status": "IN_PROGRESS", "creationDate": {"$lt": "2026-01-01T00:00:30Z"}});
    assert_eq!(listed(&fixture, both).await, ["still"]);
}

#[tokio::test(start_paused = true)]
async fn job_is_listed_from_its_start_on() {
    let fixture = async_results();
    advance(s(29)).await;
    assert_eq!(listed(&fixture, json!({})).await, ["ends", "still"]);
    advance(s(1)).await;
    assert_eq!(listed(&fixture, json!({})).await, ["ends", "later", "still"]);
}

#[tokio::test(start_paused = true)]
async fn generated_jobs_are_in_both_lists() {
    let mut job = MindBridgeJob::new("m##", &[(0, "IN_PROGRESS"), (60, "COMPLETE")]);
    job.every = Some(s(30));
    job.gone_at = Some(s(90));
    let mut query = SupermetricsJob::new("s##", &[(0, "RUNNING"), (60, "SUCCESS")]);
    query.every = Some(s(30));
    let fixture = SimulatorFixture::new(scenario(vec![job], vec![query]));
    advance(s(90)).await;
    assert_eq!(
        fixture.list(SimUpstream::MindBridge).await,
        ["m01 COMPLETE", "m02 IN_PROGRESS", "m03 IN_PROGRESS"]
    );
    assert_eq!(
        fixture.list(SimUpstream::Supermetrics).await,
        ["s00 SUCCESS", "s01 SUCCESS", "s02 RUNNING", "s03 RUNNING"]
    );
}

/// Twenty jobs of each upstream, one started each second.
fn twenty(seed: u64) -> SimulatorFixture {
    let jobs = (0..20).map(|n| MindBridgeJob {
        born: s(n),
        ..MindBridgeJob::new(&format!("job{n:02}"), &[(0, "IN_PROGRESS")])
    });
    let queries = (0..20).map(|n| SupermetricsJob {
        born: s(n),
        ..SupermetricsJob::new(&format!("job{n:02}"), &[(0, "RUNNING")])
    });
    SimulatorFixture::new(Scenario { seed, ..scenario(jobs.collect(), queries.collect()) })
}

#[tokio::test(start_paused = true)]
async fn order_of_a_list_depends_on_the_seed_alone() {
    for upstream in SimUpstream::ALL {
        let order = async |seed| {
            let fixture = twenty(seed);
            advance(s(30)).await;
            fixture.pages(upstream, 100).await.concat()
        };
        let (first, again, other) = (order(1).await, order(1).await, order(2).await);
        assert_eq!(first, again);
        assert_ne!(first, other);
    }
}

#[tokio::test(start_paused = true)]
async fn list_is_not_in_the_order_of_its_dates() {
    let fixture = twenty(1);
    advance(s(30)).await;
    for upstream in SimUpstream::ALL {
        let order = fixture.pages(upstream, 100).await.concat();
        let mut by_date = order.clone();
        by_date.sort();
        assert_ne!(order, by_date);
        by_date.reverse();
        assert_ne!(order, by_date);
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_list_contain_each_job_once() {
    let fixture = twenty(1);
    advance(s(30)).await;
    for upstream in SimUpstream::ALL {
        let mut pages = fixture.pages(upstream, 6).await.concat();
        assert_eq!(pages, fixture.pages(upstream, 100).await.concat());
        pages.sort();
        pages.dedup();
        assert_eq!(pages.len(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn page_of_a_list_has_the_documented_fields() {
    let fixture = twenty(1);
    advance(s(30)).await;
    let page = fixture.query("?page=1&size=15", &json!({"status": "IN_PROGRESS"})).await;
    for (pointer, value) in [
        ("/pageNumber", json!(1)),
        ("/totalPages", json!(2)),
        ("/numberOfElements", json!(5)),
        ("/totalElements", json!(20)),
        ("/pageable/offset", json!(15)),
        ("/pageSize", json!(15)),
        ("/sort/sorted", json!(false)),
        ("/first", json!(false)),
        ("/last", json!(true)),
        ("/size", json!(15)),
        ("/number", json!(1)),
        ("/content/0/status", json!("IN_PROGRESS")),
    ] {
        assert_eq!(page.at(pointer), value, "{pointer}");
    }
}

#[tokio::test(start_paused = true)]
async fn unsupported_filter_of_a_list_gets_a_problem() {
    let fixture = async_results();
    for filter in [
        json!({"lastModifiedDate": {"$gte": "soon"}}),
        json!({"lastModifiedDate": {"$near": "2026-01-01T00:00:00Z"}}),
        json!({"modified": {"$gte": "2026-01-01T00:00:00Z"}}),
    ] {
        let seen = fixture.query("", &filter).await;
        assert_eq!((seen.status, seen.header("content-type")), (400, "application/problem+json"), "{filter}");
        assert_eq!(seen.at("/problems/0/problemType"), "BAD_REQUEST", "{filter}");
    }
}

#[tokio::test(start_paused = true)]
async fn batch_contains_old_members_of_a_family() {
    let mut job = MindBridgeJob::new("m###", &[(0, "IN_PROGRESS")]);
    job.every = Some(s(1));
    let fixture = SimulatorFixture::new(scenario(vec![job], vec![]));
    advance(s(900)).await;
    assert_eq!(ids(&fixture.query("", &json!({"id": {"$in": ["m003", "m901"]}})).await), ["m003"]);
}

/// Queries of two data sources, requested at different times.
fn queries() -> SimulatorFixture {
    let mut ended = SupermetricsJob::new("ended", &[(0, "RUNNING"), (40, "SUCCESS")]);
    ended.rows.count = 7;
    let mut failed = SupermetricsJob::new("failed", &[(0, "RUNNING"), (20, "FAILURE")]);
    failed.born = s(60);
    failed.steps[1].error =
        Some(QueryError { code: "QUERY_FAILED".into(), message: None, description: None, http_status: 500 });
    let mut other = SupermetricsJob::new("other", &[(0, "QUEUED")]);
    other.born = s(60);
    other.ds_id = "AW".to_owned();
    other.app_id = "sheets".to_owned();
    let mut odd = SupermetricsJob::new("odd", &[(0, "Process_Exited")]);
    odd.born = s(120);
    SimulatorFixture::new(scenario(vec![], vec![ended, failed, other, odd]))
}

/// The ids in the query history, sorted.
async fn history(fixture: &SimulatorFixture, parameters: Value) -> Vec<String> {
    let seen = fixture.history(&parameters).await;
    let data = seen.at("/data");
    let ids = data.as_array().unwrap_or_else(|| panic!("{seen:?}")).iter();
    let mut ids: Vec<String> = ids.map(|it| it["schedule_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn history_has_the_documented_fields() {
    let fixture = queries();
    advance(s(30)).await;
    let seen = fixture.history(&json!({"ds_ids": ["GAWA"], "limit": 10})).await.json();
    assert_eq!(
        seen,
        json!({
            "meta": {
                "request_id": seen["meta"]["request_id"],
                "filter": {"since": "2025-12-31T00:00:30Z", "until": "2026-01-01T00:00:30Z"},
                "paginate": {"offset": 0, "limit": 10, "total": 1},
            },
            "data": [{
                "@type": "query_history", "schedule_time": "2026-01-01T00:00:00Z", "schedule_id": "ended",
                "status_code": "RUNNING", "app_id": "api", "ds_id": "GAWA",
            }],
        })
    );
    assert!(seen["meta"]["request_id"].is_string());
}

#[tokio::test(start_paused = true)]
async fn history_has_rows_and_run_time_of_completed_queries() {
    let fixture = queries();
    advance(s(130)).await;
    let data = fixture.history(&json!({"ds_ids": "GAWA"})).await.at("/data");
    let of = |id: &str| {
        let entry = data.as_array().unwrap().iter().find(|it| it["schedule_id"] == id).unwrap();
        (entry["status_code"].clone(), entry["total_rows"].clone(), entry["run_seconds"].clone())
    };
    assert_eq!(of("ended"), (json!("SUCCESS"), json!(7), json!(40.0)));
    assert_eq!(of("failed"), (json!("FAILURE"), json!(0), json!(20.0)));
    assert_eq!(of("odd"), (json!("Process_Exited"), Value::Null, Value::Null));
}

#[tokio::test(start_paused = true)]
async fn history_is_filtered_by_data_source() {
    let fixture = queries();
    advance(s(130)).await;
    for ds_ids in [json!("aw"), json!(["AW"])] {
        assert_eq!(history(&fixture, json!({"ds_ids": ds_ids})).await, ["other"]);
    }
    assert_eq!(history(&fixture, json!({"ds_ids": "AW,gawa"})).await, ["ended", "failed", "odd", "other"]);
    assert!(history(&fixture, json!({"ds_ids": "unknown"})).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn history_is_filtered_by_status_code() {
    let fixture = queries();
    advance(s(130)).await;
    let with = |codes: Value| json!({"ds_ids": ["GAWA", "AW"], "status_codes": codes});
    assert_eq!(history(&fixture, with(json!("queued"))).await, ["other"]);
    assert_eq!(history(&fixture, with(json!(["SUCCESS", "FAILURE"]))).await, ["ended", "failed"]);
}

#[tokio::test(start_paused = true)]
async fn history_is_filtered_by_the_time_of_the_request() {
    let fixture = queries();
    advance(s(130)).await;
    let within = |since: &str, until: &str| json!({"ds_ids": "GAWA", "since": since, "until": until});
    // both ends are included
    let minute = within("2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z");
    assert_eq!(history(&fixture, minute).await, ["failed", "odd"]);
    assert_eq!(history(&fixture, within("-11 seconds", "now")).await, ["odd"]);
    assert_eq!(history(&fixture, within("today", "today")).await, ["ended", "failed", "odd"]);
    assert!(history(&fixture, within("yesterday", "yesterday")).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn schedule_time_of_a_scenario_is_the_time_of_the_request() {
    let mut old = SupermetricsJob::new("old", &[(0, "RUNNING")]);
    old.schedule_time = "2025-12-30T00:00:00Z".parse().ok();
    let fixture = SimulatorFixture::new(scenario(vec![], vec![old]));
    assert!(history(&fixture, json!({"ds_ids": "GAWA"})).await.is_empty());
    assert_eq!(history(&fixture, json!({"ds_ids": "GAWA", "since": "2025-12-30"})).await, ["old"]);
}

#[tokio::test(start_paused = true)]
async fn history_lists_each_run_of_a_query() {
    let mut query = SupermetricsJob::new("q", &[(0, "RUNNING"), (10, "SUCCESS")]);
    query.rerun_every = Some(s(60));
    let fixture = SimulatorFixture::new(scenario(vec![], vec![query]));
    advance(s(65)).await;
    let data = fixture.history(&json!({"ds_ids": "GAWA"})).await.at("/data");
    let mut runs: Vec<_> = data
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{} {}", it["schedule_time"], it["status_code"]))
        .collect();
    runs.sort();
    assert_eq!(runs, ["\"2026-01-01T00:00:00Z\" \"SUCCESS\"", "\"2026-01-01T00:01:00Z\" \"RUNNING\""]);
}

#[tokio::test(start_paused = true)]
async fn expired_query_is_still_in_the_history() {
    let fixture = queries();
    advance(s(40) + Duration::from_hours(1)).await;
    assert_eq!(fixture.status("ended", 0, 0).await.at("/error/code"), "STATUS_NOT_FOUND");
    assert_eq!(history(&fixture, json!({"ds_ids": "GAWA", "status_codes": "SUCCESS"})).await, ["ended"]);
}

#[tokio::test(start_paused = true)]
async fn removed_query_is_not_in_the_history() {
    let fixture = queries();
    advance(s(130)).await;
    fixture.handle.forget(SimUpstream::Supermetrics, "odd");
    assert_eq!(history(&fixture, json!({"ds_ids": "GAWA"})).await, ["ended", "failed"]);
}

#[tokio::test(start_paused = true)]
async fn history_is_read_by_json_and_flat_parameters() {
    let fixture = queries();
    let bearer = format!("Bearer {KEY}");
    advance(s(130)).await;
    for uri in [
        call_uri("history", &json!({"ds_ids": ["GAWA", "AW"], "status_codes": "QUEUED", "limit": 5})),
        "/query/history?ds_ids=GAWA,AW&status_codes=QUEUED&limit=5".to_owned(),
        "/v2/query/history?ds_ids[]=GAWA&ds_ids[]=AW&status_codes=QUEUED&limit=5".to_owned(),
    ] {
        let headers = [("authorization", bearer.as_str())];
        let seen = fixture.send(SimUpstream::Supermetrics, "GET", &uri, &headers, "").await;
        let found = (seen.status, seen.at("/data/0/schedule_id"), seen.at("/meta/paginate"));
        let expected = (200, json!("other"), json!({"offset": 0, "limit": 5, "total": 1}));
        assert_eq!(found, expected, "{uri}");
    }
    assert_eq!(fixture.handle.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn history_accepts_the_key_in_both_forms() {
    let fixture = queries();
    // (the key as a parameter, as a bearer token, status, code of the error)
    for (key, bearer, status, code) in [
        (Some(KEY), None, 200, Value::Null),
        (None, Some(KEY), 200, Value::Null),
        (None, None, 401, json!("API_KEY_REQUIRED")),
        (Some("no"), None, 401, json!("API_KEY_INVALID")),
        (None, Some("no"), 401, json!("ACCESS_TOKEN_INVALID")),
    ] {
        let mut parameters = json!({"ds_ids": "GAWA"});
        if let Some(key) = key {
            parameters["api_key"] = key.into();
        }
        let bearer = bearer.map(|key| format!("Bearer {key}"));
        let headers: Vec<_> = bearer.iter().map(|value| ("authorization", value.as_str())).collect();
        let uri = call_uri("history", &parameters);
        let seen = fixture.send(SimUpstream::Supermetrics, "GET", &uri, &headers, "").await;
        assert_eq!((seen.status, seen.at("/error/code")), (status, code), "{key:?} {bearer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_with_wrong_parameters_returns_400() {
    let fixture = queries();
    for (parameters, code) in [
        (json!({}), "PARAMETER_REQUIRED"),
        (json!({"ds_ids": "GAWA", "limit": 1001}), "PARAMETER_INVALID"),
        (json!({"ds_ids": "GAWA", "since": "soon"}), "PARAMETER_INVALID"),
    ] {
        let seen = fixture.history(&parameters).await;
        assert_eq!((seen.status, seen.at("/error/code")), (400, json!(code)), "{parameters}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_counts_against_the_hourly_limit() {
    let mut scenario = scenario(vec![], vec![SupermetricsJob::new("q", &[(0, "RUNNING")])]);
    scenario.supermetrics.hourly_limit = Some(2);
    let fixture = SimulatorFixture::new(scenario);
    fixture.status("q", 0, 0).await;
    for (status, remaining) in [(200, "0"), (429, "0")] {
        let seen = fixture.history(&json!({"ds_ids": "GAWA"})).await;
        let limits = (seen.header("x-ratelimit-limit"), seen.header("x-ratelimit-remaining"));
        assert_eq!((seen.status, limits), (status, ("2", remaining)));
    }
}

#[tokio::test(start_paused = true)]
async fn unusual_parameters_of_the_history_are_violations() {
    let fixture = queries();
    for (parameters, expected) in [
        (json!({"ds_ids": "GAWA", "page": 1}), "unexpected query parameter"),
        (json!({"ds_ids": "GAWA", "since": "2025-12-31T12:00:00.5Z"}), "fraction"),
        (json!({"ds_ids": "GAWA", "since": "2025-12-31T12:00:00+01:00"}), "offset"),
    ] {
        fixture.handle.clear_record();
        assert_eq!(fixture.history(&parameters).await.status, 200, "{parameters}");
        let violations = fixture.handle.violations().join("; ");
        assert!(violations.contains(expected), "{parameters}: {violations:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_for_a_list_are_counted_apart() {
    let fixture = twenty(1);
    let (mb, sm) = (SimUpstream::MindBridge, SimUpstream::Supermetrics);
    fixture.one("job00").await;
    fixture.one("job00").await;
    fixture.query("", &json!({"id": {"$in": ["job00"]}})).await;
    for _ in 0..3 {
        fixture.query("", &json!({"status": "IN_PROGRESS"})).await;
    }
    fixture.status("job00", 0, 0).await;
    fixture.history(&json!({"ds_ids": "GAWA"})).await;
    let counted = |upstream| Endpoint::ALL.map(|endpoint| fixture.handle.received(upstream, endpoint));
    // one, query, status, list, unexpected
    assert_eq!((counted(mb), counted(sm)), ([2, 1, 0, 3, 0], [0, 0, 1, 1, 0]));
    fixture.handle.clear_record();
    assert_eq!((counted(mb), counted(sm)), ([0; 5], [0; 5]));
}

#[tokio::test(start_paused = true)]
async fn request_for_a_list_is_recorded_with_its_filter() {
    let fixture = twenty(1);
    let filter = json!({"lastModifiedDate": {"$gte": "2026-01-01T00:00:00Z"}});
    fixture.query("?page=0&size=50", &filter).await;
    fixture.query("", &json!({"id": "job00"})).await;
    let uri = call_uri("history", &json!({"ds_ids": "GAWA", "limit": 5, "api_key": KEY}));
    fixture.send(SimUpstream::Supermetrics, "GET", &uri, &[], "").await;
    let record = fixture.handle.record();
    let filters: Vec<_> = record.iter().map(|request| request.filter.clone()).collect();
    assert_eq!(filters, [Some(filter), None, Some(json!({"ds_ids": "GAWA", "limit": 5}))]);
    assert_eq!(record[0].page, Some((0, 50)));
}

#[tokio::test(start_paused = true)]
async fn faults_apply_to_the_history() {
    let fixture = twenty(1);
    advance(s(30)).await;
    let sm = SimUpstream::Supermetrics;
    let fault = |kind| fixture.handle.push_fault(SimFault::next(sm, 1, kind).on(Endpoint::List));
    fault(FaultKind::Omit { ids: vec!["job03".to_owned()] });
    let parameters = json!({"ds_ids": "GAWA"});
    let omitted = history(&fixture, parameters.clone()).await;
    assert_eq!((omitted.len(), omitted.contains(&"job03".to_owned())), (19, false));
    fault(FaultKind::PageSize { size: 4 });
    let page = fixture.history(&parameters).await;
    assert_eq!(page.at("/meta/paginate"), json!({"offset": 0, "limit": 4, "total": 20}));
    fault(FaultKind::answer(503, crate::MadeUpBody::Empty));
    assert_eq!(fixture.status("job03", 0, 0).await.status, 200, "not a request for the list");
    assert_eq!(fixture.history(&parameters).await.status, 503);
}

#[tokio::test(start_paused = true)]
async fn member_whose_state_was_set_is_listed_once() {
    let mut query = SupermetricsJob::new("s##", &[(0, "RUNNING")]);
    query.every = Some(s(30));
    let fixture = SimulatorFixture::new(scenario(vec![], vec![query]));
    advance(s(35)).await;
    fixture.handle.set_state("s00", SupermetricsStep::new("STOPPED")).unwrap();
    assert_eq!(fixture.list(SimUpstream::Supermetrics).await, ["s00 STOPPED", "s01 RUNNING"]);
}
