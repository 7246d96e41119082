//! Streams of the real binary on real sockets: their share of its connections, and the effect of SIGTERM on them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::process::Process;
use crate::support::scratch::Scratch;
use crate::support::server::Setup;
use crate::support::streams::{LIMIT, room_for};
use crate::support::wire;

const SECRETS: [(&str, &str); 2] = [("MIND_TOKEN", "t"), ("METRICS_KEY", "k")];
const QUIET: &str = "subscription { jobFeed { sequence } }";

async fn websocket(to: SocketAddr) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{to}/graphql").into_client_request().unwrap();
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    socket.send(Message::text(r#"{"type":"connection_init"}"#)).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": { "query": QUIET } });
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    socket
}

async fn event_stream(to: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let body = json!({ "query": QUIET }).to_string();
    socket.write_all(&wire::request("POST", "/graphql", &headers, &body)).await.unwrap();
    // its first byte is sent at once, so it is open after one read
    assert!(socket.read_u8().await.is_ok());
    socket
}

async fn close_code(mut socket: WebSocketStream<TcpStream>) -> Option<u16> {
    let mut code = None;
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(Some(frame)) = message {
            code = Some(frame.code.into());
        }
    }
    code
}

async fn rest_of(mut socket: TcpStream) -> String {
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

/// A gateway whose upstreams do not answer.
async fn gateway(rest: &str) -> (Process, SocketAddr) {
    let config = Setup { rest: rest.to_owned(), ..Setup::default() };
    let config = Scratch::new(&config.yaml("http://127.0.0.1:1", "http://127.0.0.1:1"));
    let mut gateway = Process::start(&["serve", "--config", config.path()], &SECRETS);
    let address = gateway.address("public").await;
    (gateway, address)
}

/// What clients received after SIGTERM.
#[derive(Debug)]
struct Drained {
    /// The close code of each WebSocket, and when it was received.
    sockets: Vec<(Option<u16>, Duration)>,
    /// What each event stream received after its first byte.
    events: Vec<String>,
    /// The answer to a request that was half sent before the signal.
    answer: String,
    exit: (Option<i32>, String),
}

/// The outcome of one run, which takes long, for the tests of SIGTERM.
async fn drained() -> &'static Drained {
    static RUN: OnceCell<Drained> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(drain())).await
}

async fn drain() -> Drained {
    room_for(3_000);
    // the half request is open for longer than the window, so it may be slow; and so may a client that opens so many
    // streams
    let slow = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, header_timeout: 2m, \
                min_body_rate: 1B, request_timeout: 20m, drain_timeout: 10m }\n\
                streams: { drain_window: 10s, ping_interval: 10m }";
    let (gateway, address) = gateway(slow).await;
    let sockets = join_all((0..200).map(|_| websocket(address))).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    let body = json!({ "query": "{ __typename }" }).to_string();
    let request = wire::request("POST", "/graphql", &[("content-type", "application/json")], &body);
    let (first, second) = request.split_at(request.len() - 5);
    half.write_all(first).await.unwrap();
    // behind it in the accept queue: when these are answered it was accepted
    let events = join_all((0..50).map(|_| event_stream(address))).await;

    let start = Instant::now();
    gateway.signal("TERM").await;
    let sockets = async {
        let results = sockets.into_iter().map(async |socket| (close_code(socket).await, start.elapsed()));
        join_all(results).await
    };
    let events = join_all(events.into_iter().map(rest_of));
    let (sockets, events) = tokio::join!(sockets, events);
    // the request that was in flight all the time
    half.write_all(second).await.ok();
    let mut answer = String::new();
    half.read_to_string(&mut answer).await.ok();
    let (ended, output) = gateway.ended().await;
    Drained { sockets, events, answer, exit: (ended.code(), output) }
}

#[tokio::test]
async fn sigterm_closes_every_websocket_with_1012() {
    let sockets = &drained().await.sockets;
    assert!(sockets.iter().all(|(code, _)| *code == Some(1012)), "{sockets:?}");
}

#[tokio::test]
async fn sigterm_spreads_the_ends_of_streams_over_the_window() {
    let sockets = &drained().await.sockets;
    let first = sockets.iter().map(|(_, at)| *at).min().unwrap();
    let spread = sockets.iter().filter(|(_, at)| *at > first + Duration::from_secs(2)).count();
    // a low bound, since a machine suspended for half of the window delivers all events of that time at once
    assert!(spread >= 50, "{spread} of 200 came after the first fifth of the window");
}

#[tokio::test]
async fn sigterm_ends_event_streams_without_complete() {
    for text in &drained().await.events {
        assert!(text.ends_with(":\n\n\r\n0\r\n\r\n"), "an event stream ends with its last chunk: {text}");
    }
}

#[tokio::test]
async fn sigterm_completes_a_request_in_flight() {
    let drained = drained().await;
    assert!(drained.answer.ends_with(r#"{"data":{"__typename":"Query"}}"#), "{}", drained.answer);
}

#[tokio::test]
async fn sigterm_exits_with_0_after_the_drain() {
    let (code, output) = &drained().await.exit;
    assert_eq!(*code, Some(0), "{output}");
}

#[tokio::test]
async fn a_second_signal_skips_the_stream_drain_window() {
    room_for(3_000);
    let long = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, header_timeout: 2m, drain_timeout: 10m }\n\
                streams: { drain_window: 5m, ping_interval: 10m }";
    let (mut gateway, address) = gateway(long).await;
    // so many that the first signal alone would need 50 seconds, at ten per second
    let sockets = join_all((0..500).map(|_| websocket(address))).await;
    let start = Instant::now();
    gateway.signal("TERM").await;
    // two signals at once would count as one
    gateway.find("the first signal", |line| line.contains("shutting down").then_some(())).await;
    gateway.signal("TERM").await;
    let (ended, output) = gateway.ended().await;
    assert!(start.elapsed() < Duration::from_secs(40), "{output}");
    assert_eq!(ended.code(), Some(0), "{output}");
    drop(sockets);
}

#[tokio::test]
async fn a_websocket_holds_its_connection_permit_until_it_closes() {
    let one = "server: { listen: 127.0.0.1:0, admin_listen: 127.0.0.1:0, max_connections: 1 }";
    let (_gateway, address) = gateway(one).await;
    let held = websocket(address).await;
    let body = json!({ "query": "{ __typename }" });
    let mut response = std::pin::pin!(wire::post(address, None, &body));
    let waited = tokio::time::timeout(Duration::from_millis(200), response.as_mut()).await;
    assert!(waited.is_err(), "a second connection was served: {waited:?}");
    drop(held);
    assert_eq!(response.await.status, 200);
}

#[tokio::test]
async fn a_disconnected_client_releases_its_stream_permit() {
    let (_gateway, address) = gateway("streams: { max_streams_per_client: 1 }").await;
    // answered at once and closed, if there is capacity
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    let body = json!({ "query": "{ __typename }" }).to_string();
    let probe = wire::request("POST", "/graphql", &headers, &body);
    for reset in [false, true] {
        for transport in ["sse", "websocket"] {
            let socket = match transport {
                "sse" => event_stream(address).await,
                _ => websocket(address).await.into_inner(),
            };
            assert_eq!(
                wire::exchange(address, &probe).await.status,
                429,
                "{transport} occupies the only stream"
            );
            if reset {
                socket.set_zero_linger().unwrap();
            }
            drop(socket);
            let freed = async { while wire::exchange(address, &probe).await.status != 200 {} };
            let freed = tokio::time::timeout(LIMIT, freed).await;
            assert!(freed.is_ok(), "{transport}, reset: {reset}");
        }
    }
}
