//! Watchers of jobs on real sockets, by WebSocket or by SSE: clients of our own that read only on demand. Not here:
//! what the protocols forbid; the tests of the listeners cover that.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::server::{ANY, describe, external};

/// The limit of every wait: only a hung gateway reaches it.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);
/// How many sockets are opened at once, so that the system's accept queue holds them.
const AT_ONCE: usize = 100;
/// More open files than all tests together need.
const MOST_FILES: usize = 1 << 17;
/// The system's receive buffer of a narrow watcher, in bytes.
const NARROW: u32 = 4 * 1024;

/// How a watcher is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    Sse,
}

pub(crate) use Carrier::{Sse, WebSocket};

/// What a watcher receives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StreamEvent {
    /// An update.
    Update(Value),
    /// The operation is complete.
    Complete,
    /// The connection is closed, with a close code if there was one.
    Over(Option<u16>),
}

/// One subscription on one socket.
#[derive(Debug)]
pub(crate) struct Watcher(Wire);

#[derive(Debug)]
enum Wire {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Sse(Events),
}

/// An event stream in HTTP chunks.
#[derive(Debug)]
struct Events {
    socket: TcpStream,
    raw: Vec<u8>,
    text: Vec<u8>,
    ended: bool,
    /// The id of the last event that has one.
    last_id: Option<String>,
}

impl Watcher {
    /// Opens a stream of updates of these jobs. Reads none of them.
    pub(crate) async fn open(gateway: SocketAddr, carrier: Carrier, ids: &[&str]) -> Self {
        Self::open_as(gateway, carrier, ids, None).await
    }

    /// The same, with a client key or a token.
    pub(crate) async fn open_as(
        gateway: SocketAddr,
        carrier: Carrier,
        ids: &[&str],
        credential: Option<&str>,
    ) -> Self {
        Self::over(TcpStream::connect(gateway).await.unwrap(), carrier, ids, credential).await
    }

    /// The same, on a socket with a small receive buffer.
    pub(crate) async fn narrow(gateway: SocketAddr, carrier: Carrier, ids: &[&str]) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(NARROW).unwrap();
        Self::over(socket.connect(gateway).await.unwrap(), carrier, ids, None).await
    }

    async fn over(socket: TcpStream, carrier: Carrier, ids: &[&str], credential: Option<&str>) -> Self {
        let refs = ids.iter().map(|id| external("mind", id)).collect();
        Self::of_as(socket, carrier, refs, credential).await
    }

    /// The same for any jobs, with a client key unless it is empty.
    pub(crate) async fn of_client(
        gateway: SocketAddr,
        carrier: Carrier,
        refs: Vec<Value>,
        key: &str,
    ) -> Self {
        let key = Some(key).filter(|key| !key.is_empty());
        Self::of_as(TcpStream::connect(gateway).await.unwrap(), carrier, refs, key).await
    }

    /// The status with which an event stream is rejected.
    pub(crate) async fn refused(gateway: SocketAddr, key: &str) -> u16 {
        let query = json!({ "query": "subscription { jobFeed { kind } }" }).to_string();
        let authorization = format!("Bearer {key}");
        let headers = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream"),
            ("authorization", &authorization),
        ];
        super::wire::exchange(gateway, &super::wire::request("POST", "/graphql", &headers, &query))
            .await
            .status
    }

    /// The same for any jobs, on a connected socket.
    pub(crate) async fn of(socket: TcpStream, carrier: Carrier, refs: Vec<Value>) -> Self {
        Self::of_as(socket, carrier, refs, None).await
    }

    async fn of_as(socket: TcpStream, carrier: Carrier, refs: Vec<Value>, credential: Option<&str>) -> Self {
        let query = format!(
            "subscription($refs: [JobRef!]!) {{ jobUpdates(refs: $refs, maxStaleness: \"100ms\") \
             {{ kind sequence isFinal result {{ ... on Job {{ externalId }} }} result {ANY} }} }}"
        );
        let body = json!({ "query": query, "variables": { "refs": refs } });
        Self::asking(socket, carrier, &body, credential).await
    }

    /// Opens the stream of all changes, under the response name of the other subscription.
    pub(crate) async fn feed(gateway: SocketAddr, carrier: Carrier) -> Self {
        let query = format!(
            "subscription {{ jobUpdates: jobFeed {{ kind sequence isFinal result {{ ... on Job {{ externalId }} }} result {ANY} }} }}"
        );
        let socket = TcpStream::connect(gateway).await.unwrap();
        Self::asking(socket, carrier, &json!({ "query": query }), None).await
    }

    /// The same after a cursor, which an event stream sends as the id of the last event.
    pub(crate) async fn feed_after(gateway: SocketAddr, carrier: Carrier, after: &str) -> Self {
        let query = "subscription($after: String) { jobUpdates: jobFeed(after: $after) \
                     { kind sequence cursor result { ... on Job { externalId state } } } }";
        let socket = TcpStream::connect(gateway).await.unwrap();
        Self(match carrier {
            WebSocket => {
                let body = json!({ "query": query, "variables": { "after": after } });
                Wire::WebSocket(Box::new(subscribe(socket, &body, None).await))
            }
            Sse => {
                let header = format!("last-event-id: {after}\r\n");
                Wire::Sse(Events::open(socket, &json!({ "query": query }).to_string(), &header).await)
            }
        })
    }

    async fn asking(socket: TcpStream, carrier: Carrier, body: &Value, credential: Option<&str>) -> Self {
        let header = credential.map(|credential| format!("authorization: Bearer {credential}\r\n"));
        Self(match carrier {
            WebSocket => Wire::WebSocket(Box::new(subscribe(socket, body, credential).await)),
            Sse => Wire::Sse(Events::open(socket, &body.to_string(), &header.unwrap_or_default()).await),
        })
    }

    /// The id of the last event of an event stream that has one.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        match &self.0 {
            Wire::WebSocket(_) => None,
            Wire::Sse(events) => events.last_id.as_deref(),
        }
    }

    /// Receives the next event.
    pub(crate) async fn receive(&mut self) -> StreamEvent {
        let event = async {
            match &mut self.0 {
                Wire::WebSocket(socket) => receive(socket).await,
                Wire::Sse(events) => events.receive().await,
            }
        };
        let event = tokio::time::timeout(LIMIT, event).await;
        assert!(event.is_ok(), "nothing was received for {LIMIT:?}");
        event.unwrap()
    }

    /// Reads until the stream closes, whatever it sends before, and however long that takes.
    pub(crate) async fn until_over(&mut self) -> StreamEvent {
        loop {
            let event = match &mut self.0 {
                Wire::WebSocket(socket) => receive(socket).await,
                Wire::Sse(events) => events.receive().await,
            };
            if !matches!(event, StreamEvent::Update(_)) {
                return event;
            }
        }
    }

    /// Whether an event stream received its last chunk, and was not aborted.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(&self.0, Wire::Sse(events) if events.ended)
    }

    /// The next update.
    pub(crate) async fn update(&mut self) -> Value {
        let event = self.receive().await;
        assert!(matches!(event, StreamEvent::Update(_)), "{event:?}");
        let StreamEvent::Update(update) = event else { return Value::Null };
        update
    }

    /// A short description of the next update: its kind and its job, see [`describe`].
    pub(crate) async fn short(&mut self) -> String {
        let update = self.update().await;
        format!("{} {}", update["kind"].as_str().unwrap(), describe(&update["result"]))
    }

    /// Short descriptions of everything until the connection closes.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        loop {
            match self.receive().await {
                StreamEvent::Update(update) => {
                    rest.push(format!(
                        "{} {}",
                        update["kind"].as_str().unwrap(),
                        describe(&update["result"])
                    ));
                }
                StreamEvent::Complete => rest.push("complete".to_owned()),
                StreamEvent::Over(code) => {
                    rest.extend(code.map(|code| code.to_string()));
                    return rest;
                }
            }
            // a WebSocket stays open for other operations
            if matches!((&self.0, rest.last().map(String::as_str)), (Wire::WebSocket(_), Some("complete"))) {
                return rest;
            }
        }
    }

    /// Waits until this many bytes are unread.
    pub(crate) async fn unread(&self, bytes: usize) {
        let socket = match &self.0 {
            Wire::WebSocket(socket) => SockRef::from(socket.get_ref()),
            Wire::Sse(events) => SockRef::from(&events.socket),
        };
        let lie_there = || {
            let mut room = [MaybeUninit::uninit(); 64];
            socket.peek(&mut room).is_ok_and(|count| count == bytes)
        };
        settles("so much is unread", LIMIT, lie_there).await;
    }

    /// Resets the connection, as the system does for a killed process with unread data.
    pub(crate) fn reset(self) {
        let socket = match &self.0 {
            Wire::WebSocket(socket) => SockRef::from(socket.get_ref()),
            Wire::Sse(events) => SockRef::from(&events.socket),
        };
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Opens `count` watchers, alternately of both kinds; the jobs are distributed over them, one each.
pub(crate) async fn crowd(gateway: SocketAddr, count: usize, ids: &[&str]) -> Vec<Watcher> {
    room_for(2 * count + 500);
    let mut crowd = Vec::new();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(AT_ONCE) {
        let open = some.iter().map(|number| {
            let carrier = if number % 2 == 0 { WebSocket } else { Sse };
            let dealt = ids.get(number / 2 % ids.len()).copied();
            async move { Watcher::open(gateway, carrier, dealt.as_slice()).await }
        });
        crowd.extend(join_all(open).await);
    }
    crowd
}

/// Receives the next update of each watcher; it must be the same for all.
pub(crate) async fn all_receive(crowd: &mut [Watcher], expected: &str) {
    for event in join_all(crowd.iter_mut().map(Watcher::short)).await {
        assert_eq!(event, expected);
    }
}

/// Polls a condition that no socket reports.
pub(crate) async fn settles(what: &str, within: Duration, holds: impl Fn() -> bool + Send + Sync) {
    let settled = async {
        let mut again = tokio::time::interval(Duration::from_millis(5));
        while !holds() {
            again.tick().await;
        }
    };
    assert!(tokio::time::timeout(within, settled).await.is_ok(), "not within {within:?}: {what}");
}

/// Raises the limit of open files for this process and its children, where the system's default is lower: as far as
/// permitted, because concurrent tests need theirs.
pub(crate) fn room_for(files: usize) {
    // one at a time, so that none undoes what another has just raised
    static RAISING: Mutex<()> = Mutex::new(());
    let _raising = RAISING.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().skip(3).map(|number| number.parse().unwrap_or(usize::MAX));
    let (soft, hard) = (numbers.next().unwrap(), numbers.next().unwrap());
    if soft < files {
        let most = hard.min(MOST_FILES).max(files);
        let (limit, process) = (format!("--nofile={most}:"), std::process::id().to_string());
        let raised = Command::new("prlimit").args(["--pid", &process, &limit]).status();
        assert!(raised.is_ok_and(|raised| raised.success()), "raise the limit of open files to {files}");
    }
}

async fn subscribe(socket: TcpStream, body: &Value, credential: Option<&str>) -> WebSocketStream<TcpStream> {
    let mut request = "ws://localhost/graphql".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
    let config = WebSocketConfig::default().read_buffer_size(4 * 1024).max_message_size(None);
    let (mut socket, _) = client_async_with_config(request, socket, Some(config)).await.unwrap();
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": body });
    let payload = credential.map(|credential| json!({ "authorization": format!("Bearer {credential}") }));
    let init = json!({ "type": "connection_init", "payload": payload });
    socket.send(Message::text(init.to_string())).await.unwrap();
    let acknowledged = socket.next().await.unwrap().unwrap();
    assert_eq!(acknowledged.to_text().unwrap(), r#"{"type":"connection_ack"}"#);
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    socket
}

async fn receive(socket: &mut WebSocketStream<TcpStream>) -> StreamEvent {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                let mut message: Value = serde_json::from_str(&text).unwrap();
                return match message["type"].as_str() {
                    Some("next") => StreamEvent::Update(updated(message["payload"].take())),
                    Some("complete") => StreamEvent::Complete,
                    _ => StreamEvent::Update(message),
                };
            }
            Some(Ok(Message::Close(frame))) => {
                return StreamEvent::Over(frame.map(|frame| frame.code.into()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return StreamEvent::Over(None),
        }
    }
}

fn updated(mut answer: Value) -> Value {
    assert_eq!(answer.get("errors"), None, "{answer}");
    answer["data"]["jobUpdates"].take()
}

impl Events {
    async fn open(mut socket: TcpStream, body: &str, headers: &str) -> Self {
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             accept: text/event-stream\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { socket, raw: Vec::new(), text: Vec::new(), ended: false, last_id: None };
        let head = loop {
            if let Some(end) = find(&events.raw, b"\r\n\r\n") {
                break events.raw.drain(..end + 4).collect::<Vec<u8>>();
            }
            assert!(events.fill().await, "no answer");
        };
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
        events
    }

    async fn receive(&mut self) -> StreamEvent {
        loop {
            if let Some(end) = find(&self.text, b"\n\n") {
                let event: Vec<u8> = self.text.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                if let Some(fields) = event.strip_prefix("event: next\n") {
                    let data = match fields.strip_prefix("id: ").and_then(|fields| fields.split_once('\n')) {
                        Some((id, data)) => {
                            self.last_id = Some(id.to_owned());
                            data
                        }
                        None => fields,
                    };
                    let data = data.strip_prefix("data: ").unwrap();
                    return StreamEvent::Update(updated(serde_json::from_str(data).unwrap()));
                }
                if event.starts_with("event: complete\n") {
                    return StreamEvent::Complete;
                }
                assert!(event.starts_with(':'), "{event}");
            } else if !self.chunk() && (self.ended || !self.fill().await) {
                return StreamEvent::Over(None);
            }
        }
    }

    /// Moves one whole chunk to the text, if there is one.
    fn chunk(&mut self) -> bool {
        let Some(line) = find(&self.raw, b"\r\n") else { return false };
        let size = std::str::from_utf8(&self.raw[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let whole = line + 2 + size + 2;
        if self.raw.len() < whole {
            return false;
        }
        self.text.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
        self.raw.drain(..whole);
        self.ended = size == 0;
        true
    }

    async fn fill(&mut self) -> bool {
        self.socket.read_buf(&mut self.raw).await.is_ok_and(|read| read > 0)
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
