//! The bare broadcaster: a WebSocket and an SSE handler that send prepared bytes from one watch channel per job. No
//! protocol, no schema, no access check, no upstream: the cost of sockets themselves in this stack, with the small read
//! buffer of the gateway.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post};
use axum::serve::ListenerExt as _;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::message::render;
use super::servers::announce;

const READ_BUFFER: usize = 1024;
const ACK: &str = r#"{"type":"connection_ack"}"#;
const COMPLETE: &str = r#"{"id":"1","type":"complete"}"#;

/// The update of one job, in the form of each transport, serialized once for all watchers.
#[derive(Clone, Debug)]
struct JobUpdate {
    frame: Utf8Bytes,
    json: Arc<str>,
    is_final: bool,
}

type Jobs = Arc<[watch::Sender<JobUpdate>]>;

/// Serves until it is killed.
///
/// # Errors
/// When it cannot listen.
pub(crate) async fn serve(jobs: u32) -> anyhow::Result<()> {
    let jobs: Jobs = (0..jobs).map(|job| watch::Sender::new(JobUpdate::of(job, 1, false, now()))).collect();
    let routes = Router::new()
        .route("/websocket/{job}", any(websocket))
        .route("/sse/{job}", post(sse))
        .route("/change/{version}/{is_final}", post(change))
        .with_state(jobs);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    announce(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).ok();
    });
    axum::serve(listener, routes).await?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "not the gateway: it uses the machine's clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

impl JobUpdate {
    fn of(job: u32, version: u64, is_final: bool, at: Timestamp) -> Self {
        let json = render(job, version, is_final, at);
        Self {
            frame: format!(r#"{{"id":"1","type":"next","payload":{json}}}"#).into(),
            json: json.into(),
            is_final,
        }
    }
}

/// All jobs change at this moment.
async fn change(State(jobs): State<Jobs>, Path((version, is_final)): Path<(u64, bool)>) -> StatusCode {
    let at = now();
    for (job, sender) in (0..).zip(jobs.iter()) {
        sender.send_replace(JobUpdate::of(job, version, is_final, at));
    }
    StatusCode::NO_CONTENT
}

/// Updates from now on, starting with the current one, up to the last.
fn follow(jobs: &Jobs, job: usize) -> Option<impl stream::Stream<Item = JobUpdate> + Send + use<>> {
    let updates = jobs.get(job)?.subscribe();
    Some(stream::unfold((updates, true, false), async |(mut updates, first, over)| {
        if over || (!first && updates.changed().await.is_err()) {
            return None;
        }
        let now = updates.borrow_and_update().clone();
        let is_final = now.is_final;
        Some((now, (updates, false, is_final)))
    }))
}

async fn sse(State(jobs): State<Jobs>, Path(job): Path<usize>, _body: String) -> Response {
    let Some(updates) = follow(&jobs, job) else { return StatusCode::NOT_FOUND.into_response() };
    let events = updates.flat_map(|updates| {
        let next = Event::default().event("next").data(&*updates.json);
        let complete = updates.is_final.then(|| Event::default().event("complete").data(""));
        stream::iter([Some(next), complete].into_iter().flatten().map(Ok::<_, Infallible>))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// The same as `axum::extract::ws`, with the small buffer.
async fn websocket(State(jobs): State<Jobs>, Path(job): Path<usize>, mut request: Request) -> Response {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::try_from(key).ok());
    let (Some(updates), Some(accept)) = (follow(&jobs, job), accept) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let session = async move {
        let Ok(upgraded) = upgraded.await else { return };
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let mut updates = std::pin::pin!(updates);
        // the two messages of the client, whose content is not needed
        socket.next().await;
        if socket.send(Message::text(ACK)).await.is_err() {
            return;
        }
        loop {
            let sent = tokio::select! {
                received = socket.next() => match received {
                    Some(Ok(_)) => Ok(()),
                    _ => return,
                },
                next = updates.next() => {
                    let Some(updates) = next else {
                        socket.send(Message::text(COMPLETE)).await.ok();
                        return;
                    };
                    socket.send(Message::Text(updates.frame)).await
                }
            };
            if sent.is_err() {
                return;
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "not the gateway: it has no spawner")]
    drop(tokio::spawn(session));
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("graphql-transport-ws")),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
