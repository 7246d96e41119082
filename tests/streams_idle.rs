//! Clients of a job that does not change for half an hour, on a paused clock: they send no messages of their own, and
//! stay connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderValue;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use jobgate::domain::job::Life;
use jobgate::inbound::router::PublicRoutes;
use jobgate::inbound::streams::StreamCounts;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_util::sync::CancellationToken;

use crate::support::ports::gateway;
use crate::support::public_listener::public;
use crate::support::wire;

const WEBSOCKETS: usize = 350;
const EVENT_STREAMS: usize = 150;
const QUIET: Duration = Duration::from_mins(30);

fn body(client: usize) -> Value {
    let refs = json!([{ "external": { "source": "mind", "externalId": format!("job{}", client % 50) } }]);
    let query = "subscription($refs: [JobRef!]!) { jobUpdates(refs: $refs) { kind isFinal result { ... on Job { state } } } }";
    json!({ "query": query, "variables": { "refs": refs } })
}

/// A connection to the whole HTTP server.
fn connect(app: &PublicRoutes) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let service = TowerToHyperService::new(app.clone());
    let http = hyper::server::conn::http1::Builder::new();
    let serving = http.serve_connection(TokioIo::new(theirs), service).with_upgrades();
    // it ends with its client
    #[expect(clippy::disallowed_methods, reason = "a task of the test")]
    tokio::spawn(async move { drop(serving.await) });
    ours
}

/// What a client receives until its operation is complete, each text with its time.
struct StreamLog {
    texts: Vec<(Duration, Value)>,
    signs_of_life: usize,
}

async fn by_websocket(app: &PublicRoutes, client: usize, snapshots: &AtomicUsize) -> StreamLog {
    let start = Instant::now();
    let mut request = "ws://gateway.example/graphql".into_client_request().unwrap();
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tokio_tungstenite::client_async(request, connect(app)).await.unwrap();
    socket.send(Message::text(r#"{"type":"connection_init"}"#)).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_text());
    let subscribe = json!({ "id": "1", "type": "subscribe", "payload": body(client) });
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    let mut received = StreamLog { texts: Vec::new(), signs_of_life: 0 };
    loop {
        // this client's library answers pings itself, as all do
        let message = socket.next().await.unwrap().unwrap();
        if message.is_ping() {
            received.signs_of_life += 1;
            continue;
        }
        assert!(message.is_text(), "{message:?}");
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if frame["type"] == "complete" {
            return received;
        }
        snapshots.fetch_add(1, Ordering::SeqCst);
        received.texts.push((start.elapsed(), frame["payload"]["data"]["jobUpdates"].clone()));
    }
}

async fn by_sse(app: &PublicRoutes, client: usize, snapshots: &AtomicUsize) -> StreamLog {
    let start = Instant::now();
    let mut socket = connect(app);
    let headers = [("content-type", "application/json"), ("accept", "text/event-stream")];
    socket.write_all(&wire::request("POST", "/graphql", &headers, &body(client).to_string())).await.unwrap();
    let mut received = StreamLog { texts: Vec::new(), signs_of_life: 0 };
    loop {
        let mut bytes = vec![0; 4096];
        // one event per chunk, and no reader is slow here: bytes that are read together arrived together
        let read = socket.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "the stream was closed");
        let text = String::from_utf8_lossy(bytes.get(..read).unwrap()).into_owned();
        received.signs_of_life += usize::from(text.contains("\r\n:\n\n"));
        for answer in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let frame: Value = serde_json::from_str(answer).unwrap();
            snapshots.fetch_add(1, Ordering::SeqCst);
            received.texts.push((start.elapsed(), frame["data"]["jobUpdates"].clone()));
        }
        if text.contains("event: complete") {
            return received;
        }
    }
}

/// What the clients of a job that does not change for long received.
struct IdleOutcome {
    /// The open streams, and the updates that they had received, before the job completed.
    quiet: (StreamCounts, usize),
    /// The logs of the streams, each with the seconds between two keep-alive messages.
    logs: Vec<(StreamLog, u64)>,
}

/// The outcome of one run, which takes long, for all tests of this file.
async fn outcome() -> &'static IdleOutcome {
    static RUN: OnceCell<IdleOutcome> = OnceCell::const_new();
    RUN.get_or_init(|| Box::pin(idle())).await
}

async fn idle() -> IdleOutcome {
    let gateway = gateway();
    gateway.jobs.start_following(CancellationToken::new());
    let start = Instant::now();
    gateway
        .mindbridge
        .respond_with(move |_| Ok(if start.elapsed() < QUIET { Life::Running } else { Life::Succeeded }));
    let (app, streams) = public(&gateway.jobs);
    let count = Arc::new(AtomicUsize::new(0));

    let websockets = join_all((0..WEBSOCKETS).map(|client| by_websocket(&app, client, &count)));
    let events = join_all((0..EVENT_STREAMS).map(|client| by_sse(&app, client, &count)));
    let quiet = async {
        tokio::time::sleep(QUIET.saturating_sub(start.elapsed())).await;
        (streams.counts(), count.load(Ordering::SeqCst))
    };
    let (websockets, events, quiet) = tokio::join!(websockets, events, quiet);
    let websockets = websockets.into_iter().map(|log| (log, 25));
    let logs = websockets.chain(events.into_iter().map(|log| (log, 15))).collect();
    IdleOutcome { quiet, logs }
}

/// All clients are still connected, and none has received more than the initial state.
#[tokio::test(start_paused = true)]
async fn idle_streams_stay_open() {
    let held = StreamCounts { websocket: WEBSOCKETS, sse: EVENT_STREAMS, multipart: 0 };
    assert_eq!(outcome().await.quiet, (held, WEBSOCKETS + EVENT_STREAMS));
}

#[tokio::test(start_paused = true)]
async fn idle_streams_receive_the_terminal_state() {
    let snapshot = json!({ "kind": "SNAPSHOT", "isFinal": false, "result": { "state": "RUNNING" } });
    let end = json!({ "kind": "ENDED", "isFinal": true, "result": { "state": "SUCCEEDED" } });
    for (received, _) in &outcome().await.logs {
        let [(_, first), (at, last)] = received.texts.as_slice() else { panic!("{:?}", received.texts) };
        assert_eq!((first, last), (&snapshot, &end));
        assert!(*at >= QUIET && *at < QUIET + Duration::from_mins(2), "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_streams_receive_regular_keep_alive_messages() {
    for (received, every) in &outcome().await.logs {
        let (at, _) = received.texts.last().unwrap();
        let expected = usize::try_from(at.as_secs() / every).unwrap();
        assert!(
            received.signs_of_life.abs_diff(expected) <= 1,
            "{} keep-alive messages in {at:?}",
            received.signs_of_life
        );
    }
}
