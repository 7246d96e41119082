//! The gateway client against a scripted peer over a real socket: what is retried, when, and for which jobs.

use std::pin::pin;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::follow::{FollowEvent, follow};

const KEY: &str = "jg_cAnaRy-of-the-gateway";
const STREAM: &str = "200 OK\r\ncontent-type: text/event-stream";

async fn peer() -> (TcpListener, GatewayClient) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let gateway = GatewayClient::new(url.parse().unwrap(), Some(KEY.into())).unwrap();
    (listener, gateway)
}

/// Accepts one request, and answers with a head and a body that ends with the connection. Returns the request.
async fn answer(listener: &TcpListener, head: &str, body: &str) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let request = request(&mut socket).await;
    let reply = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n{body}");
    socket.write_all(reply.as_bytes()).await.unwrap();
    request
}

async fn request(socket: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        socket.read_buf(&mut read).await.unwrap();
        let text = String::from_utf8_lossy(&read).into_owned();
        // the body is a single JSON object, and the request ends with it
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && serde_json::from_str::<Value>(body).is_ok()
        {
            return text;
        }
    }
}

fn external(id: &str) -> WireRef {
    WireRef::External { source: "mind".to_owned(), external_id: id.to_owned() }
}

fn event(id: &str, state: &str, is_final: bool) -> String {
    let job = json!({
        "__typename": "MindBridgeJob", "id": "opaque", "source": { "name": "mind" }, "externalId": id, "state": state,
        "isTerminal": is_final, "nativeState": null, "progress": null, "failure": null,
        "freshness": { "staleReason": null },
    });
    let update = json!({ "kind": "SNAPSHOT", "sequence": 1, "isFinal": is_final, "result": job });
    format!("event: next\ndata: {}\n\n", json!({ "data": { "jobUpdates": update } }))
}

fn follow_two(gateway: GatewayClient) -> impl futures_util::Stream<Item = FollowEvent> {
    // the lowest random value: pauses are as short as possible
    follow(gateway, vec![external("a"), external("b")], Some(Duration::from_secs(5)), FieldSet::Shown, || 0.0)
}

#[tokio::test]
async fn stream_request_has_the_url_key_and_staleness_of_the_options() {
    let (listener, gateway) = peer().await;
    let mut events = pin!(follow_two(gateway));
    let end = [event("a", "SUCCEEDED", true), event("b", "SUCCEEDED", true)].concat();
    let (request, _) = tokio::join!(answer(&listener, STREAM, &end), events.next());
    assert!(request.starts_with("POST /base/graphql HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: Bearer {KEY}\r\n")), "{request}");
    assert!(request.contains(r#""maxStaleness":"5s""#), "{request}");
}

#[tokio::test]
async fn aborted_stream_is_reopened_for_unfinished_jobs() {
    let (listener, gateway) = peer().await;
    let mut events = pin!(follow_two(gateway));
    let script = async {
        let first = [event("a", "SUCCEEDED", true), event("b", "RUNNING", false)].concat();
        answer(&listener, STREAM, &first).await;
        let second = [event("b", "SUCCEEDED", true), "event: complete\ndata:\n\n".to_owned()].concat();
        let request = answer(&listener, STREAM, &second).await;
        assert!(
            !request.contains(r#""externalId":"a""#) && request.contains(r#""externalId":"b""#),
            "{request}"
        );
    };
    let received = async {
        let mut received = Vec::new();
        while let Some(one) = events.next().await {
            let FollowEvent::Update(update) = one else { panic!("{one:?}") };
            received.push((update.answer.concerns(&external("a")), update.is_final));
        }
        received
    };
    let ((), received) = tokio::join!(script, received);
    assert_eq!(received, [(true, true), (false, false), (false, true)]);
}

#[tokio::test]
async fn retry_after_of_a_busy_gateway_sets_the_pause() {
    for (head, pause) in [
        ("503 Service Unavailable\r\nretry-after: 7", Duration::from_secs(7)),
        ("503 Service Unavailable", Duration::from_millis(500)),
        ("429 Too Many Requests\r\nretry-after: 90", Duration::from_secs(90)),
    ] {
        let (listener, gateway) = peer().await;
        let mut events = pin!(follow_two(gateway));
        let (_, received) = tokio::join!(answer(&listener, head, ""), events.next());
        let Some(FollowEvent::Failed { pause: found, .. }) = received else { panic!("{received:?}") };
        assert_eq!(found, pause, "{head}");
    }
}

#[tokio::test]
async fn permanent_error_ends_the_watch_without_showing_the_key() {
    let refused =
        r#"{"errors":[{"message":"no such field","extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}"#;
    let in_stream = format!("event: next\ndata: {refused}\n\nevent: complete\ndata:\n\n");
    for (head, body, expected) in [
        ("401 Unauthorized", r#"{"errors":[{"message":"unknown key"}]}"#, "(401): unknown key"),
        ("403 Forbidden", "", "(403)"),
        ("404 Not Found", "<html>", "(404)"),
        ("307 Temporary Redirect\r\nlocation: http://elsewhere/", "", "redirects are not followed"),
        ("200 OK\r\ncontent-type: text/html", "<html>", "check that --url is"),
        ("422 Unprocessable Entity", refused, "422: no such field"),
        (STREAM, in_stream.as_str(), "no such field"),
    ] {
        let (listener, gateway) = peer().await;
        let mut events = pin!(follow_two(gateway));
        let (_, received) = tokio::join!(answer(&listener, head, body), events.next());
        let Some(FollowEvent::GaveUp(error)) = received else { panic!("{head}: {received:?}") };
        assert!(error.to_string().contains(expected), "{head}: {error}");
        assert!(!format!("{error:?}").contains(KEY), "{head}: {error:?}");
        assert!(events.next().await.is_none(), "{head}: no event follows");
    }
}

#[tokio::test]
async fn incomplete_query_response_is_an_error() {
    let job = json!({
        "__typename": "JobProblem", "ref": { "id": null, "source": "mind", "externalId": "a" },
        "code": "NOT_FOUND", "message": "no such job",
    });
    let whole = json!({ "data": { "jobs": [job] } }).to_string();
    for (head, body, good) in [
        ("200 OK", whole.as_str(), true),
        ("294 Partial", whole.as_str(), true),
        ("200 OK", r#"{"data":{"jobs":[]}}"#, false),
        ("200 OK", r#"{"data":null,"errors":[{"message":"refs: too many"}]}"#, false),
        ("200 OK", "<html>", false),
        ("503 Service Unavailable", whole.as_str(), false),
    ] {
        let (listener, gateway) = peer().await;
        let refs = [external("a")];
        let (_, answers) =
            tokio::join!(answer(&listener, head, body), gateway.jobs(&refs, None, FieldSet::Shown));
        assert_eq!(answers.is_ok(), good, "{head} {body}: {answers:?}");
        assert!(answers.is_ok_and(|answers| answers[0].concerns(&refs[0])) == good, "{head} {body}");
    }
}

#[test]
fn invalid_url_or_key_is_refused_without_being_repeated() {
    let gateway = |url: &str, key: &str| GatewayClient::new(url.parse().unwrap(), Some(key.into())).map(drop);
    assert_eq!(gateway("https://gateway.example/jobs", KEY), Ok(()));
    for (url, key) in [
        ("ftp://gateway.example", KEY),
        ("http://me:hunter2@gateway.example", KEY),
        ("http://gateway.example/?hunter2=1", KEY),
        ("http://gateway.example", "hun\nter2"),
        ("http://gateway.example", "húnter2"),
        ("http://gateway.example", ""),
    ] {
        let refused = gateway(url, key).unwrap_err();
        assert!(!refused.to_string().contains("ter2"), "{refused}");
    }
}
