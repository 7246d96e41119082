//! The adapter against a scripted server on a real socket: its requests, their number, and the results.

mod denied;
mod history;

use super::*;
use crate::outbound::testing::{OneKey, ScriptedServer, answer, deps, id, json, settings, word};
use crate::outbound::upstreams::client::SourceSettings;
use crate::outbound::upstreams::reader;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

const KEY: &str = "CANARY-api-key";

fn open(server: &ScriptedServer) -> Arc<dyn JobReader> {
    reader(Upstream::Supermetrics, settings(&server.url), deps(OneKey::api_key(KEY)))
}

async fn one(reader: &Arc<dyn JobReader>) -> String {
    word(&reader.fetch(&[id("j")], &FetchTrigger::Operator).await[0].outcome)
}

fn error(status: u16, code: &str) -> Vec<u8> {
    json(status, &json!({"meta": {"request_id": "r"}, "error": {"code": code, "description": "why"}}))
}

#[tokio::test]
async fn each_poll_response_maps_to_its_outcome_and_call_count() {
    let status = |word: &str, id: &str| {
        json(200, &json!({"meta": {"schedule_id": id, "status_code": word}, "data": []}))
    };
    let cases = [
        (status("RUNNING", "j"), "Running", 1),
        (status("SUCCESS", "j"), "Succeeded", 1),
        (status("ON_HOLD", "j"), "Unknown", 1),
        (status("RUNNING", "another"), "BadAnswer", 1),
        (answer(200, "", "<html>"), "BadAnswer", 1),
        (error(400, "STATUS_NOT_FOUND"), "NotFound", 1),
        (error(200, "STATUS_NOT_FOUND"), "NotFound", 1),
        (error(500, "QUERY_ACCOUNT_UNAVAILABLE"), "Failed", 1),
        (error(401, "API_KEY_INVALID"), "CredentialRejected", 1),
        (error(403, "SOMETHING"), "CredentialRejected", 1),
        (answer(403, "", ""), "CredentialRejected", 1),
        (answer(403, "", "<html>"), "BadAnswer", 1),
        (error(403, "LICENSE_ROW_LIMIT_EXCEEDED"), "Unavailable", 1),
        (error(403, "LICENSE_ACCOUNT_LIMIT_EXCEEDED"), "Unavailable", 1),
        (error(403, "LICENSE_QUERIES_SUSPENDED"), "Unavailable", 1),
        (error(403, "ACCESS_DENIED_IP"), "Unavailable", 1),
        (error(500, "PERMISSION_DENIED"), "Unavailable", 1),
        (error(500, "ACCOUNT_NOT_FOUND"), "Failed", 1),
        (error(429, "QUERY_ERROR"), "Failed", 1),
        (error(429, "LICENSE_ROW_LIMIT_EXCEEDED"), "Throttled 30", 1),
        (error(429, "LICENSE_DAILY_QUERY_LIMIT_EXCEEDED"), "Throttled 30", 1),
        (answer(429, "retry-after: 86400\r\n", ""), "Throttled 86400", 1),
        (answer(502, "", "<html>"), "Unavailable", 3),
        (error(200, "INTERNAL"), "Unavailable", 3),
        (Vec::new(), "Unavailable", 3),
    ];
    for (bytes, expected, calls) in cases {
        let case = String::from_utf8_lossy(&bytes).into_owned();
        let server = ScriptedServer::start(move |_| bytes.clone());
        assert_eq!(one(&open(&server)).await, expected, "{case}");
        let seen = server.seen();
        assert_eq!(seen.len(), calls, "{case}");
        assert!(seen[0].target().starts_with("/api/query/status?json="), "{}", seen[0].target());
        let request = json!({"schedule_id": "j", "offset_start": 0, "offset_end": 0, "api_key": KEY});
        assert_eq!(seen[0].json(), request);
    }
}

#[tokio::test]
async fn failure_message_redacts_an_echoed_key() {
    let server = ScriptedServer::start(|_| {
        let description = format!("key {KEY} may not read this account");
        json(500, &json!({"error": {"code": "QUERY_AUTH_ERROR", "message": "m", "description": description}}))
    });
    let fetches = open(&server).fetch(&[id("j")], &FetchTrigger::Operator).await;
    let job = fetches[0].outcome.as_ref().unwrap();
    let failure = job.failure().unwrap();
    assert_eq!(failure.code.as_deref(), Some("QUERY_AUTH_ERROR"));
    assert_eq!(failure.message.as_deref(), Some("key [redacted] may not read this account"));
}

#[tokio::test]
async fn rejected_key_stops_the_whole_source() {
    let server = ScriptedServer::start(|_| error(403, "LICENSE_EXPIRED"));
    let reader = open(&server);
    for _ in 0..3 {
        assert_eq!(one(&reader).await, "CredentialRejected");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn exhausted_quota_throttles_the_whole_source() {
    let server = ScriptedServer::start(|_| {
        answer(200, "x-ratelimit-remaining: 0\r\n", r#"{"meta":{"status_code":"RUNNING"}}"#)
    });
    let reader = open(&server);
    assert_eq!(one(&reader).await, "Running");
    let next = one(&reader).await;
    assert!(next.starts_with("Throttled "), "{next}");
    assert_eq!(server.seen().len(), 1);
    assert!(reader.status().throttled_until.is_some());
}

#[tokio::test]
async fn offset_end_zero_ignored_by_the_source_is_detected_once() {
    let server = ScriptedServer::start(|seen| {
        let end = seen.json()["offset_end"].as_u64().unwrap();
        let rows = if end == 0 { 400_000 } else { end };
        json(
            200,
            &json!({"meta": {"status_code": "SUCCESS"}, "data": vec![["a"]; usize::try_from(rows).unwrap()]}),
        )
    });
    let reader = open(&server);
    for calls in [2, 3] {
        assert_eq!(one(&reader).await, "Succeeded");
        assert_eq!(server.seen().len(), calls);
    }
}

#[tokio::test]
async fn oversized_first_row_does_not_block_the_terminal_state() {
    let wide = "x".repeat(2 << 20);
    for meta_first in [true, false] {
        let wide = wide.clone();
        let server = ScriptedServer::start(move |seen| {
            let data =
                if seen.json()["offset_start"] == 0 { format!("[[\"{wide}\"]]") } else { "[]".to_owned() };
            let meta = r#"{"schedule_id":"j","status_code":"SUCCESS"}"#;
            let (meta, data) = (format!("\"meta\":{meta}"), format!("\"data\":{data}"));
            let body = if meta_first { format!("{{{meta},{data}}}") } else { format!("{{{data},{meta}}}") };
            answer(200, "", &body)
        });
        assert_eq!(one(&open(&server)).await, "Succeeded");
        let request: Vec<_> = server.seen().iter().map(|seen| seen.json()["offset_start"].clone()).collect();
        let expected = if meta_first { vec![0, 0] } else { vec![0, 0, 1_000_000] };
        assert_eq!(request, expected, "a response with the status at its head needs no other");
    }
}

/// Fetches 20 ids and five of them again; returns the ids, the results and the server.
async fn with_repeated_ids() -> (Vec<ExternalId>, Vec<Fetch>, ScriptedServer) {
    let server = ScriptedServer::start(|seen| {
        let id = seen.json()["schedule_id"].clone();
        json(200, &json!({"meta": {"schedule_id": id, "status_code": "RUNNING"}}))
    });
    let wanted: Vec<ExternalId> = (0..20).chain(5..10).map(|number| id(&format!("q{number}"))).collect();
    let fetches = open(&server).fetch(&wanted, &FetchTrigger::Operator).await;
    (wanted, fetches, server)
}

#[tokio::test]
async fn repeated_id_is_requested_once() {
    let (_, fetches, server) = with_repeated_ids().await;
    assert!(fetches.iter().all(|fetch| fetch.outcome.is_ok()));
    assert_eq!(server.seen().len(), 20);
}

#[tokio::test]
async fn results_are_in_the_order_of_the_ids() {
    let (wanted, fetches, _) = with_repeated_ids().await;
    assert_eq!(fetches.len(), 25);
    for (id, fetch) in wanted.iter().zip(&fetches) {
        assert_eq!(fetch.outcome.as_ref().unwrap().key.external_id, *id);
    }
}

/// Two requested rows of an upstream that returns one more, and the upstream.
async fn two_rows() -> (RowPage, ScriptedServer) {
    let server = ScriptedServer::start(|seen| {
        let rows = r#",[1.10,"\u0041"],[18446744073709551616,null],[3,{"b":1, "a":2}]"#;
        let rows = if seen.json()["offset_start"] == 2 { rows } else { "" };
        let meta = r#"{"status_code":"SUCCESS","result":{"total_rows":5}}"#;
        answer(200, "", format!(r#"{{"meta":{meta},"data":[["n","v"]{rows}]}}"#))
    });
    let range = RowRange { first: 2, count: 2 };
    let page = open(&server).rows(&id("j"), range, &FetchTrigger::Operator).await.unwrap();
    (page, server)
}

fn cells(row: &[Box<serde_json::value::RawValue>]) -> Vec<&str> {
    row.iter().map(|cell| cell.get()).collect()
}

#[tokio::test]
async fn rows_exclude_the_header() {
    let (page, _) = two_rows().await;
    assert_eq!(cells(&page.header), ["\"n\"", "\"v\""]);
    assert_eq!(page.rows.len(), 2, "three came, two were requested");
    assert_eq!(page.total, Some(5));
}

#[tokio::test]
async fn rows_keep_the_upstream_bytes() {
    let (page, _) = two_rows().await;
    assert_eq!(cells(&page.rows[0]), ["1.10", r#""\u0041""#]);
    assert_eq!(cells(&page.rows[1]), ["18446744073709551616", "null"]);
}

#[tokio::test]
async fn rows_are_requested_by_inclusive_offsets() {
    let (_, server) = two_rows().await;
    let request = server.seen()[0].json();
    assert_eq!((request["offset_start"].as_u64(), request["offset_end"].as_u64()), (Some(2), Some(3)));
}

#[tokio::test]
async fn short_row_pages_are_read_until_the_range_is_complete() {
    for (total, expected) in [(50, 30), (25, 15)] {
        // a server that returns at most seven rows at a time
        let server = ScriptedServer::start(move |seen| {
            let number = |name: &str| seen.json()[name].as_u64().unwrap();
            let end = (number("offset_end") + 1).min(number("offset_start") + 7).min(total);
            let rows = (number("offset_start")..end).map(|row| json!([row]));
            let data: Vec<Value> = [json!(["header"])].into_iter().chain(rows).collect();
            let meta = json!({"status_code": "SUCCESS", "result": {"total_rows": total}});
            json(200, &json!({"meta": meta, "data": data}))
        });
        let page = open(&server)
            .rows(&id("j"), RowRange { first: 10, count: 30 }, &FetchTrigger::Operator)
            .await
            .unwrap();
        let read: Vec<&str> = page.rows.iter().map(|row| row[0].get()).collect();
        let expected: Vec<String> = (10..10 + expected).map(|row: u64| row.to_string()).collect();
        assert_eq!(read, expected);
    }
}

/// A query of 50 rows; `window` returns which of them are sent for the requested offsets.
fn fifty(
    no_headers: bool,
    window: impl Fn(u64, u64) -> std::ops::Range<u64> + Send + Sync + 'static,
) -> ScriptedServer {
    ScriptedServer::start(move |seen| {
        let number = |name: &str| seen.json()[name].as_u64().unwrap();
        let rows = window(number("offset_start"), number("offset_end") + 1).map(|row| json!([row]));
        let header = (!no_headers).then(|| json!(["header"]));
        let fields = json!([{"field_id": "f", "field_name": "name", "data_column": 0}]);
        let query = json!({"fields": fields, "settings": {"no_headers": no_headers}});
        let meta = json!({"status_code": "SUCCESS", "query": query, "result": {"total_rows": 50}});
        json(200, &json!({"meta": meta, "data": header.into_iter().chain(rows).collect::<Vec<_>>()}))
    })
}

async fn rows_of(server: &ScriptedServer, first: u32, count: u32) -> (String, String, usize) {
    let read = open(server).rows(&id("j"), RowRange { first, count }, &FetchTrigger::Operator).await;
    let calls = server.seen().len();
    match read {
        Err(error) => (String::new(), word(&Err(error)), calls),
        Ok(page) => {
            let rows: Vec<&str> = page.rows.iter().map(|row| row[0].get()).collect();
            let span = match &rows[..] {
                [] => "none".to_owned(),
                [first, .., last] => format!("{first} to {last}, {}", rows.len()),
                [one] => format!("{one} alone"),
            };
            (page.header.iter().map(|cell| cell.get()).collect(), span, calls)
        }
    }
}

#[tokio::test]
async fn a_query_without_a_header_row_loses_no_row() {
    let server = fifty(true, |start, end| start.min(50)..end.min(50));
    assert_eq!(rows_of(&server, 0, 30).await, ("\"name\"".to_owned(), "0 to 29, 30".to_owned(), 1));
    let server = fifty(true, |start, end| start.min(50)..end.min(50));
    assert_eq!(rows_of(&server, 30, 30).await, ("\"name\"".to_owned(), "30 to 49, 20".to_owned(), 2));
}

#[tokio::test]
async fn source_that_ignores_offsets_never_yields_repeated_rows() {
    // all rows each time include the requested ones
    let all = fifty(false, |_, _| 0..50);
    assert_eq!(rows_of(&all, 20, 10).await.1, "20 to 29, 10");
    // the first rows each time do not
    for most in [10, 30] {
        let first = fifty(false, move |start, end| 0..(end - start).min(most));
        assert_eq!(rows_of(&first, 0, 10).await.1, "0 to 9, 10");
        let first = fifty(false, move |start, end| 0..(end - start).min(most));
        assert_eq!(rows_of(&first, 20, 10).await.1, "BadAnswer");
    }
    let short = fifty(false, |_, _| 0..7);
    assert_eq!(rows_of(&short, 0, 20).await.1, "BadAnswer", "the second part would be the first again");
}

#[tokio::test]
async fn offset_support_is_checked_once() {
    let server = fifty(false, |start, end| start.min(50)..end.min(50));
    let reader = open(&server);
    for calls in [2, 3, 4] {
        let page =
            reader.rows(&id("j"), RowRange { first: 40, count: 5 }, &FetchTrigger::Operator).await.unwrap();
        assert_eq!((page.rows.len(), page.rows[0][0].get(), server.seen().len()), (5, "40", calls));
    }
}

#[tokio::test]
async fn oversized_row_pages_are_read_in_smaller_parts() {
    let server = ScriptedServer::start(|seen| {
        let number = |name: &str| seen.json()[name].as_u64().unwrap();
        let end = (number("offset_end") + 1).min(20);
        let rows = (number("offset_start")..end).map(|row| json!([row, "x".repeat(400_000)]));
        let data: Vec<Value> = [json!(["n", "wide"])].into_iter().chain(rows).collect();
        json(200, &json!({"meta": {"status_code": "SUCCESS", "result": {"total_rows": 20}}, "data": data}))
    });
    let settings = SourceSettings { max_rows_body: 1 << 20, ..settings(&server.url) };
    let reader = reader(Upstream::Supermetrics, settings, deps(OneKey::api_key(KEY)));
    let (mut read, mut pages) = (Vec::new(), 0);
    while read.len() < 20 {
        let first = u32::try_from(read.len()).unwrap();
        let range = RowRange { first, count: 20 - first };
        let page = reader.rows(&id("j"), range, &FetchTrigger::Operator).await.unwrap();
        let bytes: usize = page.rows.iter().flatten().map(|cell| cell.get().len()).sum();
        assert!(bytes < 2 << 20, "the parts of a page are bounded: {bytes}");
        assert_eq!(page.is_whole(range), read.len() + page.rows.len() == 20);
        read.extend(page.rows.iter().map(|row| row[0].get().to_owned()));
        pages += 1;
    }
    assert_eq!(read, (0..20).map(|row| row.to_string()).collect::<Vec<_>>());
    assert!(pages > 1, "{pages}");
}

/// Only the API shows whether it honours offsets, and a result from an intermediary is not remembered.
#[tokio::test]
async fn foreign_response_is_no_evidence_of_offset_support() {
    let redirect = answer(302, "location: /login\r\n", "");
    let own = json(400, &json!({"error": {"code": "PARAMETER_INVALID"}}));
    for (reply, expected) in [
        (answer(404, "", "<html>"), "BadAnswer"),
        (answer(200, "", "<html>"), "BadAnswer"),
        (answer(400, "", "{}"), "BadAnswer"),
        (redirect, "BadAnswer"),
        (own, "Succeeded"),
    ] {
        let page = Mutex::new(Some(reply));
        let server = ScriptedServer::start(move |seen| {
            let number = |name: &str| seen.json()[name].as_u64().unwrap();
            let (start, end) = (number("offset_start"), number("offset_end") + 1);
            if start >= 1_000_000
                && let Some(page) = page.lock().unwrap().take()
            {
                return page;
            }
            // it ignores offset_start
            let rows = (0..(end - start).min(10)).map(|row| json!([row]));
            let data: Vec<Value> = [json!(["n"])].into_iter().chain(rows).collect();
            json(
                200,
                &json!({"meta": {"status_code": "SUCCESS", "result": {"total_rows": 50}}, "data": data}),
            )
        });
        let reader = open(&server);
        for _ in 0..2 {
            let read =
                reader.rows(&id("j"), RowRange { first: 20, count: 10 }, &FetchTrigger::Operator).await;
            let result = read.map_or_else(|error| word(&Err(error)), |_| "Succeeded".to_owned());
            assert_eq!(result, expected);
        }
    }
}

#[tokio::test]
async fn larger_of_two_totals_is_used() {
    let server = ScriptedServer::start(|seen| {
        let start = seen.json()["offset_start"].as_u64().unwrap();
        let total = if start == 0 { 20 } else { 12 };
        let rows = (start..(start + 10).min(15)).map(|row| json!([row]));
        let data: Vec<Value> = [json!(["n"])].into_iter().chain(rows).collect();
        json(200, &json!({"meta": {"status_code": "SUCCESS", "result": {"total_rows": total}}, "data": data}))
    });
    let range = RowRange { first: 0, count: 20 };
    let page = open(&server).rows(&id("j"), range, &FetchTrigger::Operator).await.unwrap();
    assert_eq!((page.rows.len(), page.total, page.is_whole(range)), (15, Some(20), false));
}

#[tokio::test]
async fn row_parts_without_a_total_are_bounded() {
    let server = ScriptedServer::start(|seen| {
        let start = seen.json()["offset_start"].as_u64().unwrap();
        let rows = if start < 1_000_000 { vec![json!(["x".repeat(400_000)])] } else { vec![] };
        let data: Vec<Value> = [json!(["n"])].into_iter().chain(rows).collect();
        json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": data}))
    });
    let settings = SourceSettings { max_rows_body: 1 << 20, ..settings(&server.url) };
    let reader = reader(Upstream::Supermetrics, settings, deps(OneKey::api_key(KEY)));
    let read = reader.rows(&id("j"), RowRange { first: 0, count: 1_000 }, &FetchTrigger::Operator).await;
    assert!(matches!(read, Err(FetchError::BadAnswer(detail)) if detail.text.contains("request fewer")));
    assert!(server.seen().len() <= 3 + 1);
}

#[tokio::test]
async fn jobs_without_rows_return_an_error_or_an_empty_page() {
    let cases = [
        (json(200, &json!({"meta": {"status_code": "RUNNING"}, "data": []})), "NotFound"),
        (json(200, &json!({"meta": {"status_code": "FAILURE"}})), "NotFound"),
        (error(400, "STATUS_NOT_FOUND"), "NotFound"),
        (error(500, "QUERY_ACCOUNT_UNAVAILABLE"), "NotFound"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": null})), "0 rows"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS"}})), "0 rows"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": [["a"]]})), "0 rows"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": {"a": 1}})), "BadAnswer"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": [["a"], "b"]})), "BadAnswer"),
        (json(200, &json!({"meta": {"status_code": "SUCCESS", "schedule_id": "x"}})), "BadAnswer"),
        (
            json(200, &json!({"meta": {"status_code": "SUCCESS"}, "data": vec![["a"; 9]; 200_000]})),
            "BadAnswer",
        ),
    ];
    for (bytes, expected) in cases {
        let server = ScriptedServer::start(move |_| bytes.clone());
        let page =
            open(&server).rows(&id("j"), RowRange { first: 0, count: 9 }, &FetchTrigger::Operator).await;
        let result = page.map_or_else(|error| word(&Err(error)), |page| format!("{} rows", page.rows.len()));
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn probe_distinguishes_accepted_from_rejected_credentials() {
    let cases = [
        (error(400, "STATUS_NOT_FOUND"), "ok"),
        (error(401, "API_KEY_INVALID"), "CredentialRejected"),
        (error(403, "SOMETHING"), "CredentialRejected"),
        (answer(404, "", "<html>"), "BadAnswer"),
        (answer(502, "", "<html>"), "Unavailable"),
    ];
    for (bytes, expected) in cases {
        let server = ScriptedServer::start(move |_| bytes.clone());
        let probe = open(&server).probe(None).await;
        assert_eq!(probe.map_or_else(|error| word(&Err(error)), |()| "ok".to_owned()), expected);
    }
}

async fn fetch(reader: &Arc<dyn JobReader>, job: &str) -> String {
    word(&reader.fetch(&[id(job)], &FetchTrigger::Operator).await[0].outcome)
}

#[tokio::test]
async fn query_limit_throttles_only_that_query() {
    let server = ScriptedServer::start(|seen| match seen.json()["schedule_id"].as_str() {
        Some("limited") => json(429, &json!({"error": {"code": "LICENSE_ROW_LIMIT_EXCEEDED"}})),
        _ => json(200, &json!({"meta": {"status_code": "RUNNING"}})),
    });
    let reader = open(&server);
    assert_eq!(fetch(&reader, "limited").await, "Throttled 30");
    assert_eq!(fetch(&reader, "other").await, "Running");
    assert!(reader.status().throttled_until.is_none());
}
