//! Callers that send too much, against the real binary: they are rejected, memory stays flat, and another client is
//! served.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_tungstenite::tungstenite::Message;

use super::slow_clients::gateway;
use super::{clients, socket};
use crate::support::wire;

/// How much more memory the process may use after all of it.
const FLAT: u64 = 48 << 20;
const BODY: usize = 30 << 20;

/// Sends a body of 30 MiB, with a length or in chunks, as far as the server reads it: the answer.
async fn huge(to: SocketAddr, chunked: bool) -> String {
    let length =
        if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {BODY}") };
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer jg_busy\r\ncontent-type: application/json\r\n{length}\r\n\r\n"
    );
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = socket.split();
    let piece = if chunked {
        format!("10000\r\n{}\r\n", "x".repeat(0x10000)).into_bytes()
    } else {
        vec![b'x'; 0x10000]
    };
    let flood = async {
        for _ in 0..BODY / 0x10000 {
            if write.write_all(&piece).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut buffer = [0; 1024];
    let read = tokio::select! {
        read = read.read(&mut buffer) => read.unwrap_or(0),
        () = flood => 0,
    };
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

async fn bomb(to: SocketAddr, document: &str) -> (u16, String) {
    wire::post(to, Some("jg_busy"), &json!({ "query": document })).await.refusal()
}

/// Five thousand operations on one socket: how many are accepted, and how many rejected.
async fn operations(to: SocketAddr) -> (usize, usize) {
    let socket = socket(to, "jg_busy").await;
    let (mut write, mut read) = socket.split();
    let send = async {
        for id in 0..5_000 {
            let payload = json!({ "query": "subscription { jobFeed { sequence } }" });
            let message = json!({ "id": id.to_string(), "type": "subscribe", "payload": payload });
            write.send(Message::text(message.to_string())).await.unwrap();
        }
        write.send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
    };
    let receive = async {
        let mut refused = 0;
        loop {
            let message = read.next().await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let received: Value = serde_json::from_str(&text).unwrap();
            match received["type"].as_str().unwrap() {
                "pong" => return refused,
                "error" => refused += 1,
                other => assert_eq!(other, "error", "{text}"),
            }
        }
    };
    let ((), refused) = tokio::join!(send, receive);
    (5_000 - refused, refused)
}

async fn heads(to: SocketAddr) -> Vec<u16> {
    let many = "x-more: 1\r\n".repeat(500);
    let long = format!("x-long: {}\r\n", "x".repeat(1 << 20));
    let url = "x".repeat(1 << 20);
    let mut statuses = Vec::new();
    for (path, headers) in [("/", many.as_str()), ("/", long.as_str()), (url.as_str(), "")] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        statuses.push(wire::exchange(to, request.as_bytes()).await.status);
    }
    statuses
}

/// What the two clients and the process showed while one of them sent too much.
#[derive(Debug)]
struct Outcome {
    /// The floods that were answered in another way than by the refusal of their limit.
    accepted: Vec<String>,
    /// How many requests of the other client were answered, and the answers that were errors.
    answered: usize,
    failed: Vec<String>,
    /// The resident memory before the floods, and after them.
    resident: [u64; 2],
}

/// The outcome of one run, which takes long, for all tests of this file.
async fn outcome() -> &'static Outcome {
    static RUN: OnceCell<Outcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(flood())).await
}

/// Sends bodies, documents, operations and heads over their limits: those that were not refused as they should be.
async fn floods(to: SocketAddr, huges: usize, bombs: usize, sockets: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    for _ in 0..huges {
        for chunked in [false, true] {
            let buffer = huge(to, chunked).await;
            if !buffer.starts_with("HTTP/1.1 413 ") {
                accepted.push(format!("{chunked}: {buffer}"));
            }
        }
    }
    let many =
        |count: usize, piece: &dyn Fn(usize) -> String| (0..count).map(piece).collect::<Vec<_>>().concat();
    for _ in 0..bombs {
        for (document, code) in [
            (format!("{{ {} }}", many(10_000, &|n| format!("a{n}: __typename "))), "DOCUMENT_TOO_LARGE"),
            (format!("{{ {} }}", many(200, &|n| format!("a{n}: __typename "))), "DOCUMENT_TOO_COMPLEX"),
            (format!("{{ __typename {} }}", "@skip(if:false)".repeat(15_000)), "DOCUMENT_TOO_LARGE"),
            (format!("{{ __typename {} }}", "@skip(if:false) ".repeat(100)), "DOCUMENT_TOO_COMPLEX"),
            ("{".repeat(250_000), "DOCUMENT_TOO_LARGE"),
            (format!("{{ {} }}", "a ".repeat(120_000)), "DOCUMENT_TOO_LARGE"),
        ] {
            let answer = bomb(to, &document).await;
            if answer != (422, code.to_owned()) {
                accepted.push(format!("{answer:?} and not {code}"));
            }
        }
    }
    for _ in 0..sockets {
        let (let_in, refused) = operations(to).await;
        if (let_in, refused) != (200, 4_800) {
            accepted.push(format!("{let_in} operations on one socket"));
        }
    }
    let statuses = heads(to).await;
    if statuses != [431, 431, 431] {
        accepted.push(format!("heads: {statuses:?}"));
    }
    accepted
}

async fn flood() -> Outcome {
    // the rate is not what is tested here
    let options = "limits: { requests_per_second: 100000, burst: 100000 }";
    let rest = format!("{options}\n{}", clients());
    let (gateway, to) = gateway(&rest).await;
    let calm = async || wire::post(to, Some("jg_calm"), &json!({ "query": "{ sources { name } }" })).await;
    for _ in 0..50 {
        calm().await;
    }
    // all of it a few times, so that each thread has its buffers, and later growth would be a leak
    let mut accepted = Box::pin(floods(to, 1, 4, 1)).await;
    let before = gateway.resident();

    let (mut answered, mut failed) = (0, Vec::new());
    let others = async {
        loop {
            let reply = calm().await;
            if reply.status == 200 {
                answered += 1;
            } else {
                failed.push(format!("{} {}", reply.status, reply.body));
            }
        }
    };
    tokio::select! {
        more = Box::pin(floods(to, 5, 20, 3)) => accepted.extend(more),
        () = others => {}
    }
    Outcome { accepted, answered, failed, resident: [before, gateway.resident()] }
}

#[tokio::test]
async fn a_request_flood_is_rejected() {
    assert_eq!(outcome().await.accepted, [""; 0]);
}

#[tokio::test]
async fn a_request_flood_does_not_grow_the_memory() {
    let [before, after] = outcome().await.resident;
    assert!(after < before + FLAT, "{} MiB more", (after - before) >> 20);
}

#[tokio::test]
async fn another_client_is_served_during_a_request_flood() {
    let outcome = outcome().await;
    assert_eq!(outcome.failed, [""; 0]);
    assert!(outcome.answered > 20, "{}", outcome.answered);
}
