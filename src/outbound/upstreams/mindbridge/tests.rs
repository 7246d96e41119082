//! The adapter against a scripted server on a real socket: its requests, their number, and the results.

mod isolation;
mod lists;

use self::isolation::Hanging;
use super::single::NO_JOB;
use super::*;
use crate::domain::source::{CredentialState, SourceHealth};
use crate::outbound::testing::{OneKey, ScriptedServer, SeenRequest, answer, deps, id, json, settings, word};
use crate::outbound::upstreams::{SourceSettings, SourceState, reader};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

const DONE: &str = r#"{"id":"j","status":"COMPLETE"}"#;
/// MindBridge's own "not found".
const MISSING: &str = r#"{"title":"Not Found","status":404,"problems":[{"problemType":"NOT_FOUND"}]}"#;

fn open(server: &ScriptedServer) -> Arc<dyn JobReader> {
    reader(Upstream::MindBridge, settings(&server.url), deps(OneKey::bearer("a-bearer-token")))
}

async fn one(reader: &Arc<dyn JobReader>) -> String {
    word(&reader.fetch(&[id("j")], &FetchTrigger::Operator).await[0].outcome)
}

fn ids(count: usize) -> Vec<ExternalId> {
    (0..count).map(|number| id(&format!("job{number}"))).collect()
}

/// A tenant whose query endpoint returns pages of at most `size`, without the jobs that `hidden` names.
fn tenant(size: usize, totals: bool, hidden: fn(&str) -> bool) -> impl Fn(&SeenRequest) -> Vec<u8> {
    move |seen| {
        let Some(query) = seen.target().split_once("/query?") else {
            let (_, id) = seen.target().rsplit_once('/').unwrap();
            return if hidden(id) {
                answer(404, "", MISSING)
            } else {
                json(200, &json!({"id": id, "status": "COMPLETE"}))
            };
        };
        let number = |name: &str| -> usize {
            let pairs: HashMap<_, _> = url::form_urlencoded::parse(query.1.as_bytes()).into_owned().collect();
            pairs[name].parse().unwrap()
        };
        let size = size.min(number("size"));
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        let all: Vec<&Value> =
            body["id"]["$in"].as_array().unwrap().iter().filter(|id| !hidden(id.as_str().unwrap())).collect();
        let content: Vec<Value> = all
            .iter()
            .skip(number("page") * size)
            .take(size)
            .map(|id| json!({"id": id, "status": "IN_PROGRESS"}))
            .collect();
        let mut page = json!({"content": content});
        if totals {
            page["totalPages"] = json!(all.len().div_ceil(size));
            page["totalElements"] = json!(all.len());
        }
        json(200, &page)
    }
}

#[tokio::test]
async fn each_read_response_maps_to_its_outcome_and_call_count() {
    let cases: [(u16, &str, &str, &str, usize); 31] = [
        (200, "", DONE, "Succeeded", 1),
        (200, "", r#"{"id":{},"status":"ERROR","version":0}"#, "Failed", 1),
        (200, "", r#"{"id":{},"status":"ERROR"}"#, "BadAnswer", 1),
        (200, "", r#"{"id":"j","status":"ON_HOLD"}"#, "Unknown", 1),
        (200, "", r#"{"id":"j"}"#, "BadAnswer", 1),
        (200, "", r#"{"status":"error","version":"1.0","message":"down"}"#, "BadAnswer", 1),
        (200, "", r#"{"id":null,"status":"error","version":1}"#, "BadAnswer", 1),
        (200, "", r#"{"status":"ERROR","version":1,"entityId":"e"}"#, "Failed", 1),
        (404, "", r#"{"title":"Not Found","status":"404"}"#, "NotFound", 1),
        (200, "", r#"{"id":"j","status":" ","version":1}"#, "BadAnswer", 1),
        (200, "", "{}", "BadAnswer", 1),
        (200, "", r#"{"id":"another","status":"COMPLETE"}"#, "BadAnswer", 1),
        (200, "", "<html>", "BadAnswer", 1),
        (200, "", "[]", "BadAnswer", 1),
        (204, "", "", "BadAnswer", 1),
        (302, "location: http://127.0.0.1:1/\r\n", "", "BadAnswer", 1),
        (400, "", "{}", "BadAnswer", 1),
        (401, "", "", "CredentialRejected", 1),
        (403, "", "", "CredentialRejected", 1),
        (404, "", MISSING, "NotFound", 1),
        (410, "", r#"{"title":"Gone","status":410}"#, "NotFound", 1),
        (404, "", "<html>", "BadAnswer", 1),
        (404, "", "", "BadAnswer", 1),
        (410, "", MISSING, "BadAnswer", 1),
        (429, "", "<html>", "Throttled 30", 1),
        (429, "retry-after: 7\r\n", "", "Throttled 7", 1),
        (429, "x-user-hour-limit-remaining: 99\r\n", "", "Throttled 99", 1),
        (429, "retry-after: 7\r\nx-user-hour-limit-remaining: 99\r\n", "", "Throttled 7", 1),
        (429, "retry-after: Tue, 14 Nov 2023 22:14:20 GMT\r\n", "", "Throttled 60", 1),
        (500, "", "", "Unavailable", 3),
        (502, "", "<html>", "Unavailable", 3),
    ];
    for (status, headers, body, expected, calls) in cases {
        let server = ScriptedServer::start(move |_| answer(status, headers, body));
        let reader = open(&server);
        assert_eq!(one(&reader).await, expected, "{status} {headers:?} {body}");
        let seen = server.seen();
        assert_eq!(seen.len(), calls, "{status} {headers:?} {body}");
        assert!(seen[0].head.starts_with("GET /api/v1/async-results/j HTTP/1.1\r\n"), "{}", seen[0].head);
        assert!(seen[0].head.contains("authorization: Bearer a-bearer-token"));
    }
}

#[tokio::test]
async fn transient_failure_is_retried_until_success() {
    for fault in [answer(503, "", ""), Vec::new(), b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()]
    {
        let left = Mutex::new(2);
        let server = ScriptedServer::start(move |_| {
            let mut left = left.lock().unwrap();
            if *left == 0 {
                return answer(200, "", DONE);
            }
            *left -= 1;
            fault.clone()
        });
        assert_eq!(one(&open(&server)).await, "Succeeded");
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn throttling_or_a_rejected_token_stops_the_whole_source() {
    for (status, first, next) in
        [(429, "Throttled 30", "Throttled "), (401, "CredentialRejected", "CredentialRejected")]
    {
        let server = ScriptedServer::start(move |_| answer(status, "", ""));
        let reader = open(&server);
        assert_eq!(one(&reader).await, first);
        for fetch in reader.fetch(&ids(150), &FetchTrigger::Background).await {
            assert!(word(&fetch.outcome).starts_with(next), "{:?}", fetch.outcome);
        }
        assert_eq!(server.seen().len(), 1, "no further request");
    }
}

#[tokio::test]
async fn forbidden_job_does_not_stop_the_source() {
    let server = ScriptedServer::start(|_| answer(403, "", ""));
    let reader = open(&server);
    assert_eq!([one(&reader).await, one(&reader).await], ["CredentialRejected", "CredentialRejected"]);
    assert_eq!(server.seen().len(), 2);
}

/// A source that accepts only `the-new-token`, and its reader, which has another one.
fn with_old_token() -> (ScriptedServer, Arc<OneKey>, Arc<dyn JobReader>) {
    let server = ScriptedServer::start(|seen| {
        if seen.head.contains("Bearer the-new-token") { answer(200, "", DONE) } else { answer(401, "", "") }
    });
    let keys = OneKey::bearer("the-old-token");
    let reader = reader(Upstream::MindBridge, settings(&server.url), deps(Arc::clone(&keys)));
    (server, keys, reader)
}

#[tokio::test]
async fn new_token_is_used_by_the_next_call() {
    let (server, keys, reader) = with_old_token();
    assert_eq!([one(&reader).await, one(&reader).await], ["CredentialRejected", "CredentialRejected"]);
    *keys.0.lock().unwrap() = Some(Credential::Bearer(SecretString::from("the-new-token")));
    assert_eq!(one(&reader).await, "Succeeded");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn missing_token_or_another_kind_of_credential_sends_no_call() {
    let (server, keys, reader) = with_old_token();
    for unusable in [None, Some(Credential::ApiKey(SecretString::from("an-api-key")))] {
        *keys.0.lock().unwrap() = Some(Credential::Bearer(SecretString::from("the-new-token")));
        assert_eq!(one(&reader).await, "Succeeded");
        let before = server.seen().len();
        *keys.0.lock().unwrap() = unusable;
        assert_eq!(one(&reader).await, "Unconfigured");
        assert_eq!(server.seen().len(), before);
    }
}

/// 201 ids, the last of which is also among the others.
fn reversed_ids() -> Vec<ExternalId> {
    ids(200).into_iter().rev().chain([id("job7")]).collect()
}

/// The size of a page of the tenant, whether it sends totals, and the calls that 200 ids take.
const PAGES: [(usize, bool, usize); 5] =
    [(1_000, true, 2), (100, true, 2), (40, true, 6), (40, false, 6), (1, true, 200)];

#[tokio::test]
async fn many_ids_take_one_call_per_page() {
    for (size, totals, calls) in PAGES {
        let server = ScriptedServer::start(tenant(size, totals, |_| false));
        let fetches = open(&server).fetch(&reversed_ids(), &FetchTrigger::Operator).await;
        assert!(fetches.iter().all(|fetch| fetch.outcome.is_ok()));
        assert_eq!(server.seen().len(), calls, "pages of {size}, totals: {totals}");
    }
}

#[tokio::test]
async fn batch_results_are_in_the_order_of_the_ids() {
    for (size, totals, _) in PAGES {
        let server = ScriptedServer::start(tenant(size, totals, |_| false));
        let wanted = reversed_ids();
        let fetches = open(&server).fetch(&wanted, &FetchTrigger::Operator).await;
        assert_eq!(fetches.len(), wanted.len());
        for (id, fetch) in wanted.iter().zip(&fetches) {
            assert_eq!(fetch.outcome.as_ref().unwrap().key.external_id, *id);
        }
    }
}

#[tokio::test]
async fn id_missing_from_all_pages_is_confirmed_before_not_found() {
    let server = ScriptedServer::start(tenant(40, true, |id| id.ends_with('3')));
    let wanted = ids(60);
    let fetches = open(&server).fetch(&wanted, &FetchTrigger::Operator).await;
    for (id, fetch) in wanted.iter().zip(&fetches) {
        let expected = if id.as_str().ends_with('3') { "NotFound" } else { "Running" };
        assert_eq!(word(&fetch.outcome), expected, "{id}");
    }
    assert_eq!(server.seen().len(), 2 + 6);
}

#[tokio::test]
async fn job_that_only_a_single_read_returns_is_found() {
    let server = ScriptedServer::start(|seen| match seen.body.as_str() {
        "" => answer(200, "", r#"{"id":{},"version":1,"status":"COMPLETE"}"#),
        _ => json(200, &json!({"content": [{"id": {}, "status": "ERROR"}, 7, null], "totalPages": 900})),
    });
    let fetches = open(&server).fetch(&ids(3), &FetchTrigger::Operator).await;
    assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "Succeeded"));
    assert_eq!(server.seen().len(), 1 + 3, "pages without new ids end the query");
}

/// A tenant that refuses its query endpoint according to `refusals`, one call after the other, and has every job.
fn refusing(refusals: Vec<Option<(u16, String)>>) -> impl Fn(&SeenRequest) -> Vec<u8> {
    let left = Mutex::new(refusals.into_iter());
    move |seen| {
        if seen.body.is_empty() {
            return answer(200, "", r#"{"id":{},"version":1,"status":"COMPLETE"}"#);
        }
        match left.lock().unwrap().next().flatten() {
            Some((status, body)) => answer(status, "", &body),
            None => tenant(100, true, |_| false)(seen),
        }
    }
}

fn own_error(status: u16) -> (u16, String) {
    (status, json!({"title": "Refused", "status": status}).to_string())
}

#[tokio::test]
async fn two_consecutive_api_refusals_disable_batches() {
    for status in [403, 404, 405, 410] {
        let server = ScriptedServer::start(refusing(vec![Some(own_error(status)), Some(own_error(status))]));
        let reader = open(&server);
        for calls in [1 + 5, 1 + 5 + 1 + 5, 1 + 5 + 1 + 5 + 5] {
            let fetches = reader.fetch(&ids(5), &FetchTrigger::Operator).await;
            assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "Succeeded"));
            assert_eq!(server.seen().len(), calls, "{status}");
        }
    }
}

#[tokio::test]
async fn success_between_two_refusals_keeps_batches_enabled() {
    let server =
        ScriptedServer::start(refusing(vec![Some(own_error(404)), None, Some(own_error(404)), None]));
    let reader = open(&server);
    for calls in [1 + 5, 1, 1 + 5, 1] {
        let before = server.seen().len();
        assert_eq!(reader.fetch(&ids(5), &FetchTrigger::Operator).await.len(), 5);
        assert_eq!(server.seen().len() - before, calls);
    }
}

#[tokio::test]
async fn single_foreign_refusal_keeps_batches_enabled() {
    for body in ["default backend - 404", r#"{"message":"no Route matched"}"#, ""] {
        let foreign = |status| Some((status, body.to_owned()));
        let server = ScriptedServer::start(refusing(vec![foreign(404), None, foreign(403), None]));
        let reader = open(&server);
        for _ in 0..2 {
            assert!(reader.fetch(&ids(5), &FetchTrigger::Operator).await[0].outcome.is_err());
            assert_eq!(word(&reader.fetch(&ids(5), &FetchTrigger::Operator).await[0].outcome), "Running");
        }
        assert_eq!(server.seen().len(), 4, "{body}");
    }
}

#[tokio::test]
async fn foreign_refusals_switch_to_single_reads_that_succeed() {
    for (status, body) in [(404, "<html>"), (403, "<html>"), (302, ""), (200, "<html>"), (405, "{}")] {
        let server = ScriptedServer::start(refusing(vec![Some((status, body.to_owned())); 9]));
        let reader = open(&server);
        for (calls, expected) in [(1, None), (1 + 1 + 5, Some("Succeeded")), (5, Some("Succeeded"))] {
            let before = server.seen().len();
            let fetches = reader.fetch(&ids(5), &FetchTrigger::Operator).await;
            for fetch in fetches {
                assert!(
                    expected
                        .map_or_else(|| fetch.outcome.is_err(), |expected| word(&fetch.outcome) == expected)
                );
            }
            assert_eq!(server.seen().len() - before, calls, "{status} {body}");
        }
    }
}

#[tokio::test]
async fn proxy_that_refuses_every_call_keeps_batches_enabled() {
    let server = ScriptedServer::start(|_| answer(404, "", "default backend - 404"));
    let reader = open(&server);
    for calls in [1, 1 + 1, 1 + 1] {
        let before = server.seen().len();
        let fetches = reader.fetch(&ids(50), &FetchTrigger::Operator).await;
        assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == "BadAnswer"));
        assert_eq!(server.seen().len() - before, calls);
    }
}

#[tokio::test]
async fn concurrent_batches_count_as_one_refusal() {
    let own = ScriptedServer::start(refusing(vec![Some(own_error(404)), Some(own_error(404))]));
    let foreign = Some((404, "<html>".to_owned()));
    for server in [own, ScriptedServer::start(refusing(vec![foreign.clone(), foreign]))] {
        let reader = open(&server);
        reader.fetch(&ids(150), &FetchTrigger::Operator).await;
        let before = server.seen().len();
        reader.fetch(&ids(150), &FetchTrigger::Operator).await;
        assert_eq!(server.seen().len() - before, 2, "batches are enabled");
    }
}

#[tokio::test]
async fn failed_query_fails_for_every_requested_id() {
    for (status, expected, calls) in
        // of a source that returns nothing else three jobs are read alone; a server error is checked by a read
        [
            (500, "Unavailable", 3 + 1),
            (429, "Throttled 30", 1),
            (302, "BadAnswer", 1),
            (400, "BadAnswer", 7 + 3),
        ]
    {
        let server = ScriptedServer::start(move |_| answer(status, "", ""));
        let fetches = open(&server).fetch(&ids(5), &FetchTrigger::Operator).await;
        assert!(fetches.iter().all(|fetch| word(&fetch.outcome) == expected), "{status}");
        assert_eq!(server.seen().len(), calls, "{status}");
    }
}

#[tokio::test]
async fn probe_distinguishes_accepted_from_rejected_credentials() {
    let own = json!({"id": NO_JOB, "status": "COMPLETE"}).to_string();
    for (status, body, expected) in [
        (404, MISSING, "ok"),
        (200, own.as_str(), "ok"),
        (404, "", "BadAnswer"),
        (404, "<html>", "BadAnswer"),
        (200, "<html>", "BadAnswer"),
        (200, "{}", "BadAnswer"),
        (401, "", "CredentialRejected"),
        (403, "", "CredentialRejected"),
        (500, "", "Unavailable"),
    ] {
        let body = body.to_owned();
        let server = ScriptedServer::start(move |_| answer(status, "", &body));
        let probe = open(&server).probe(None).await;
        let result = probe.map_or_else(|error| word(&Err(error)), |()| "ok".to_owned());
        assert_eq!(result, expected, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_deadline_covers_every_attempt() {
    let mut tenant = Hanging::start(|_| true);
    let fetches = tenant.fetch(&[id("j")]).await;
    assert_eq!(word(&fetches[0].outcome), "TimedOut");
    assert_eq!(tenant.server.seen().len(), 1, "no second try");
}

/// The rejected credential was replaced during the call: the caller gets no rejection, and the only cost is another try
/// with the new one.
#[tokio::test]
async fn call_with_a_replaced_credential_is_retried_with_the_new_one() {
    let keys = OneKey::bearer("old-token");
    let server = {
        let keys = Arc::clone(&keys);
        ScriptedServer::start(move |seen| {
            if seen.head.contains("Bearer new-token") {
                return json(200, &serde_json::json!({ "id": "a", "status": "COMPLETE", "version": 1 }));
            }
            *keys.0.lock().unwrap() = Some(Credential::Bearer(SecretString::from("new-token")));
            json(401, &serde_json::json!({}))
        })
    };
    let settings = settings(&server.url);
    let account = SourceState::new(&settings, None);
    let source = Source::new(Upstream::MindBridge, settings, deps(keys), account);
    let reader = MindBridgeReader::new(source);
    let fetches = reader.fetch(&[id("a")], &FetchTrigger::Operator).await;
    assert_eq!(word(&fetches[0].outcome), "Succeeded");
    assert_eq!(server.seen().len(), 2);
    let status = reader.status();
    assert_eq!((status.health, status.credential.state), (SourceHealth::Healthy, CredentialState::Active));
}

/// Trying another credential does not change the active one, whichever of the two is valid.
#[tokio::test]
async fn probing_another_credential_leaves_the_active_one_unchanged() {
    let server = ScriptedServer::start(|seen| {
        if seen.head.contains("Bearer good-token") {
            answer(404, "", MISSING)
        } else {
            json(401, &serde_json::json!({}))
        }
    });
    let other = |secret: &str| Credential::Bearer(SecretString::from(secret));
    for (active, health) in
        [("good-token", SourceHealth::Healthy), ("bad-token", SourceHealth::CredentialRejected)]
    {
        let keys = OneKey::bearer(active);
        let settings = settings(&server.url);
        let account = SourceState::new(&settings, None);
        let source = Source::new(Upstream::MindBridge, settings, deps(keys), account);
        let reader = MindBridgeReader::new(source);
        reader.fetch(&[id("a")], &FetchTrigger::Operator).await;
        for _ in 0..7 {
            let result = reader.probe(Some(&other("worse-token"))).await;
            assert!(matches!(result, Err(FetchError::CredentialRejected)), "{result:?}");
            reader.probe(Some(&other("good-token"))).await.unwrap();
            assert_eq!(reader.status().health, health);
        }
        let refused = health == SourceHealth::CredentialRejected;
        assert_eq!(reader.status().credential.state == CredentialState::Refused, refused);
        assert_eq!(reader.status().credential.since.is_some(), refused);
    }
}
