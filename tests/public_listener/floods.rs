//! Callers that send too much, against the real binary: they are rejected, memory stays flat, and another client is
//! served.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

#[tokio::test]
async fn a_request_flood_is_rejected_without_memory_growth() {
    // the rate is not what is tested here
    let options = "limits: { requests_per_second: 100000, burst: 100000 }";
    let rest = format!("{options}\n{}", clients());
    let (gateway, to) = gateway(&rest).await;
    let calm = async || {
        let reply = wire::post(to, Some("jg_calm"), &json!({ "query": "{ sources { name } }" })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    };
    for _ in 0..50 {
        calm().await;
    }
    let floods = async |huges: usize, bombs: usize, sockets: usize| {
        for _ in 0..huges {
            for chunked in [false, true] {
                let buffer = huge(to, chunked).await;
                assert!(buffer.starts_with("HTTP/1.1 413 "), "{chunked}: {buffer}");
            }
        }
        let many = |count: usize, piece: &dyn Fn(usize) -> String| {
            (0..count).map(piece).collect::<Vec<_>>().concat()
        };
        for _ in 0..bombs {
            for (document, code) in [
                (format!("{{ {} }}", many(10_000, &|n| format!("a{n}: __typename "))), "DOCUMENT_TOO_LARGE"),
                (format!("{{ {} }}", many(200, &|n| format!("a{n}: __typename "))), "DOCUMENT_TOO_COMPLEX"),
                (format!("{{ __typename {} }}", "@skip(if:false)".repeat(15_000)), "DOCUMENT_TOO_LARGE"),
                (format!("{{ __typename {} }}", "@skip(if:false) ".repeat(100)), "DOCUMENT_TOO_COMPLEX"),
                ("{".repeat(250_000), "DOCUMENT_TOO_LARGE"),
                (format!("{{ {} }}", "a ".repeat(120_000)), "DOCUMENT_TOO_LARGE"),
            ] {
                assert_eq!(bomb(to, &document).await, (422, code.to_owned()));
            }
        }
        for _ in 0..sockets {
            let (let_in, refused) = operations(to).await;
            assert_eq!((let_in, refused), (200, 4_800));
        }
        assert_eq!(heads(to).await, [431, 431, 431]);
    };
    // all of it a few times, so that each thread has its buffers, and later growth would be a leak
    Box::pin(floods(1, 4, 1)).await;
    let before = gateway.resident();

    let mut answered = 0;
    let others = async {
        loop {
            calm().await;
            answered += 1;
        }
    };
    tokio::select! {
        () = Box::pin(floods(5, 20, 3)) => {}
        () = others => {}
    }
    assert!(answered > 20, "{answered}");
    let after = gateway.resident();
    assert!(after < before + FLAT, "{} MiB more", (after - before) >> 20);
}
