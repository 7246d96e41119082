//! Every input in which a caller can send a secret: the headers and URLs of a request, and the messages of a socket.

use std::fmt::Write as _;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::streams::LIMIT;
use crate::support::wire::{self, Reply};

/// The headers and URLs in which a caller could send a key, right or wrong, well-formed or not.
pub(super) async fn attempt(gateway: SocketAddr, key: &str) -> Vec<Reply> {
    let query = r#"{"query":"{ sources { name } }"}"#;
    let encoded: String = url::form_urlencoded::byte_serialize(key.as_bytes()).collect();
    let mut replies = Vec::new();
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("Bearer  {key} {key}")),
        ("authorization", format!("Basic {}", STANDARD_NO_PAD.encode(format!("user:{key}")))),
        ("authorization", key.to_owned()),
        ("x-api-key", key.to_owned()),
        ("cookie", format!("session={key}")),
        ("x-request-id", key.to_owned()),
        ("origin", format!("http://{key}")),
        ("accept", format!("application/json; key=\"{encoded}\"")),
        ("content-encoding", key.to_owned()),
    ] {
        let headers = [("content-type", "application/json"), (name, value.as_str())];
        replies.push(wire::exchange(gateway, &wire::request("POST", "/graphql", &headers, query)).await);
    }
    for path in [
        format!("/graphql?query=%7Bsources%7Bname%7D%7D&access_token={encoded}"),
        format!("/graphql?api_key={encoded}"),
        format!("/{encoded}"),
        format!("/graphql/{encoded}?{encoded}"),
    ] {
        replies.push(wire::get(gateway, &path).await);
    }
    let bearer = format!("Bearer {key}");
    let stream = r#"{"query":"subscription { jobUpdates(refs: [{ external: { source: \"nowhere\", externalId: \"a\" } }]) { isFinal } }"}"#;
    for accept in ["text/event-stream", "multipart/mixed;subscriptionSpec=\"1.0\""] {
        let headers =
            [("content-type", "application/json"), ("accept", accept), ("authorization", bearer.as_str())];
        replies.push(wire::exchange(gateway, &wire::request("POST", "/graphql", &headers, stream)).await);
    }
    for (name, value) in
        [("authorization", bearer.as_str()), ("origin", key), ("sec-websocket-protocol", key)]
    {
        let upgrade = [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", key)];
        let headers = [upgrade.as_slice(), &[(name, value)]].concat();
        replies.push(wire::exchange(gateway, &wire::request("GET", "/graphql", &headers, "")).await);
    }
    let headers = [("authorization", bearer.as_str()), ("prefer", key), ("if-none-match", key)];
    let path = format!("/v1/jobs/{encoded}/{encoded}");
    replies.push(wire::exchange(gateway, &wire::request("GET", &path, &headers, "")).await);
    replies
}

/// A socket on which each message is sent after the previous one was answered. Returns everything that the gateway sent
/// until then, the close reason included.
pub(super) async fn converse(gateway: SocketAddr, messages: &[String]) -> String {
    let mut request = "ws://localhost/graphql".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    let mut transcript = String::new();
    let talk = async {
        for message in messages {
            socket.send(Message::text(message.as_str())).await.ok();
            loop {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        transcript.push_str(&text);
                        transcript.push('\n');
                        break;
                    }
                    Some(Ok(Message::Close(frame))) => {
                        writeln!(transcript, "{frame:?}").unwrap();
                        return;
                    }
                    Some(Ok(
                        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_),
                    )) => {}
                    Some(Err(_)) | None => return,
                }
            }
        }
    };
    assert!(tokio::time::timeout(LIMIT, talk).await.is_ok(), "no answer to {}", messages.join(" "));
    transcript
}

/// The first message of a socket, with this authorization.
pub(super) fn init(authorization: &Value) -> String {
    json!({ "type": "connection_init", "payload": { "authorization": authorization } }).to_string()
}

/// The sockets on which a caller could send a secret in a wrong way, or a wrong one. `good` opens the socket.
pub(super) async fn send_garbage(gateway: SocketAddr, good: &str, secret: &str) -> String {
    let bearer = |key: &str| json!(format!("Bearer {key}"));
    let open = init(&bearer(good));
    let ping = |payload: Value| json!({ "type": "ping", "payload": payload }).to_string();
    let conversations = [
        vec![init(&bearer(secret))],
        vec![init(&json!(secret))],
        vec![init(&json!({ "bearer": secret }))],
        vec![json!({ "type": "connection_init", "payload": secret }).to_string()],
        vec![
            json!({ "type": "connection_init", "payload": { "Authorization": bearer(secret) } }).to_string(),
        ],
        vec![secret.to_owned()],
        vec![ping(json!({ "authorization": bearer(secret) }))],
        vec![open.clone(), ping(json!({ "authorization": bearer(secret) }))],
        vec![open.clone(), ping(json!({ "authorization": secret }))],
        vec![open.clone(), ping(json!({ "authorization": { "bearer": secret } }))],
        vec![open.clone(), json!({ "type": secret }).to_string()],
        vec![open.clone(), init(&bearer(secret))],
    ];
    let mut transcript = String::new();
    for messages in conversations {
        transcript.push_str(&converse(gateway, &messages).await);
    }
    transcript
}
