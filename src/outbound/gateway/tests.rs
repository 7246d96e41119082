//! The road to a gateway against a peer that answers by script, over a real socket: what is asked again, when, and for
//! which jobs.

use std::pin::pin;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::outbound::system::SystemClock;
use crate::ports::entropy::Entropy;

/// The lowest draw: pauses are as short as they get.
#[derive(Debug)]
struct Lowest;

impl Entropy for Lowest {
    fn unit(&self) -> f64 {
        0.0
    }
}

const KEY: &str = "jg_cAnaRy-of-the-gateway";
const STREAM: &str = "200 OK\r\ncontent-type: text/event-stream";

async fn peer() -> (TcpListener, Gateway) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base/", listener.local_addr().unwrap());
    let gateway = Gateway::new(url.parse().unwrap(), Some(KEY.into()), Arc::new(SystemClock)).unwrap();
    (listener, gateway)
}

/// Takes one request, and answers with a head and a body that ends with the connection. Gives the request.
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
        // the body is the one JSON object, and its end is the request's
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && serde_json::from_str::<Value>(body).is_ok()
        {
            return text;
        }
    }
}

fn external(id: &str) -> Ref {
    Ref::External { source: "mind".to_owned(), external_id: id.to_owned() }
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

fn follow_two(gateway: Gateway) -> impl futures_util::Stream<Item = News> {
    follow(gateway, vec![external("a"), external("b")], Some(Duration::from_secs(5)), Arc::new(Lowest))
}

#[tokio::test]
async fn a_cut_stream_is_opened_again_for_what_has_not_ended() {
    let (listener, gateway) = peer().await;
    let mut news = pin!(follow_two(gateway));
    let script = async {
        let first = [event("a", "SUCCEEDED", true), event("b", "RUNNING", false)].concat();
        let asked = answer(&listener, STREAM, &first).await;
        assert!(asked.starts_with("POST /base/graphql HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("authorization: Bearer {KEY}\r\n")), "{asked}");
        assert!(asked.contains(r#""maxStaleness":"5s""#), "{asked}");
        let second = [event("b", "SUCCEEDED", true), "event: complete\ndata:\n\n".to_owned()].concat();
        let asked = answer(&listener, STREAM, &second).await;
        assert!(!asked.contains(r#""externalId":"a""#) && asked.contains(r#""externalId":"b""#), "{asked}");
    };
    let heard = async {
        let mut heard = Vec::new();
        while let Some(one) = news.next().await {
            let News::Told(update) = one else { panic!("{one:?}") };
            heard.push((update.answer.concerns(&external("a")), update.is_final));
        }
        heard
    };
    let ((), heard) = tokio::join!(script, heard);
    assert_eq!(heard, [(true, true), (false, false), (false, true)]);
}

#[tokio::test]
async fn a_busy_gateway_is_left_alone_for_as_long_as_it_asks() {
    for (head, pause) in [
        ("503 Service Unavailable\r\nretry-after: 7", Duration::from_secs(7)),
        ("503 Service Unavailable", Duration::from_millis(500)),
        ("429 Too Many Requests\r\nretry-after: 90", Duration::from_secs(90)),
    ] {
        let (listener, gateway) = peer().await;
        let mut news = pin!(follow_two(gateway));
        let (_, heard) = tokio::join!(answer(&listener, head, ""), news.next());
        let Some(News::Trouble { pause: found, .. }) = heard else { panic!("{heard:?}") };
        assert_eq!(found, pause, "{head}");
    }
}

#[tokio::test]
async fn what_cannot_heal_is_given_up_and_said_without_the_key() {
    let refused =
        r#"{"errors":[{"message":"no such field","extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}"#;
    let in_stream = format!("event: next\ndata: {refused}\n\nevent: complete\ndata:\n\n");
    for (head, body, said) in [
        ("401 Unauthorized", r#"{"errors":[{"message":"unknown key"}]}"#, "(401): unknown key"),
        ("403 Forbidden", "", "(403)"),
        ("404 Not Found", "<html>", "(404)"),
        ("307 Temporary Redirect\r\nlocation: http://elsewhere/", "", "redirects are not followed"),
        ("200 OK\r\ncontent-type: text/html", "<html>", "check that --url is"),
        ("422 Unprocessable Entity", refused, "422: no such field"),
        (STREAM, in_stream.as_str(), "no such field"),
    ] {
        let (listener, gateway) = peer().await;
        let mut news = pin!(follow_two(gateway));
        let (_, heard) = tokio::join!(answer(&listener, head, body), news.next());
        let Some(News::GaveUp(trouble)) = heard else { panic!("{head}: {heard:?}") };
        assert!(trouble.to_string().contains(said), "{head}: {trouble}");
        assert!(!format!("{trouble:?}").contains(KEY), "{head}: {trouble:?}");
        assert!(news.next().await.is_none(), "{head}: nothing comes after it");
    }
}

#[tokio::test]
async fn an_answer_to_a_question_is_whole_or_trouble() {
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
        let (_, answers) = tokio::join!(answer(&listener, head, body), gateway.jobs(&refs, None));
        assert_eq!(answers.is_ok(), good, "{head} {body}: {answers:?}");
        assert!(answers.is_ok_and(|answers| answers[0].concerns(&refs[0])) == good, "{head} {body}");
    }
}

#[test]
fn an_address_or_a_key_that_cannot_be_used_is_refused_without_being_repeated() {
    let gateway = |url: &str, key: &str| {
        Gateway::new(url.parse().unwrap(), Some(key.into()), Arc::new(SystemClock)).map(drop)
    };
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
