//! The query path from end to end: a query over HTTP, both upstreams over HTTP, and the whole answer.

use std::time::Duration;

use jobgate::config::ClientConfig;
use jobgate::outbound::identity::keys;
use jobgate_simulator::{
    Auth, FaultKind, MadeUpBody, MindBridgeJob, MindBridgeStep, Scenario, SimFault, SimQueryMeta,
    SimResultMeta, SimRows, SimUpstream, SimUserInfo, SupermetricsJob, SupermetricsStep,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::server::{Rig, Setup, external};
use crate::support::wire;

const MIND: SimUpstream = SimUpstream::MindBridge;
const METRICS: SimUpstream = SimUpstream::Supermetrics;
const ID: &str = "65f0c0ffee00000000000001";

/// Every field that the schema has for a job.
const EVERYTHING: &str = "query($refs: [JobRef!]!) { jobs(refs: $refs) { __typename
    ... on Job { id source { name upstream } externalId state isTerminal nativeState createdAt updatedAt finishedAt
        firstSeenAt stateSince terminalSeenAt progress { completed total } failure { code message }
        transitions { state nativeState observedAt upstreamAt } estimate { expectedFinishAt sampleSize }
        freshness { observedAt ageMs isStale staleReason nextPollAt } viewerGrant { source kinds } }
    ... on MindBridgeJob { kind entity { id type } version createdBy { userId userName }
        lastModifiedBy { userId userName } error errorMessage }
    ... on SupermetricsJob { requestId scheduleId queue { tasksScheduled tasksRunning }
        query { startDate endDate accounts fields { id name dataType dataColumn } }
        result { totalRows totalColumns runSeconds dataSampled cacheUsed cacheTime }
        rows(first: 2) { header nodes { cells } pageInfo { hasNextPage hasPreviousPage } problem { code } } }
    ... on JobProblem { code message retryable retryAfterMs ref { id source externalId } } } }";

/// Removes what differs from run to run, after a check of it: no time is before the request.
fn steady(mut job: Value, requested_at: Instant) -> Value {
    let freshness = &mut job["freshness"];
    assert!(freshness["observedAt"].take().as_str().unwrap().ends_with('Z'));
    let age = Duration::from_millis(freshness["ageMs"].take().as_u64().unwrap());
    assert!(age < requested_at.elapsed() + Duration::from_secs(10), "{age:?}");
    let transition = json!({
        "state": job["state"], "nativeState": job["nativeState"], "observedAt": job["stateSince"],
        "upstreamAt": job["updatedAt"]
    });
    assert_eq!(job["transitions"].take(), json!([transition]), "{job}");
    let [first, since, terminal] = ["firstSeenAt", "stateSince", "terminalSeenAt"]
        .map(|name| job[name].take().as_str().map(str::to_owned));
    assert!(first.is_some() && first == since, "{job}");
    assert_eq!(terminal, first.filter(|_| job["isTerminal"] == true), "{job}");
    if job["__typename"] == "SupermetricsJob" {
        assert!(!job["requestId"].take().as_str().unwrap().is_empty());
    }
    job
}

/// One job of each upstream that has every field, and one of each that failed.
fn full() -> Setup {
    let person = |id: &str, name: &str| SimUserInfo { user_id: id.to_owned(), user_name: name.to_owned() };
    let mind = |id: &str, step: MindBridgeStep| MindBridgeJob {
        id: id.to_owned(),
        kind: "ANALYSIS_RUN".to_owned(),
        entity_id: Some("e1".to_owned()),
        entity_type: Some("ANALYSIS_RESULT".to_owned()),
        created_by: person("u1", "Ada"),
        last_modified_by: Some(person("u2", "Grace")),
        // beyond 2^53, where JSON readers begin to round
        first_version: 9_007_199_254_740_993,
        steps: vec![step],
        ..MindBridgeJob::default()
    };
    let error = |text: &str| Some(text.to_owned());
    let failed = MindBridgeStep {
        error: error("E7"),
        error_message: error("no ledger"),
        ..MindBridgeStep::new("ERROR")
    };
    let metrics = SupermetricsJob {
        id: "sales".to_owned(),
        rows: SimRows { count: 3, ..SimRows::default() },
        query: SimQueryMeta {
            start_date: "2026-01-01".to_owned(),
            end_date: "2026-03-31".to_owned(),
            ds_accounts: vec![json!("007"), json!(9_007_199_254_740_993_u64)],
            ..SimQueryMeta::default()
        },
        result: SimResultMeta {
            run_seconds: Some(12.5),
            data_sampled: true,
            cache_used: true,
            cache_time: Some("2026-01-01T06:00:00Z".to_owned()),
        },
        steps: vec![SupermetricsStep {
            ready: 3,
            total: 4,
            tasks_scheduled: 5,
            tasks_running: 6,
            ..SupermetricsStep::new("SUCCESS")
        }],
        ..SupermetricsJob::default()
    };
    let growing = SupermetricsJob::new("growing", &[(0, "RUNNING")]);
    let mut setup = Setup::with(
        vec![mind(ID, MindBridgeStep::new("COMPLETE")), mind("failed", failed)],
        vec![metrics, growing],
    );
    setup.scenario.start = Some("2026-11-21T10:00:00Z".parse().unwrap());
    setup.scenario.seed = 7;
    setup
}

#[tokio::test]
async fn every_field_of_both_upstreams_is_returned() {
    let rig = full().start().await;
    let refs =
        [("mind", ID), ("mind", "failed"), ("metrics", "sales"), ("metrics", "growing"), ("mind", "nobody")];
    let refs = refs.map(|(source, id)| external(source, id));
    let requested_at = Instant::now();
    let jobs = rig.execute(EVERYTHING, json!({ "refs": refs })).await.data()["jobs"].take();
    let jobs: Vec<Value> = jobs.as_array().unwrap().clone();
    let node_id = |at: usize| jobs[at]["id"].clone();
    let born = "2026-11-21T10:00:00Z";
    let fresh = json!({ "observedAt": null, "ageMs": null, "isStale": false, "staleReason": null, "nextPollAt": null });
    let mind = |at: usize, id: &str, state: &str, native: &str| {
        json!({
            "__typename": "MindBridgeJob", "id": node_id(at), "source": { "name": "mind", "upstream": "MINDBRIDGE" },
            "externalId": id, "state": state, "isTerminal": true, "nativeState": native, "createdAt": born,
            "updatedAt": born, "finishedAt": null, "firstSeenAt": null, "stateSince": null, "terminalSeenAt": null, "transitions": null, "estimate": null, "progress": null, "failure": null, "freshness": fresh, "viewerGrant": { "source": null, "kinds": null },
            "kind": "ANALYSIS_RUN", "entity": { "id": "e1", "type": "ANALYSIS_RESULT" },
            "version": "9007199254740993", "createdBy": { "userId": "u1", "userName": "Ada" },
            "lastModifiedBy": { "userId": "u2", "userName": "Grace" }, "error": null, "errorMessage": null
        })
    };
    assert_eq!(steady(jobs[0].clone(), requested_at), mind(0, ID, "SUCCEEDED", "COMPLETE"));
    let mut failed = mind(1, "failed", "FAILED", "ERROR");
    failed["error"] = json!("E7");
    failed["errorMessage"] = json!("no ledger");
    failed["failure"] = json!({ "code": "E7", "message": "no ledger" });
    assert_eq!(steady(jobs[1].clone(), requested_at), failed);

    let mut metrics = steady(jobs[2].clone(), requested_at);
    let cells = metrics["rows"]["nodes"].take();
    assert_eq!(cells.as_array().unwrap().len(), 2, "{cells}");
    assert_eq!(cells[0]["cells"][0], json!("2026-01-01"), "{cells}");
    let field = |at: usize, id: &str, kind: &str| json!({ "id": id, "name": id, "dataType": kind, "dataColumn": at.to_string() });
    let supermetrics = |at: usize, id: &str, state: &str, native: &str| {
        json!({
            "__typename": "SupermetricsJob", "id": node_id(at),
            "source": { "name": "metrics", "upstream": "SUPERMETRICS" }, "externalId": id, "state": state,
            "isTerminal": state != "RUNNING", "nativeState": native, "createdAt": null, "updatedAt": null,
            "finishedAt": null, "firstSeenAt": null, "stateSince": null, "terminalSeenAt": null, "transitions": null, "estimate": null, "progress": { "completed": 0, "total": 1 }, "failure": null, "freshness": fresh, "viewerGrant": { "source": null, "kinds": null },
            "requestId": null, "scheduleId": id, "queue": { "tasksScheduled": "0", "tasksRunning": "0" },
            "query": null, "result": null, "rows": null
        })
    };
    let mut sales = supermetrics(2, "sales", "SUCCEEDED", "SUCCESS");
    sales["progress"] = json!({ "completed": 3, "total": 4 });
    sales["queue"] = json!({ "tasksScheduled": "5", "tasksRunning": "6" });
    sales["query"] = json!({
        "startDate": "2026-01-01", "endDate": "2026-03-31", "accounts": ["007", 9_007_199_254_740_993_u64],
        "fields": [
            field(0, "Date", "string.time.date"), field(1, "Campaign", "string.text.value"),
            field(2, "Clicks", "int.number.value"), field(3, "Cost", "float.number.value")
        ]
    });
    sales["result"] = json!({
        "totalRows": "3", "totalColumns": "4", "runSeconds": 12.5, "dataSampled": true, "cacheUsed": true,
        "cacheTime": "2026-01-01T06:00:00Z"
    });
    sales["rows"] = json!({
        "header": ["Date", "Campaign", "Clicks", "Cost"], "nodes": null,
        "pageInfo": { "hasNextPage": true, "hasPreviousPage": false }, "problem": null
    });
    assert_eq!(metrics, sales);
    assert_eq!(steady(jobs[3].clone(), requested_at), supermetrics(3, "growing", "RUNNING", "RUNNING"));
    assert_eq!(
        jobs[4],
        json!({
            "__typename": "JobProblem", "code": "NOT_FOUND", "retryable": true, "retryAfterMs": 5000,
            "message": "job \"nobody\" of source \"mind\" does not exist, or this client is not allowed to read it",
            "ref": { "id": null, "source": "mind", "externalId": "nobody" }
        })
    );
    rig.assert_well_behaved();
}

#[tokio::test]
async fn bearer_and_api_key_are_sent_where_the_upstream_expects() {
    for (form, expected) in [("bearer", Auth::Bearer), ("api_key", Auth::ApiKey)] {
        let rig = Setup { form, ..full() }.start().await;
        rig.lookup_all(&[external("mind", ID), external("metrics", "sales")]).await;
        let sent = |upstream| {
            rig.upstreams.record_of(upstream).iter().map(|requested_at| requested_at.auth).collect::<Vec<_>>()
        };
        assert_eq!((sent(MIND), sent(METRICS)), (vec![Auth::Bearer], vec![expected]));
        rig.assert_well_behaved();
    }
}

const LIST: &str = "query($filter: JobFilter, $after: String) { jobList(filter: $filter, first: 1, after: $after) {
        edges { cursor } nodes { externalId state freshness { staleReason } } pageInfo { hasNextPage endCursor } } }";

/// A page of the job list.
async fn list(rig: &Rig, variables: Value) -> Value {
    rig.execute(LIST, variables).await.data()["jobList"].take()
}

#[tokio::test]
async fn the_job_list_pages_through_cached_jobs() {
    let rig = full().start().await;
    assert_eq!(list(&rig, json!({})).await["nodes"], json!([]));
    rig.lookup_all(&[external("mind", ID), external("metrics", "growing")]).await;

    let first = list(&rig, json!({})).await;
    assert_eq!(first["nodes"][0]["externalId"], "growing");
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let second = list(&rig, json!({ "after": first["pageInfo"]["endCursor"] })).await;
    assert_eq!(
        (second["nodes"][0]["externalId"].as_str(), &second["pageInfo"]["hasNextPage"]),
        (Some(ID), &json!(false))
    );
}

#[tokio::test]
async fn a_job_list_filter_excludes_jobs_of_another_state() {
    let rig = full().start().await;
    rig.lookup_all(&[external("mind", ID), external("metrics", "growing")]).await;
    for (state, expected) in [
        ("FAILED", json!([])),
        (
            "SUCCEEDED",
            json!([{ "externalId": ID, "state": "SUCCEEDED", "freshness": { "staleReason": null } }]),
        ),
    ] {
        let listed = list(&rig, json!({ "filter": { "sources": ["mind"], "states": [state] } })).await;
        assert_eq!(listed["nodes"], expected, "{state}");
    }
}

#[tokio::test]
async fn a_job_list_is_ordered_counted_and_searched() {
    let rig = full().start().await;
    rig.lookup_all(&[external("mind", ID), external("metrics", "growing"), external("metrics", "sales")])
        .await;
    let query = "query($filter: JobFilter, $orderBy: JobOrder, $after: String) {
        jobList(filter: $filter, orderBy: $orderBy, first: 2, after: $after) { ...on JobConnection { totalCount }
        edges { cursor origin } nodes { externalId } pageInfo { hasNextPage endCursor } } }";
    let ids = |page: &Value| {
        let nodes = page["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["externalId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (direction, expected) in [("ASC", ["growing", "sales", ID]), ("DESC", [ID, "sales", "growing"])] {
        let order = json!({ "field": "STATE", "direction": direction });
        let page = rig.execute(query, json!({ "orderBy": order })).await.data()["jobList"].take();
        assert_eq!(
            (ids(&page), &page["totalCount"]),
            (expected[..2].iter().map(ToString::to_string).collect(), &json!(3))
        );
        assert_eq!(page["edges"][0]["origin"], "REQUESTED");
        let after = &page["pageInfo"]["endCursor"];
        let rest =
            rig.execute(query, json!({ "orderBy": order, "after": after })).await.data()["jobList"].take();
        assert_eq!(
            (ids(&rest), &rest["pageInfo"]["hasNextPage"]),
            (vec![expected[2].to_owned()], &json!(false))
        );
        let other = rig.execute(query, json!({ "orderBy": { "field": "UPDATED_AT" }, "after": after })).await;
        assert!(other.json()["errors"][0]["message"].as_str().unwrap().contains("another orderBy"));
    }
    let found = rig.execute(query, json!({ "filter": { "text": "GROW" } })).await.data()["jobList"].take();
    assert_eq!((ids(&found), &found["totalCount"]), (vec!["growing".to_owned()], &json!(1)));
    let long = rig.execute(query, json!({ "filter": { "text": "a".repeat(201) } })).await.json();
    assert_eq!(long["errors"][0]["message"], "filter.text is longer than 200 bytes");
    assert_eq!(long["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
}

#[tokio::test]
async fn a_cached_job_is_returned_by_its_node_id_without_a_call() {
    let rig = full().start().await;
    let ids = rig
        .execute(
            "query($refs: [JobRef!]!) { jobs(refs: $refs) { ... on Node { id } } }",
            json!({ "refs": [external("mind", ID)] }),
        )
        .await;
    let id = ids.data()["jobs"][0]["id"].clone();
    let query = "query($id: ID!, $ids: [ID!]!) { node(id: $id) { id ... on Job { externalId } } nodes(ids: $ids) { id ... on MindBridgeJob { version } }
        job(ref: { id: $id }) { ... on Job { state } } }";
    let before = rig.upstreams.record().len();
    let found = rig.execute(query, json!({ "id": id, "ids": [id, "bm9uc2Vuc2U", id] })).await.data();
    let node = json!({ "id": id, "version": "9007199254740993" });
    assert_eq!(
        found,
        json!({ "node": { "id": id, "externalId": ID }, "nodes": [node, null, node], "job": { "state": "SUCCEEDED" } })
    );
    assert_eq!(rig.upstreams.record().len(), before, "all of it was cached");
}

#[tokio::test]
async fn sources_return_their_health_and_budget() {
    let rig = full().start().await;
    rig.lookup_all(&[external("mind", ID), external("metrics", "growing")]).await;
    let sources = rig
        .execute(
            "{ sources { name upstream health budget { perSecond perHour concurrency inFlight } } }",
            Value::Null,
        )
        .await
        .data();
    let budget = json!({ "perSecond": 10_000, "perHour": 1_000_000, "concurrency": 500, "inFlight": 0 });
    assert_eq!(
        sources["sources"],
        json!([
            { "name": "metrics", "upstream": "SUPERMETRICS", "health": "HEALTHY", "budget": budget },
            { "name": "mind", "upstream": "MINDBRIDGE", "health": "HEALTHY", "budget": budget }
        ])
    );
}

#[tokio::test]
async fn each_range_of_rows_is_fetched_exactly_once() {
    let mut job = SupermetricsJob::new("sales", &[(0, "SUCCESS")]);
    job.rows.count = 1_150;
    let rig = Setup::with(vec![], vec![job]).start().await;
    let query = "query($ref: JobRef!, $after: String) { job(ref: $ref) { ... on SupermetricsJob { rows(first: 100, after: $after) {
        nodes { cells } pageInfo { hasNextPage endCursor } } } } }";
    let (mut days, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let page = rig
            .execute(query, json!({ "ref": external("metrics", "sales"), "after": after }))
            .await
            .data()["job"]["rows"]
            .take();
        days.extend(page["nodes"].as_array().unwrap().iter().map(|row| row["cells"][0].clone()));
        (after, pages) = (page["pageInfo"]["endCursor"].clone(), pages + 1);
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!((days.len(), pages), (1_150, 12));
    let first = jiff::civil::date(2026, 1, 1);
    let expected = first.series(jiff::ToSpan::days(1)).take(1_150).map(|day| json!(day.to_string()));
    assert_eq!(days, expected.collect::<Vec<_>>(), "every row once, in order");
    let offsets: Vec<_> = rig.upstreams.record().iter().map(|requested_at| requested_at.offsets).collect();
    let offsets_of = |first, last| (Some(first), Some(last));
    let expected =
        [offsets_of(0, 0), offsets_of(0, 999), offsets_of(1_000, 1_999), offsets_of(1_000_000, 1_000_000)];
    assert_eq!(offsets, expected, "a small first fetch, two ranges, and whether offsets are honoured");
    rig.assert_well_behaved();
}

/// `docs/adr/0007-upstream-bytes-are-kept.md`: a round trip through numbers would change `1.10`, 2^64 and 1e400.
#[tokio::test]
async fn row_cells_keep_the_upstream_bytes() {
    let cells = r#"[1.10,18446744073709551616,1e400,-0.0,{"b":1,"a":1.0},"\u00e9",123456789012345678901234567890.5,null]"#;
    let text = format!(
        r#"{{"meta":{{"status_code":"SUCCESS","result":{{"total_rows":1}}}},"data":[["h"],{cells}]}}"#
    );
    let body = MadeUpBody::Text { content_type: "application/json".to_owned(), text };
    let rig = full().start().await;
    rig.upstreams.push_fault(SimFault::always(METRICS, FaultKind::answer(200, body)));
    let query = "query($ref: JobRef!) { job(ref: $ref) { ... on SupermetricsJob { rows(first: 5) { nodes { cells } } } } }";
    let answer = rig.execute(query, json!({ "ref": external("metrics", "sales") })).await;
    assert!(answer.body.contains(&format!(r#""cells":{cells}"#)), "{}", answer.body);
}

const ROWS: &str = "query($ref: JobRef!, $after: String) { job(ref: $ref) { ... on SupermetricsJob { state rows(first: 5, after: $after) { nodes { cells } problem { code retryable } } } } }";

/// A gateway whose upstream has removed the rows of a completed job.
async fn without_rows() -> Rig {
    let rig = full().start().await;
    rig.lookup("metrics", "sales").await;
    rig.upstreams.forget(METRICS, "sales");
    rig
}

/// Rows that the upstream has removed are a problem in addition to the job, whose state does not change.
#[tokio::test]
async fn expired_rows_return_a_problem_and_keep_the_job_state() {
    let rig = without_rows().await;
    let answer = rig.execute(ROWS, json!({ "ref": external("metrics", "sales") })).await.data();
    let rows = json!({ "nodes": [], "problem": { "code": "EXPIRED", "retryable": false } });
    assert_eq!(answer["job"], json!({ "state": "SUCCEEDED", "rows": rows }));
}

#[tokio::test]
async fn an_invalid_row_cursor_is_rejected() {
    let rig = without_rows().await;
    let refused = rig.execute(ROWS, json!({ "ref": external("metrics", "sales"), "after": "row1/5" })).await;
    assert_eq!(refused.json()["errors"][0]["extensions"]["code"], "INVALID_REF", "{}", refused.body);
}

#[tokio::test]
async fn a_reference_list_must_have_1_to_200_entries() {
    let rig = full().start().await;
    let jobs = "query($list: [JobRef!]!) { jobs(refs: $list) { __typename } }";
    let nodes = "query($list: [ID!]!) { nodes(ids: $list) { id } }";
    for (query, entry) in [(jobs, external("mind", "a")), (nodes, json!("am9iMS9taW5kL2E"))] {
        for length in [0, 201] {
            let answer = rig.execute(query, json!({ "list": vec![entry.clone(); length] })).await;
            let error = &answer.json()["errors"][0];
            assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{length}: {}", answer.body);
            assert!(error["message"].as_str().unwrap().contains("200"), "{}", answer.body);
        }
    }
    assert_eq!(rig.upstreams.record(), []);
    assert_eq!(rig.lookup_all(&vec![external("mind", "a"); 200]).await.len(), 200);
}

#[tokio::test]
async fn a_duplicate_reference_is_fetched_once() {
    let rig = full().start().await;
    assert_eq!(rig.lookup_all(&vec![external("mind", "a"); 200]).await, vec!["NOT_FOUND after 5s"; 200]);
    assert_eq!(rig.calls(MIND), 1);
}

/// A gateway with the clients `half`, for one source, and `all`.
async fn with_clients() -> Rig {
    let hash = |key: &str| ClientConfig::hex(&keys::hash(key));
    let clients = format!(
        "clients:\n  - {{ name: half, key_sha256: \"{}\", sources: [mind] }}\n  - {{ name: all, key_sha256: \"{}\", sources: [mind, metrics] }}",
        hash("jg_half"),
        hash("jg_all")
    );
    Setup { rest: clients, ..full() }.start().await
}

/// The request for a job of each source, and for one of a missing source.
fn jobs_and_sources() -> Value {
    let query = "query($refs: [JobRef!]!) { jobs(refs: $refs) { __typename ... on JobProblem { code } } sources { name } }";
    json!({ "query": query, "variables": { "refs": [external("mind", ID), external("metrics", "sales"), external("nowhere", "x")] } })
}

/// A missing grant, a missing source and a missing job have the same answer, and cost no upstream call.
#[tokio::test]
async fn a_job_without_a_grant_is_not_found() {
    let (rig, body) = (with_clients().await, jobs_and_sources());
    let problem = json!({ "__typename": "JobProblem", "code": "NOT_FOUND" });
    let job = |name: &str| json!({ "__typename": name });
    let half = wire::post(rig.public, Some("jg_half"), &body).await.data();
    assert_eq!(half["jobs"], json!([job("MindBridgeJob"), problem, problem]));
    assert_eq!(half["sources"], json!([{ "name": "mind" }]));
    assert_eq!(rig.calls(METRICS), 0);
    let all = wire::post(rig.public, Some("jg_all"), &body).await.data();
    assert_eq!(all["jobs"], json!([job("MindBridgeJob"), job("SupermetricsJob"), problem]));
    // cached by now, and still not visible
    assert_eq!(wire::post(rig.public, Some("jg_half"), &body).await.data(), half);
}

#[tokio::test]
async fn a_query_without_a_valid_key_is_unauthenticated() {
    let (rig, body) = (with_clients().await, jobs_and_sources());
    for key in [None, Some("jg_none"), Some("jg_hal")] {
        let refused = wire::post(rig.public, key, &body).await;
        assert_eq!(refused.refusal(), (401, "UNAUTHENTICATED".to_owned()));
        assert!(refused.head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{}", refused.head);
    }
}

/// Drains the gateway while a request is in flight: the answer to that request.
async fn drain(rig: &Rig) -> String {
    assert_eq!(wire::get(rig.admin, "/readyz").await.status, 200);
    rig.upstreams.push_fault(SimFault::next(MIND, 1, FaultKind::Hold));
    let under_way = rig.lookup("mind", ID);
    let stop = async {
        rig.upstreams.wait_for_requests(1).await;
        let drained = rig.serving.drain();
        let release = async { rig.upstreams.release() };
        tokio::join!(drained, release);
    };
    tokio::join!(under_way, stop).0
}

#[tokio::test]
async fn draining_completes_requests_in_flight() {
    assert_eq!(drain(&full().start().await).await, "SUCCEEDED");
}

#[tokio::test]
async fn draining_closes_the_public_listener() {
    let rig = full().start().await;
    drain(&rig).await;
    assert!(tokio::net::TcpStream::connect(rig.public).await.is_err());
}

/// The scenario of the demo contains what the README promises.
#[tokio::test]
async fn the_demo_scenario_returns_every_job() {
    let mut setup = Setup { scenario: Scenario::demo(), ..Setup::default() };
    setup.secrets = ["demo-mindbridge-token".to_owned(), "demo-supermetrics-key".to_owned()];
    let rig = setup.start().await;
    let refs: Vec<Value> = [(MIND, "mind"), (METRICS, "metrics")]
        .into_iter()
        .flat_map(|(upstream, source)| {
            rig.upstreams.job_ids(upstream).into_iter().map(move |id| external(source, &id))
        })
        .collect();
    assert!(refs.len() >= 10);
    for answer in rig.lookup_all(&refs).await {
        let state = answer.split(' ').next().unwrap();
        // one of them fails after half a minute
        assert!(["QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "UNKNOWN"].contains(&state), "{answer}");
    }
    rig.assert_well_behaved();
}
