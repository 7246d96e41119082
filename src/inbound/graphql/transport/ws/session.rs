//! One socket from its first message to its close frame. One task, one timer; nothing is serialized before the socket
//! is ready for it, so a slow reader costs the coalesced state and no queue.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, TryFutureExt as _};
use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::message::{self, ClientMessage};
use super::operations::{OperationMessage, SocketOperations};
use super::text_frame::TextFrame;
use crate::domain::principal::Principal;
use crate::inbound::graphql::document::request::GraphqlRequest;
use crate::inbound::graphql::execution::answers::{AnswerStream, GraphqlAnswer};
use crate::inbound::graphql::execution::endpoint::{AdmissionError, GraphqlEndpoint};
use crate::inbound::http::error;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::inbound::streams::{
    ConnectionPermit, EndReason, OperationGuard, StreamGuard, StreamRegistry, Transport,
};
use crate::telemetry::trace::TraceContext;

/// The size of the read buffer. Allocated and zeroed for each socket, so it is small: most messages of a client fit, a
/// longer one grows it.
const READ_BUFFER: usize = 512;
/// How long a peer may take to read our close frame and disconnect.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive pings without a response. Two, so that a peer may be suspended for nearly two `pong_timeout`s, which are
/// more than a minute, while a dead one costs only the second ping.
const PINGS: u32 = 2;

/// What a session begins with.
pub(super) struct Opening {
    pub(super) endpoint: GraphqlEndpoint,
    pub(super) guard: StreamGuard,
    /// The client in the header of the upgrade, if there is one.
    pub(super) principal: Option<Principal>,
    /// Keeps the connection counted.
    pub(super) room: Option<ConnectionPermit>,
}

/// Runs a socket to its end.
pub(super) async fn run<S>(opening: Box<Opening>, socket: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // boxed with what is rare, so that the task, which lasts for hours, has no place for it several times
    let mut session = Box::pin(SocketSession::begin(opening, socket)).await;
    let timer = pin!(sleep_until(session.due()));
    let reason = session.serve(timer).await;
    let SocketSession { socket, operations, guard, unsent, room, .. } = *session;
    // its resources are free before the peer has read the reason
    drop(operations);
    guard.leave(reason);
    Box::pin(close(socket, unsent, reason)).await;
    drop(room);
}

struct SocketSession<S> {
    socket: WebSocketStream<S>,
    endpoint: GraphqlEndpoint,
    guard: StreamGuard,
    principal: Option<Principal>,
    operations: SocketOperations,
    /// The trace context of its operations; none if it is that of the upgrade.
    trace_context: Option<Box<TraceContext>>,
    /// The deadline of the client's `connection_init`; none once it was received.
    init_until: Option<Instant>,
    ping_at: Instant,
    /// The deadline of the next message of the peer; none while none is expected.
    pong_until: Option<Instant>,
    /// Pings sent since the last message of the peer.
    unanswered: u32,
    /// Whether the library may still have to send a pong.
    has_queued_pong: bool,
    /// The rest of a frame that was interrupted; the socket ends with it.
    unsent: Vec<u8>,
    room: Option<ConnectionPermit>,
}

/// What a socket reacts to.
enum SocketEvent {
    /// The stream must end.
    End(EndReason),
    /// The timer has fired.
    TimerFired,
    /// A message of the client, or the end of the connection.
    Received(Option<Result<Message, Error>>),
    /// An event of an operation.
    Operation(Arc<str>, OperationMessage),
}

/// Whether the socket continues, or why not.
type SocketStep = Result<(), EndReason>;

impl<S: AsyncRead + AsyncWrite + Unpin> SocketSession<S> {
    async fn begin(opening: Box<Opening>, socket: S) -> Box<Self> {
        let Opening { endpoint, guard, principal, room } = *opening;
        let settings = endpoint.streams().settings();
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(settings.max_message))
            .max_frame_size(Some(settings.max_message));
        let now = Instant::now();
        let init_until = now + settings.init_timeout;
        Box::new(Self {
            socket: WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await,
            init_until: Some(init_until),
            ping_at: now + settings.ping_interval,
            pong_until: None,
            unanswered: 0,
            operations: SocketOperations::default(),
            principal,
            trace_context: None,
            has_queued_pong: false,
            unsent: Vec::new(),
            room,
            endpoint,
            guard,
        })
    }

    /// Serves the socket with its one timer.
    async fn serve(&mut self, mut timer: Pin<&mut Sleep>) -> EndReason {
        loop {
            if let Err(reason) = self.step(timer.as_mut()).await {
                return reason;
            }
        }
    }

    async fn step(&mut self, mut timer: Pin<&mut Sleep>) -> SocketStep {
        let due = self.due();
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        match self.next_event(timer).await {
            SocketEvent::End(reason) => Err(reason),
            SocketEvent::TimerFired => self.tick().await,
            SocketEvent::Received(Some(Ok(message))) => Box::pin(self.receive(message)).await,
            SocketEvent::Received(Some(Err(error))) => Err(reason_of(&error)),
            SocketEvent::Received(None) => Err(EndReason::ClientLeft),
            SocketEvent::Operation(id, OperationMessage::Answer(answer)) => self.answer(&id, answer).await,
            SocketEvent::Operation(id, OperationMessage::Complete) => {
                self.send_about(&id, "complete", None).await
            }
        }
    }

    /// The next event. The operations come last, so that they do not delay the other events; but when the task is woken,
    /// it is mostly by an operation, and the other events are polled before the next one.
    fn next_event<'a>(
        &'a mut self,
        mut timer: Pin<&'a mut Sleep>,
    ) -> impl Future<Output = SocketEvent> + use<'a, S> {
        let mut was_polled = false;
        poll_fn(move |cx| {
            let is_woken = std::mem::replace(&mut was_polled, true);
            if is_woken && let Poll::Ready((id, message)) = self.operations.poll_next(cx) {
                return Poll::Ready(SocketEvent::Operation(id, message));
            }
            if let Poll::Ready(reason) = self.guard.poll_ended(cx) {
                return Poll::Ready(SocketEvent::End(reason));
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(SocketEvent::TimerFired);
            }
            if let Poll::Ready(received) = self.socket.poll_next_unpin(cx) {
                return Poll::Ready(SocketEvent::Received(received));
            }
            if is_woken {
                return Poll::Pending;
            }
            self.operations.poll_next(cx).map(|(id, message)| SocketEvent::Operation(id, message))
        })
    }

    /// Sends an answer of an operation.
    async fn answer(&mut self, id: &str, answer: GraphqlAnswer) -> SocketStep {
        if !answer.is_refusal() {
            self.guard.update_delivered();
        }
        let (kind, payload) = match &answer {
            GraphqlAnswer::Update(update) => ("next", Some(update.json())),
            GraphqlAnswer::Result(json) => ("next", str::from_utf8(json).ok()),
            GraphqlAnswer::Refused(errors) => ("error", str::from_utf8(errors).ok()),
        };
        self.send_about(id, kind, payload).await
    }

    /// The time of the timer: whatever is due first.
    fn due(&self) -> Instant {
        let due = self.pong_until.unwrap_or(self.ping_at).min(self.guard.ends().0);
        self.init_until.map_or(due, |init| due.min(init))
    }

    async fn tick(&mut self) -> SocketStep {
        let now = Instant::now();
        let (ends, reason) = self.guard.ends();
        if ends <= now {
            return Err(reason);
        }
        if self.init_until.is_some_and(|until| until <= now) {
            return Err(EndReason::InitTimeout);
        }
        if self.pong_until.unwrap_or(self.ping_at) <= now {
            if self.unanswered >= PINGS {
                return Err(EndReason::DeadPeer);
            }
            self.unanswered += 1;
            self.pong_until = Some(now + self.endpoint.streams().settings().pong_timeout);
            return self.put(Message::Ping(Bytes::new())).await;
        }
        Ok(())
    }

    /// Records that the peer is alive.
    fn mark_alive(&mut self) {
        self.pong_until = None;
        self.unanswered = 0;
        self.ping_at = Instant::now() + self.endpoint.streams().settings().ping_interval;
    }

    async fn receive(&mut self, message: Message) -> SocketStep {
        // any message counts
        self.mark_alive();
        match message {
            Message::Text(text) => match ClientMessage::parse(&text)? {
                ClientMessage::Init(payload) => self.init(&payload).await,
                ClientMessage::Ping(payload) => {
                    self.put(Message::text(message::pong(payload.as_deref()))).await
                }
                ClientMessage::Renew(payload) => self.renew(&payload).await,
                ClientMessage::Pong => Ok(()),
                ClientMessage::Subscribe { id, parameters } => self.subscribe(&id, parameters).await,
                ClientMessage::Complete { id } => {
                    self.operations.stop(&id);
                    Ok(())
                }
            },
            Message::Binary(_) => Err(EndReason::Binary),
            Message::Ping(_) => {
                // the library has queued the pong; it goes out with the next read, or before the next message
                self.has_queued_pong = true;
                Ok(())
            }
            Message::Pong(_) | Message::Frame(_) => Ok(()),
            Message::Close(_) => {
                // reading on sends the response to it
                drop(timeout(CLOSE_TIMEOUT, self.socket.next()).await);
                Err(EndReason::ClientLeft)
            }
        }
    }

    /// The credential of the payload is used like one in the header, and takes precedence over it.
    async fn init(&mut self, payload: &Map<String, Value>) -> SocketStep {
        if self.init_until.take().is_none() {
            return Err(EndReason::SecondInit);
        }
        let principal = match (message::credential(payload)?, self.principal.take()) {
            (None, Some(principal)) => principal,
            (presented, _) => self.authenticate(presented.as_ref())?,
        };
        self.admit(principal)?;
        self.trace_context = message::trace_context(payload);
        self.send(message::ACK).await
    }

    /// Replaces the credential of the socket, for the same client with the same rights: the running operations were
    /// admitted by those.
    async fn renew(&mut self, payload: &Map<String, Value>) -> SocketStep {
        let fresh = self.authenticate(message::credential(payload)?.as_ref())?;
        let acknowledged = self.init_until.is_none();
        let same = self.principal.as_ref().is_some_and(|held| held.is_same_client(&fresh));
        if !acknowledged || !same {
            return Err(EndReason::Forbidden);
        }
        // each requires the check of a signature
        self.endpoint.client_limits().pace(&fresh).map_err(|_| EndReason::Overload)?;
        self.admit(fresh)?;
        self.send(message::RENEWED).await
    }

    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, EndReason> {
        self.endpoint.authenticate(presented).map_err(|refusal| {
            error::log(refusal.kind(), "the message has no valid credential");
            match (refusal.kind(), presented) {
                (RefusalKind::CredentialExpired, _) => EndReason::CredentialExpired,
                (RefusalKind::CredentialUnverified, _) => EndReason::CredentialUnverified,
                (_, None) => EndReason::CredentialMissing,
                (_, Some(_)) => EndReason::CredentialUnknown,
            }
        })
    }

    fn admit(&mut self, principal: Principal) -> SocketStep {
        self.endpoint.admit_stream(&mut self.guard, &principal).map_err(|why| match why {
            AdmissionError::Full(_) => EndReason::Overload,
            AdmissionError::Revoked => EndReason::Revoked,
        })?;
        self.principal = Some(principal);
        Ok(())
    }

    async fn subscribe(&mut self, id: &str, parameters: GraphqlRequest) -> SocketStep {
        let (None, Some(principal)) = (self.init_until, &self.principal) else {
            return Err(EndReason::NotAcknowledged);
        };
        if self.operations.holds(id) {
            return Err(EndReason::DuplicateId);
        }
        match self.prepare(principal.clone(), parameters) {
            Ok((answers, guard)) => {
                self.operations.start(id, answers, guard);
                Ok(())
            }
            Err(refusal) => self.answer(id, GraphqlAnswer::refused(refusal)).await,
        }
    }

    fn prepare(
        &self,
        principal: Principal,
        parameters: GraphqlRequest,
    ) -> Result<(AnswerStream, OperationGuard), HttpRefusal> {
        let limit = self.endpoint.streams().settings().max_operations;
        let too_many = |message: &'static str| HttpRefusal::new(RefusalKind::TooManyOperations, message);
        if self.operations.len() >= limit {
            return Err(too_many(
                "operation limit reached for this connection (max_operations); \
                complete some operations, or open another connection",
            )
            .with("limit", "max_operations")
            .with("value", limit));
        }
        let guard = self.guard.operation().map_err(|_| {
            too_many(
                "operation limit reached for this client (max_operations_per_client); complete \
                some operations",
            )
            .with("limit", "max_operations_per_client")
        })?;
        self.endpoint.client_limits().pace(&principal)?;
        let _entered = self.trace_context.as_ref().map(|trace_context| trace_context.enter());
        let prepared = self.endpoint.prepare(parameters, None, principal, |_| Ok(()))?;
        Ok((self.endpoint.run(prepared, Transport::WebSocket), guard))
    }

    async fn send(&mut self, text: &'static str) -> SocketStep {
        self.put(Message::text(text)).await
    }

    /// Sends a message about an operation, with a payload that is JSON already.
    async fn send_about(&mut self, id: &str, kind: &'static str, payload: Option<&str>) -> SocketStep {
        // what the library has to send precedes the frame that is written past it
        if std::mem::take(&mut self.has_queued_pong) {
            let flushed = self.socket.flush();
            until_sent(&mut self.guard, self.endpoint.streams(), flushed).await?;
        }
        let opening = message::opening(id, kind, payload.is_some());
        let mut frame = TextFrame::new(&opening, payload.unwrap_or_default(), message::END);
        let socket = self.socket.get_mut();
        let sending = poll_fn(|cx| frame.poll_write(socket, cx)).map_err(Error::Io);
        let sent = until_sent(&mut self.guard, self.endpoint.streams(), sending).await;
        if sent.is_err() {
            self.unsent = frame.rest();
        }
        self.note_sent(sent?);
        Ok(())
    }

    /// Sends, as long as the peer accepts it and the stream need not end.
    async fn put(&mut self, message: Message) -> SocketStep {
        let sending = self.socket.send(message);
        let sent = until_sent(&mut self.guard, self.endpoint.streams(), sending).await?;
        self.note_sent(sent);
        Ok(())
    }

    /// If a message waited, the peer freed buffer space, so it reads; its own messages were not read meanwhile.
    fn note_sent(&mut self, waited: Waited) {
        if waited == Waited::Yes {
            self.mark_alive();
        }
    }
}

/// Whether the peer did not accept a message at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    No,
    Yes,
}

/// Waits until a message is sent, as long as the peer accepts it and the stream need not end.
async fn until_sent(
    guard: &mut StreamGuard,
    streams: &StreamRegistry,
    sending: impl Future<Output = Result<(), Error>>,
) -> Result<Waited, EndReason> {
    let mut sending = pin!(sending);
    if let Some(sent) = sending.as_mut().now_or_never() {
        return sent.map(|()| Waited::No).map_err(|error| reason_of(&error));
    }
    let pong_deadline = Instant::now() + streams.settings().pong_timeout * PINGS;
    let (ends, over) = guard.ends();
    let (until, reason) =
        if ends < pong_deadline { (ends, over) } else { (pong_deadline, EndReason::SlowPeer) };
    // boxed, since most messages are sent at once
    let waiting = async {
        tokio::select! {
            biased;
            sent = sending => sent.map(|()| Waited::Yes).map_err(|error| reason_of(&error)),
            reason = guard.end_reason() => Err(reason),
            () = sleep_until(until) => Err(reason),
        }
    };
    Box::pin(waiting).await
}

fn reason_of(error: &Error) -> EndReason {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => EndReason::MessageTooBig,
        Error::Utf8(_) => EndReason::NotUtf8,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::Capacity(_)
        | Error::WriteBufferFull(_)
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => EndReason::ClientLeft,
        Error::Protocol(_) | Error::AttackAttempt => EndReason::BrokenFrames,
    }
}

/// Sends the close frame, if there is one to send, and waits briefly for the peer to read it: a socket that is dropped
/// with unread data is reset, and the reset can overtake the frame.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocketStream<S>,
    unsent: Vec<u8>,
    reason: EndReason,
) {
    let Some((code, text)) = reason.close() else { return };
    let frame = CloseFrame { code: CloseCode::from(code), reason: text.into() };
    let farewell = async {
        if socket.get_mut().write_all(&unsent).await.is_err() {
            return;
        }
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        let wire = socket.get_mut();
        if wire.shutdown().await.is_err() {
            return;
        }
        let mut rest = vec![0; 1024];
        while wire.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    if timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
        tracing::debug!("websocket peer did not close the connection");
    }
}
