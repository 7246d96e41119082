//! Requests that are rejected before their body was read, on keep-alive connections: the next request on the same one
//! is answered, or the answer announces that the connection closes. A proxy in front reuses connections, and turns a
//! broken one into a 502.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{QUERY, SERVER, clients, rig};
use crate::support::streams::LIMIT;

const JSON: &str = "content-type: application/json";
const GOOD: &str = "authorization: Bearer jg_calm";
const BAD: &str = "authorization: Bearer jg_nobody";
const BODY: usize = 100_000;

/// A keep-alive connection.
pub(super) struct Kept(TcpStream);

/// The status, the head in lower case, and the body.
type Answer = (u16, String, String);

impl Kept {
    pub(super) async fn open(to: SocketAddr) -> Self {
        Self(TcpStream::connect(to).await.unwrap())
    }

    /// Sends as much as the peer reads.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.ok();
    }

    /// One answer with a `Content-Length`.
    pub(super) async fn answer(&mut self) -> Answer {
        let read = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
            self.0.read_exact(&mut body).await.unwrap();
            (head.get(9..12).unwrap().parse().unwrap(), head, String::from_utf8(body).unwrap())
        };
        tokio::time::timeout(LIMIT, read).await.unwrap()
    }

    /// Reads until the connection closes, which must not be a reset.
    async fn end(mut self) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(LIMIT, self.0.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(read.map_err(|error| error.kind()), Ok(0), "{}", String::from_utf8_lossy(&rest));
    }
}

fn head(line: &str, headers: &[&str]) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
    for header in headers {
        head = head + header + "\r\n";
    }
    head
}

/// A request with a body of 100 kB, with a length or in chunks.
pub(super) fn long(line: &str, headers: &[&str], chunked: bool) -> Vec<u8> {
    let head = head(line, headers);
    let body = "x".repeat(BODY);
    if chunked {
        let (a, b) = body.split_at(BODY / 2);
        let length = BODY / 2;
        format!("{head}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{a}\r\n{length:x}\r\n{b}\r\n0\r\n\r\n")
            .into()
    } else {
        format!("{head}content-length: {BODY}\r\n\r\n{body}").into()
    }
}

/// A valid request, for the end of a connection.
pub(super) fn good() -> Vec<u8> {
    let body = json!({ "query": QUERY }).to_string();
    format!("{}content-length: {}\r\n\r\n{body}", head("POST /graphql", &[JSON, GOOD]), body.len()).into()
}

#[tokio::test]
async fn a_refusal_before_the_body_keeps_the_connection() {
    let rig = rig(clients()).await;
    let cases: [(&str, &[&str], u16); 10] = [
        ("POST /graphql", &[JSON], 401),
        ("POST /graphql", &[JSON, BAD], 401),
        ("POST /graphql", &[JSON, "authorization: Basic x"], 401),
        ("POST /nowhere", &[JSON, GOOD], 404),
        ("PUT /graphql", &[JSON, GOOD], 405),
        ("POST /v1/jobs/mind/a", &[JSON, GOOD], 405),
        ("POST /", &[JSON, GOOD], 405),
        ("POST /graphql", &[JSON, GOOD, "accept: text/html"], 406),
        ("POST /graphql", &["content-type: text/plain", GOOD], 415),
        ("POST /graphql", &[JSON, GOOD, "origin: https://evil.example"], 403),
    ];
    for chunked in [false, true] {
        for (line, headers, status) in cases {
            let mut kept = Kept::open(rig.public).await;
            for _ in 0..2 {
                kept.send(&long(line, headers, chunked)).await;
                let (answered, head, _) = kept.answer().await;
                assert_eq!(answered, status, "{chunked} {line} {headers:?}");
                assert!(!head.contains("\r\nconnection:"), "{chunked} {head}");
            }
            kept.send(&good()).await;
            let (answered, _, body) = kept.answer().await;
            assert_eq!(answered, 200, "{chunked} {line} {headers:?}: {body}");
        }
    }
    let mut kept = Kept::open(rig.public).await;
    // eight of the requests above had a bad credential
    for number in 8..super::BAD_CREDENTIALS + 2 {
        kept.send(&long("POST /graphql", &[JSON, BAD], false)).await;
        let (status, head, _) = kept.answer().await;
        let limited = number >= super::BAD_CREDENTIALS;
        assert_eq!(status, if limited { 429 } else { 401 }, "{number}: {head}");
        assert_eq!(head.contains("\r\nretry-after: "), limited, "{head}");
    }
    let short = super::rig(format!("server: {{ {SERVER}, max_body: 50KiB }}\n{}", clients())).await;
    for chunked in [false, true] {
        let mut kept = Kept::open(short.public).await;
        kept.send(&long("POST /graphql", &[JSON, GOOD], chunked)).await;
        assert_eq!(kept.answer().await.0, 413);
        kept.send(&good()).await;
        assert_eq!(kept.answer().await.0, 200, "{chunked}");
    }
    let mut kept = Kept::open(rig.admin).await;
    kept.send(&long("POST /livez", &[], false)).await;
    assert_eq!(kept.answer().await.0, 405);
    kept.send(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(kept.answer().await.0, 200);
}

#[tokio::test]
async fn a_rejected_request_with_a_large_body_closes_the_connection() {
    let rig = rig(clients()).await;
    let announced = "content-length: 20000000\r\n\r\n";
    let chunked = "transfer-encoding: chunked\r\n\r\n10000\r\n";
    let some = "x".repeat(0x10000);
    for (headers, framing, status) in [
        (&[JSON, GOOD][..], announced, 413),
        // the rest of the chunk is never sent
        (&[JSON, BAD], chunked.strip_suffix('\n').unwrap(), 401),
        (&[JSON, BAD], chunked, 401),
    ] {
        let mut kept = Kept::open(rig.public).await;
        kept.send(format!("{}{framing}", head("POST /graphql", headers)).as_bytes()).await;
        let (answered, head, _) = kept.answer().await;
        assert_eq!(answered, status, "{headers:?} {framing}");
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        // a client that continues to send without reading is not reset
        for _ in 0..20 {
            kept.send(some.as_bytes()).await;
        }
        kept.end().await;
    }
}

/// A request that waits for a 100 before it sends its body.
fn expects(key: &str) -> String {
    let headers = [JSON, key, "expect: 100-continue", "content-length: 100000"];
    format!("{}\r\n", head("POST /graphql", &headers))
}

#[tokio::test]
async fn a_rejected_expect_continue_request_gets_no_100() {
    let rig = rig(clients()).await;
    let mut kept = Kept::open(rig.public).await;
    kept.send(expects(BAD).as_bytes()).await;
    let (status, head, _) = kept.answer().await;
    assert!(status == 401 && head.contains("\r\nconnection: close\r\n"), "{head}");
    kept.end().await;
}

#[tokio::test]
async fn an_accepted_expect_continue_request_gets_a_100() {
    let rig = rig(clients()).await;
    let mut kept = Kept::open(rig.public).await;
    kept.send(expects(GOOD).as_bytes()).await;
    assert_eq!(kept.answer().await.0, 100);
}

#[tokio::test]
async fn a_request_head_over_32_kib_is_answered_with_431() {
    let rig = rig(clients()).await;
    let head = |bytes: usize| {
        let start = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nx-long: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    for (bytes, status) in
        [(32 * 1024, 404), (32 * 1024 + 1, 431), (40_000, 431), (60_000, 431), (3_000_000, 431)]
    {
        let mut kept = Kept::open(rig.public).await;
        kept.send(head(bytes).as_bytes()).await;
        let (answered, head, _) = kept.answer().await;
        assert_eq!(answered, status, "{bytes}");
        if status == 431 {
            assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
            kept.end().await;
        }
    }
    // the second head on a connection has the same size
    let mut kept = Kept::open(rig.public).await;
    for (bytes, status) in [(32 * 1024, 404), (20_000, 404), (40_000, 431)] {
        kept.send(head(bytes).as_bytes()).await;
        assert_eq!(kept.answer().await.0, status, "{bytes}");
    }
}

#[tokio::test]
async fn a_request_with_an_invalid_host_is_rejected() {
    let rig = rig(String::new()).await;
    let cases = [
        ("GET /livez HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: local host\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: evil.example\r\n", 403),
        ("GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 403),
        ("GET http://localhost@evil.example/ HTTP/1.1\r\nhost: localhost\r\n", 400),
        ("GET http://localhost/ HTTP/1.1\r\nhost: evil.example\r\n", 200),
        ("GET http://localhost/ HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.0\r\n", 200),
    ];
    for (head, status) in cases {
        let mut kept = Kept::open(rig.public).await;
        kept.send(format!("{head}\r\n").as_bytes()).await;
        let (answered, _, body) = kept.answer().await;
        assert_eq!(answered, status, "{head}: {body}");
        assert!(status != 400 || body.contains("BAD_REQUEST"), "{body}");
    }
}
