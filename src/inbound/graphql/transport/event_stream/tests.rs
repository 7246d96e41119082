//! Event streams byte by byte, through the whole router, on a paused clock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::Request;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::json;
use tower::ServiceExt as _;

use super::*;
use crate::inbound::graphql::testing::{TestGraphql, fixture};
use crate::inbound::streams::StreamSettings;

const SSE: &str = "text/event-stream";
const APOLLO: &str = "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\",application/json";
const SECOND: Duration = Duration::from_secs(1);

fn post(accept: &str, query: &str) -> Request {
    let request =
        Request::post("/graphql").header("content-type", "application/json").header("accept", accept);
    request.body(json!({ "query": query }).to_string().into()).unwrap()
}

fn get(accept: &str, query: &str) -> Request {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    Request::get(format!("/graphql?query={query}")).header("accept", accept).body(Body::empty()).unwrap()
}

impl TestGraphql {
    async fn open(&self, request: Request) -> Response {
        self.app.clone().oneshot(request).await.unwrap()
    }
}

/// The next bytes of a response; none at its end.
async fn chunk(response: &mut Response) -> Option<String> {
    let frame = response.body_mut().frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn stream_bytes_are_exact_for_every_operation_type() {
    let fixture = fixture(StreamSettings::default());
    let sse = |answers: &[&str]| {
        let next = answers.iter().map(|json| format!("event: next\ndata: {json}\n\n"));
        format!(":\n\n{}event: complete\ndata:\n\n", next.collect::<String>())
    };
    let parts = |answers: &[&str]| {
        let head = "\r\ncontent-type: application/json\r\n\r\n";
        let next = answers.iter().map(|json| format!("{head}{{\"payload\":{json}}}\r\n--graphql"));
        format!("\r\n--graphql{}--\r\n", next.collect::<String>())
    };
    for (query, answers) in [
        ("subscription{count(to:2)}", &[r#"{"data":{"count":1}}"#, r#"{"data":{"count":2}}"#][..]),
        ("subscription{count(to:0)}", &[]),
        ("{hello}", &[r#"{"data":{"hello":"hello local"}}"#]),
        (
            "subscription{count}",
            &[
                r#"{"errors":[{"message":"Field \"count\" argument \"to\" of type \"Watch\" is required but not provided","locations":[{"line":1,"column":14}],"extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}"#,
            ],
        ),
        (
            "query A{hello} query B{hello}",
            &[
                r#"{"errors":[{"message":"the document has several operations; select one with operationName","extensions":{"code":"OPERATION_RESOLUTION_FAILURE"}}]}"#,
            ],
        ),
    ] {
        for (request, expected) in [
            (post(SSE, query), sse(answers)),
            (get(SSE, query), sse(answers)),
            (post("multipart/mixed", query), parts(answers)),
        ] {
            let response = fixture.open(request).await;
            assert_eq!(response.status(), 200, "{query}");
            assert_eq!(text(response).await, expected, "{query}");
        }
    }
    assert_eq!(fixture.streams.counts(), crate::inbound::streams::StreamCounts::default());
}

#[tokio::test(start_paused = true)]
async fn stream_sends_headers_and_first_byte_immediately() {
    let fixture = fixture(StreamSettings::default());
    for (accept, media, first) in [
        (SSE, "text/event-stream", ":\n\n"),
        (APOLLO, "multipart/mixed;boundary=\"graphql\";subscriptionSpec=\"1.0\"", "\r\n--graphql"),
    ] {
        let mut response = fixture.open(post(accept, "subscription{quiet}")).now_or_never().unwrap();
        let headers = response.headers();
        assert_eq!(headers["content-type"], media);
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert_eq!(chunk(&mut response).now_or_never().unwrap().unwrap(), first);
        assert_eq!(chunk(&mut response).now_or_never(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_ends_the_operation_of_a_stream() {
    let fixture = fixture(StreamSettings::default());
    for accept in [SSE, APOLLO] {
        let mut response = fixture.open(post(accept, "subscription{quiet}")).await;
        chunk(&mut response).await;
        assert_eq!(chunk(&mut response).now_or_never(), None, "it has started, and delivers nothing");
        assert_eq!(fixture.running.load(Ordering::SeqCst), 1);
        drop(response);
        assert_eq!(fixture.running.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_stream_sends_heartbeats_until_its_maximum_age() {
    let fixture = fixture(StreamSettings::default());
    for (accept, alive, cut) in [
        (SSE, ":\n\n", ""),
        (
            APOLLO,
            "\r\ncontent-type: application/json\r\n\r\n{}\r\n--graphql",
            "\r\ncontent-type: application/json\r\n\r\n{\"payload\":null,\"errors\":[{\"message\":\"the stream reached its maximum age; reconnect\",\"extensions\":{\"code\":\"TOO_OLD\"}}]}\r\n--graphql--\r\n",
        ),
    ] {
        let mut response = fixture.open(post(accept, "subscription{quiet}")).await;
        let start = Instant::now();
        chunk(&mut response).await;
        let (mut heartbeats, mut rest) = (0, String::new());
        while let Some(bytes) = chunk(&mut response).await {
            if bytes == alive {
                heartbeats += 1;
                assert_eq!(start.elapsed(), SECOND * 15 * heartbeats);
            } else {
                rest.push_str(&bytes);
            }
        }
        let age = start.elapsed();
        assert!((SECOND * 2880..=SECOND * 4320).contains(&age), "{age:?}");
        assert!((age.as_secs() / 15).abs_diff(heartbeats.into()) <= 1, "{heartbeats} in {age:?}");
        assert_eq!(rest, cut);
    }
}

#[tokio::test(start_paused = true)]
async fn sent_update_postpones_the_next_heartbeat() {
    let fixture = fixture(StreamSettings::default());
    let mut response = fixture.open(post(SSE, "subscription{newest}")).await;
    let start = Instant::now();
    chunk(&mut response).await;
    tokio::join!(
        async {
            tokio::time::sleep(SECOND * 10).await;
            fixture.value.send_replace(1);
        },
        async {
            assert!(chunk(&mut response).await.unwrap().starts_with("event: next\n"));
            assert_eq!(
                (chunk(&mut response).await.unwrap().as_str(), start.elapsed()),
                (":\n\n", SECOND * 25)
            );
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_streams_without_complete() {
    let fixture = fixture(StreamSettings::default());
    let sse = fixture.open(post(SSE, "subscription{quiet}")).await;
    let parts = fixture.open(post(APOLLO, "subscription{quiet}")).await;
    let (sse, parts, ()) = tokio::join!(text(sse), text(parts), fixture.streams.drain(SECOND * 10));
    assert_eq!(sse, ":\n\n");
    assert!(parts.ends_with("\"extensions\":{\"code\":\"DRAINED\"}}]}\r\n--graphql--\r\n"), "{parts}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_refused_during_a_drain() {
    let fixture = fixture(StreamSettings::default());
    fixture.streams.drain(SECOND * 10).await;
    let refused = fixture.open(post(SSE, "subscription{quiet}")).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &HeaderValue::from(1)));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_answered_during_a_drain() {
    let fixture = fixture(StreamSettings::default());
    fixture.streams.drain(SECOND * 10).await;
    assert_eq!(fixture.open(post("application/json", "{hello}")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn invalid_stream_request_gets_an_http_error_status() {
    let fixture = fixture(StreamSettings { max_streams_per_client: 1, ..StreamSettings::default() });
    let with = |mut request: Request, name: &'static str, value: &'static str| {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    let _held = fixture.open(with(post(SSE, "subscription{quiet}"), "authorization", "Bearer other")).await;
    let quiet = || post(SSE, "subscription{quiet}");
    for (request, status, code) in [
        (with(quiet(), "authorization", "Bearer wrong"), 401, "UNAUTHENTICATED"),
        (with(quiet(), "origin", "https://evil.example"), 403, "ORIGIN_NOT_ALLOWED"),
        (with(get(SSE, "subscription{quiet}"), "origin", "null"), 403, "ORIGIN_NOT_ALLOWED"),
        (with(quiet(), "content-type", "text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (with(quiet(), "accept", "text/html"), 406, "NOT_ACCEPTABLE"),
        (with(quiet(), "accept", "application/json"), 422, "SUBSCRIPTION_NEEDS_STREAM"),
        (get(SSE, "mutation{touch}"), 405, "METHOD_NOT_ALLOWED"),
        (get("*/*", "subscription{quiet}"), 405, "METHOD_NOT_ALLOWED"),
        (get(SSE, ""), 422, "BAD_REQUEST"),
        (with(quiet(), "authorization", "Bearer other"), 429, "TOO_MANY_REQUESTS"),
    ] {
        let what = format!("{:?}", (request.method(), request.headers()));
        let response = fixture.open(request).await;
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(
            response.headers()["content-type"],
            crate::inbound::http::error::GRAPHQL_RESPONSE,
            "{what}"
        );
        let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body["errors"][0]["extensions"]["code"], code, "{what}");
    }
}

fn with_key(accept: &str, query: &str, key: &str) -> Request {
    let mut request = post(accept, query);
    request.headers_mut().insert("authorization", HeaderValue::try_from(format!("Bearer {key}")).unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn expired_credential_ends_a_quiet_stream() {
    let fixture = fixture(StreamSettings::default());
    let cut = "\"extensions\":{\"code\":\"CREDENTIAL_EXPIRED\"}}]}\r\n--graphql--\r\n";
    for (accept, key, last, lasts) in [(SSE, "key-70", ":\n\n", 70), (APOLLO, "key-100", cut, 30)] {
        let begun = Instant::now();
        let received = text(fixture.open(with_key(accept, "subscription{quiet}", key)).await).await;
        assert!(received.ends_with(last) && !received.contains("complete"), "{received}");
        let lasted = begun.elapsed();
        assert!((SECOND * lasts..SECOND * (lasts + 1)).contains(&lasted), "{key}: {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn expired_credential_ends_even_a_busy_stream() {
    let fixture = fixture(StreamSettings::default());
    let mut busy = fixture.open(with_key(SSE, "subscription{newest}", "key-60")).await;
    chunk(&mut busy).await;
    fixture.value.send_replace(1);
    assert!(chunk(&mut busy).await.unwrap().starts_with("event: next\n"));
    fixture.value.send_replace(2);
    tokio::time::advance(SECOND * 60).await;
    assert_eq!(chunk(&mut busy).await, None, "an answer that is ready after the end is not sent");
}

#[tokio::test(start_paused = true)]
async fn credential_revoked_during_authentication_opens_no_stream() {
    let fixture = fixture(StreamSettings::default());
    fixture.guests.shut();
    let refused = fixture.open(with_key(SSE, "subscription{quiet}", "key")).await;
    assert_eq!(refused.status(), 401);
}

#[test]
fn event_has_the_id_behind_which_a_client_resumes() {
    assert_eq!(sse::next(b"{}".to_vec(), Some("7")), "event: next\nid: 7\ndata: {}\n\n");
}

#[test]
fn line_break_between_tokens_does_not_split_the_sse_data() {
    assert_eq!(sse::next(b"{\n\"a\":\r\n1}".to_vec(), None), "event: next\ndata: { \"a\":  1}\n\n");
}
