//! Slow peers, against the real binary with short timeouts: each is disconnected in time, none uses more than a
//! connection, and another client is served all the time.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::Setup;
use crate::support::streams::LIMIT;
use crate::support::wire;

/// Two threads on every machine, since each has its own memory.
const ENVIRONMENT: [(&str, &str); 3] =
    [("MIND_TOKEN", "t"), ("METRICS_KEY", "k"), ("TOKIO_WORKER_THREADS", "2")];
const TIMES: &str = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, idle_timeout: 3s, header_timeout: 1s, \
                     request_timeout: 8s, min_body_rate: 100B }";
/// `header_timeout` and `idle_timeout` of these durations: a client of the test that is as slow itself is rightly
/// disconnected.
const HEADER: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(3);
/// How late a busy machine may be.
const LATE: Duration = Duration::from_secs(30);

/// A gateway whose upstreams do not answer.
pub(super) async fn gateway(rest: &str) -> (Process, SocketAddr) {
    let source = "budget: { per_second: 10000, per_hour: 1000000, concurrency: 500 }, status_timeout: 4s";
    let config = Setup { source, rest: rest.to_owned(), ..Setup::default() };
    let config = Scratch::new(&config.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
    let mut gateway = Process::start(&["serve", "--config", config.path()], &ENVIRONMENT);
    let address = gateway.address("public").await;
    (gateway, address)
}

/// A connection on which these bytes were sent at once, and when it was opened. Where the machine delayed that, the
/// gateway may have timed out already, which proves nothing: then it is another connection.
async fn opened(to: SocketAddr, first: &[u8]) -> (TcpStream, Instant) {
    loop {
        let began = Instant::now();
        let mut socket = TcpStream::connect(to).await.unwrap();
        let sent = socket.write_all(first).await;
        if began.elapsed() < HEADER / 2 {
            sent.unwrap();
            return (socket, began);
        }
    }
}

/// Sends the first bytes at once and then a piece each tenth of a second, until the peer closes: the duration, and the
/// answer.
async fn send_slowly(to: SocketAddr, first: &str, piece: &str) -> (Duration, String) {
    let (mut socket, began) = opened(to, first.as_bytes()).await;
    let (mut read, mut write) = socket.split();
    let mut bytes = Vec::new();
    let trickle = async {
        let mut interval = tokio::time::interval(Duration::from_millis(100));
        loop {
            interval.tick().await;
            if write.write_all(piece.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let received = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            read = read.read_to_end(&mut bytes) => drop(read),
            () = trickle => {}
        }
    });
    assert!(received.await.is_ok(), "not disconnected: {first:?} {piece:?}");
    (began.elapsed(), String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends requests until it is dropped, and counts the answers.
async fn others_go_on(to: SocketAddr, answered: &mut u32) {
    loop {
        let began = Instant::now();
        let reply = wire::post(to, None, &json!({ "query": "{ sources { name } }" })).await;
        // where the machine delayed this client it was a slow one itself, and is not counted
        let late = reply.status == 0 && began.elapsed() >= HEADER;
        assert!(reply.status == 200 || late, "another client is not served: {} {}", reply.status, reply.body);
        *answered += u32::from(!late);
    }
}

/// Runs one client of each slow kind, and checks that each is disconnected in time.
async fn run_slow_clients(to: SocketAddr) {
    let head = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: 2000\r\n\r\n");
    let long = format!("{head}content-length: 200000\r\n\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    // the first of these keeps the minimum rate for longer than a whole body may take, however late the next ones are
    let pieces = "x".repeat(400);
    let whole = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let second = Duration::from_secs(1);
    // what is sent, the timeout, the expected status
    let cases = [
        ("", "", second, ""),
        ("", "G", second, ""),
        (head, "x-more: 1\r\n", second, ""),
        (head, "", second, ""),
        (whole, "", second * 3, "404"),
        (whole, "\r", second, "404"),
        (&announced, "", second * 2, "408"),
        (&announced, "x", second * 2, "408"),
        (&chunked, "1\r\nx\r\n", second * 2, "408"),
        // at the minimum rate, and too long in total
        (&long, pieces.as_str(), second * 4, "408"),
    ];
    futures_util::future::join_all(cases.map(|(first, piece, given, status)| async move {
        let (took, bytes) = send_slowly(to, first, piece).await;
        let case = format!("{first:?} {piece:?}: {took:?} {bytes}");
        assert!(took + Duration::from_millis(100) >= given && took < given + LATE, "{case}");
        assert_eq!(bytes.split(' ').nth(1).unwrap_or_default(), status, "{case}");
    }))
    .await;
}

#[tokio::test]
async fn a_slow_client_is_disconnected_in_time() {
    let (_gateway, to) = gateway(TIMES).await;
    run_slow_clients(to).await;
}

#[tokio::test]
async fn slow_clients_do_not_prevent_answers_to_others() {
    let (_gateway, to) = gateway(TIMES).await;
    let mut answered = 0;
    // where the machine is so slow that the other client sends few requests, the slow ones run once more
    for _ in 0..5 {
        tokio::select! {
            () = run_slow_clients(to) => {}
            () = others_go_on(to, &mut answered) => {}
        }
        if answered > 10 {
            break;
        }
    }
    assert!(answered > 10, "{answered}");
}

/// Requests a large answer and reads none of it.
#[tokio::test]
async fn a_client_that_does_not_read_answers_is_disconnected() {
    let (gateway, to) = gateway(TIMES).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(to).await.unwrap();
    let schema = "{ __schema { types { name description fields { name description } } } }";
    let url = super::in_url(schema);
    let request = format!("GET {url} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let given_up =
        tokio::time::timeout(LIMIT, async { while socket.write_all(request.as_bytes()).await.is_ok() {} });
    assert!(given_up.await.is_ok(), "requested without reading, and never disconnected");
    assert!(gateway.resident() < 200 << 20, "{}", gateway.resident());
}

#[tokio::test]
async fn a_quiet_stream_is_not_closed_by_the_idle_timeout() {
    let (_gateway, to) = gateway(TIMES).await;
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let body = json!({ "query": "subscription { jobFeed { sequence } }" }).to_string();
    let (mut socket, _) = opened(to, &wire::request("POST", "/graphql", &headers, &body)).await;
    let mut read = Vec::new();
    let quiet = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut read)).await;
    assert!(quiet.is_err(), "a quiet stream was closed: {}", String::from_utf8_lossy(&read));
}

#[tokio::test]
async fn a_connection_stays_open_between_two_requests() {
    let (_gateway, to) = gateway(TIMES).await;
    let request = b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut kept = 0;
    while kept < 6 {
        let (mut socket, mut requested_at) = opened(to, request).await;
        let mut answer = [0; 4096];
        assert!(socket.read(&mut answer).await.unwrap() > 0, "the first request is not answered");
        kept = 1;
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        interval.tick().await;
        while kept < 6 {
            interval.tick().await;
            let before = std::mem::replace(&mut requested_at, Instant::now());
            let sent = socket.write_all(request).await.is_ok();
            if !sent || !socket.read(&mut answer).await.is_ok_and(|read| read > 0) {
                // where the machine delayed the test for so long, the connection was idle: once more from the start
                assert!(before.elapsed() >= IDLE, "closed between two requests");
                break;
            }
            kept += 1;
        }
    }
}
