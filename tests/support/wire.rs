//! An HTTP client on a raw socket: it sends the given bytes, valid or not, follows no redirect and logs nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A response as received.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        let read = serde_json::from_str(&self.body);
        assert!(read.is_ok(), "not JSON: {} {}", self.status, self.body);
        read.unwrap()
    }

    /// The `data` of a body without errors.
    pub(crate) fn data(&self) -> Value {
        let mut body = self.json();
        assert_eq!((self.status, body.get("errors")), (200, None), "{}", self.body);
        body["data"].take()
    }

    /// The code of the first error, and the response status.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let code = self.json()["errors"][0]["extensions"]["code"].as_str().unwrap_or("none").to_owned();
        (self.status, code)
    }
}

/// Sends these bytes on a new connection, and reads until the peer closes it.
pub(crate) async fn exchange(to: SocketAddr, request: &[u8]) -> Reply {
    let mut socket = TcpStream::connect(to).await.unwrap();
    // A server that rejects early may close before it has read everything: its response counts.
    socket.write_all(request).await.ok();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// An address that no request had before, for `X-Forwarded-For`: bad credentials are limited by address.
pub(crate) fn fresh_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0x0a00_0001);
    Ipv4Addr::from_bits(NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// The bytes of a request, with a body if there is one.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut lines = vec![
        format!("{method} {path} HTTP/1.1"),
        "host: localhost".to_owned(),
        "connection: close".to_owned(),
    ];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    if !body.is_empty() {
        lines.push(format!("content-length: {}", body.len()));
    }
    format!(
        "{}

{body}",
        lines.join(
            "
"
        )
    )
    .into_bytes()
}

/// Posts a GraphQL request, with a client key if there is one.
pub(crate) async fn post(to: SocketAddr, key: Option<&str>, body: &Value) -> Reply {
    let authorization = key.map(|key| format!("Bearer {key}"));
    let mut headers = vec![("content-type", "application/json"), ("accept", "application/json")];
    headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
    exchange(to, &request("POST", "/graphql", &headers, &body.to_string())).await
}

/// Gets a path.
pub(crate) async fn get(to: SocketAddr, path: &str) -> Reply {
    exchange(to, &request("GET", path, &[], "")).await
}
