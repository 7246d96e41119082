//! Peers that dawdle, against the real binary with short times: each is given up within its time, none holds more than a
//! connection, and another client is answered all the while.

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

const SECRETS: [(&str, &str); 2] = [("MIND_TOKEN", "t"), ("METRICS_KEY", "k")];
const TIMES: &str = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, idle_timeout: 3s, header_timeout: 1s, \
                     body_timeout: 4s, body_pace: 100B, write_timeout: 1s }";
/// How late a busy machine may be.
const LATE: Duration = Duration::from_secs(12);

/// A gateway whose upstreams answer nobody.
pub(super) async fn gateway(rest: &str) -> (Process, SocketAddr) {
    let config = Setup { rest: rest.to_owned(), ..Setup::default() };
    let config = Scratch::new(&config.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
    let mut gateway = Process::start(&["serve", "--config", config.path()], &SECRETS);
    let address = gateway.address("public").await;
    (gateway, address)
}

/// Sends what there is at once and then a piece each tenth of a second, until the other side closes: how long that took, and
/// what it said.
async fn dawdle(to: SocketAddr, first: &str, piece: &str) -> (Duration, String) {
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket.write_all(first.as_bytes()).await.unwrap();
    let began = Instant::now();
    let (mut read, mut write) = socket.split();
    let mut said = Vec::new();
    let trickle = async {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        loop {
            beat.tick().await;
            if write.write_all(piece.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let heard = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            read = read.read_to_end(&mut said) => drop(read),
            () = trickle => {}
        }
    });
    assert!(heard.await.is_ok(), "not given up: {first:?} {piece:?}");
    (began.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

/// Asks again and again until it is dropped, and counts in how many answers.
async fn others_go_on(to: SocketAddr, answered: &mut u32) {
    loop {
        let reply = wire::post(to, None, &json!({ "query": "{ sources { name } }" })).await;
        assert_eq!(reply.status, 200, "another client is not served: {}", reply.body);
        *answered += 1;
    }
}

#[tokio::test]
async fn whoever_dawdles_is_given_up_and_the_others_are_served() {
    let (gateway, to) = gateway(TIMES).await;
    let head = "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let announced = format!("{head}content-length: 2000\r\n\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let whole = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let second = Duration::from_secs(1);
    // what is sent, the time it is given, the status that is said
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
        // at the pace, and too long altogether
        (&announced, "xxxxxxxxxxxxxxxxxxxx", second * 4, "408"),
    ];
    let mut answered = 0;
    let all = futures_util::future::join_all(cases.map(|(first, piece, given, status)| async move {
        let (took, said) = dawdle(to, first, piece).await;
        let case = format!("{first:?} {piece:?}: {took:?} {said}");
        assert!(took + Duration::from_millis(100) >= given && took < given + LATE, "{case}");
        assert_eq!(said.split(' ').nth(1).unwrap_or_default(), status, "{case}");
    }));
    tokio::select! {
        _ = all => {}
        () = others_go_on(to, &mut answered) => {}
    }
    assert!(answered > 10, "{answered}");
    drop(gateway);
}

/// Asks for much and reads nothing of it.
#[tokio::test]
async fn whoever_takes_nothing_of_its_answers_is_given_up() {
    let (gateway, to) = gateway(TIMES).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(to).await.unwrap();
    let schema = "{ __schema { types { name description fields { name description } } } }";
    let url = super::in_url(schema);
    let ask = format!("GET {url} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let given_up =
        tokio::time::timeout(LIMIT, async { while socket.write_all(ask.as_bytes()).await.is_ok() {} });
    assert!(given_up.await.is_ok(), "asked on and on without reading, and never given up");
    assert!(gateway.resident() < 200 << 20, "{}", gateway.resident());
}

/// A connection that is between two requests stays, and one on which a stream is open is not idle.
#[tokio::test]
async fn whoever_keeps_to_the_rules_outlives_every_deadline() {
    let (_gateway, to) = gateway(TIMES).await;
    let stream = async {
        let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
        let body = json!({ "query": "subscription { jobFeed { sequence } }" }).to_string();
        let mut socket = TcpStream::connect(to).await.unwrap();
        socket.write_all(&wire::request("POST", "/graphql", &headers, &body)).await.unwrap();
        let mut read = Vec::new();
        let quiet = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut read)).await;
        assert!(quiet.is_err(), "a quiet stream was closed: {}", String::from_utf8_lossy(&read));
    };
    let keep = async {
        let mut socket = TcpStream::connect(to).await.unwrap();
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        for _ in 0..6 {
            beat.tick().await;
            socket.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut answer = [0; 4096];
            assert!(socket.read(&mut answer).await.unwrap() > 0, "closed between two requests");
        }
    };
    tokio::join!(stream, keep);
}
