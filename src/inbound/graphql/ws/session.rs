//! One socket from its first message to its close frame. One task, one timer; nothing is rendered before the socket can
//! take it, so a slow reader costs the engine's coalesced state and no queue.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
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
use super::operations::{Operations, Said};
use crate::domain::principal::Principal;
use crate::inbound::error::{self, Kind, Refusal};
use crate::inbound::graphql::http::answers::{Answer, Answers};
use crate::inbound::graphql::http::body::Parameters;
use crate::inbound::graphql::http::{Door, NoSeat};
use crate::inbound::streams::{EndReason, OperationSeat, Seat, Transport};
use crate::telemetry::trace::Place;

/// Bytes read at once. Held and zeroed for each socket, so it is small: most messages of a client fit, a longer one grows it.
const READ_BUFFER: usize = 1024;
/// How long a peer may take to read our close frame and hang up.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Pings in a row that may stay without an answer. Two, so that a peer may stand still for nearly two `pong_timeout`s, which
/// are more than a minute, while a dead one costs no more than the second.
const PINGS: u32 = 2;

/// Serves a socket to its end. `principal` is whom the header of the upgrade named, if it did.
pub(super) async fn run<S>(door: Door, socket: S, seat: Seat, principal: Option<Principal>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = door.streams().settings();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(settings.max_message))
        .max_frame_size(Some(settings.max_message));
    let now = Instant::now();
    let init_until = now + settings.init_timeout;
    let mut session = Session {
        socket: WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await,
        init_until: Some(init_until),
        ping_at: now + settings.ping_interval,
        pong_until: None,
        unanswered: 0,
        timer: Box::pin(sleep_until(init_until)),
        operations: Operations::default(),
        principal,
        place: None,
        door,
        seat,
    };
    let reason = session.serve().await;
    let Session { socket, operations, seat, .. } = session;
    // whatever it held is free before the peer has read why
    drop(operations);
    seat.leave(reason);
    close(socket, reason).await;
}

struct Session<S> {
    socket: WebSocketStream<S>,
    door: Door,
    seat: Seat,
    principal: Option<Principal>,
    operations: Operations,
    /// Where its operations belong in the client's traces; none for where the upgrade does.
    place: Option<Box<Place>>,
    timer: Pin<Box<Sleep>>,
    /// Until when the client must have sent its `connection_init`; none once it has.
    init_until: Option<Instant>,
    ping_at: Instant,
    /// Until when the peer must be heard of; none while nothing is awaited.
    pong_until: Option<Instant>,
    /// Pings sent since the peer was heard of.
    unanswered: u32,
}

/// Whether the socket goes on, or why not.
type Next = Result<(), EndReason>;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    async fn serve(&mut self) -> EndReason {
        loop {
            if let Err(reason) = self.turn().await {
                return reason;
            }
        }
    }

    async fn turn(&mut self) -> Next {
        self.arm();
        tokio::select! {
            reason = self.seat.told() => Err(reason),
            () = &mut self.timer => self.tick().await,
            received = self.socket.next() => match received {
                Some(Ok(message)) => self.receive(message).await,
                Some(Err(error)) => Err(reason_of(&error)),
                None => Err(EndReason::ClientLeft),
            },
            (id, said) = self.operations.next() => match said {
                Said::Answer(Answer::Result(json)) => {
                    self.seat.told_update();
                    self.send(message::about(&id, "next", Some(&json))).await
                }
                Said::Answer(Answer::Refused(errors)) => {
                    self.send(message::about(&id, "error", Some(&errors))).await
                }
                Said::Complete => self.send(message::about(&id, "complete", None)).await,
            },
        }
    }

    /// Sets the one timer to whatever is due first.
    fn arm(&mut self) {
        let mut due = self.pong_until.unwrap_or(self.ping_at).min(self.seat.ends().0);
        if let Some(init) = self.init_until {
            due = due.min(init);
        }
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
    }

    async fn tick(&mut self) -> Next {
        let now = Instant::now();
        let (ends, reason) = self.seat.ends();
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
            self.pong_until = Some(now + self.door.streams().settings().pong_timeout);
            return self.put(Message::Ping(Bytes::new())).await;
        }
        Ok(())
    }

    /// There was a sign of the peer's life.
    fn lives(&mut self) {
        self.pong_until = None;
        self.unanswered = 0;
        self.ping_at = Instant::now() + self.door.streams().settings().ping_interval;
    }

    async fn receive(&mut self, message: Message) -> Next {
        // whatever it is
        self.lives();
        match message {
            Message::Text(text) => match ClientMessage::parse(&text)? {
                ClientMessage::Init(payload) => self.init(&payload).await,
                ClientMessage::Ping(payload) => self.send(message::pong(payload.as_deref())).await,
                ClientMessage::Renew(payload) => self.renew(&payload).await,
                ClientMessage::Pong => Ok(()),
                ClientMessage::Subscribe { id, parameters } => self.subscribe(&id, parameters).await,
                ClientMessage::Complete { id } => {
                    self.operations.stop(&id);
                    Ok(())
                }
            },
            Message::Binary(_) => Err(EndReason::Binary),
            // the library has queued the pong; it goes out with the next read
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
            Message::Close(_) => {
                // reading on sends the answer to it
                drop(timeout(LINGER, self.socket.next()).await);
                Err(EndReason::ClientLeft)
            }
        }
    }

    /// The credential of the payload counts as one in the header would, and goes before it.
    async fn init(&mut self, payload: &Map<String, Value>) -> Next {
        if self.init_until.take().is_none() {
            return Err(EndReason::SecondInit);
        }
        let principal = match (message::credential(payload)?, self.principal.take()) {
            (None, Some(principal)) => principal,
            (presented, _) => self.recognise(presented.as_ref())?,
        };
        self.seat(principal)?;
        self.place = message::place(payload);
        self.send(message::ACK.to_owned()).await
    }

    /// Takes a credential in the place of the one that the socket was opened with, from the same client with the same rights:
    /// whatever is under way was let in by those.
    async fn renew(&mut self, payload: &Map<String, Value>) -> Next {
        let fresh = self.recognise(message::credential(payload)?.as_ref())?;
        let acknowledged = self.init_until.is_none();
        let same = self.principal.as_ref().is_some_and(|held| held.is_same_client(&fresh));
        if !acknowledged || !same {
            return Err(EndReason::Forbidden);
        }
        // each costs a check of a signature
        self.door.client_limits().pace(&fresh).map_err(|_| EndReason::Overload)?;
        self.seat(fresh)?;
        self.send(message::RENEWED.to_owned()).await
    }

    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, EndReason> {
        self.door.authenticate(presented).map_err(|refusal| {
            error::log(refusal.kind(), "the message has no valid credential");
            match (refusal.kind(), presented) {
                (Kind::CredentialExpired, _) => EndReason::CredentialExpired,
                (Kind::CredentialUnverified, _) => EndReason::CredentialUnverified,
                (_, None) => EndReason::CredentialMissing,
                (_, Some(_)) => EndReason::CredentialUnknown,
            }
        })
    }

    fn seat(&mut self, principal: Principal) -> Next {
        self.door.seat(&mut self.seat, &principal).map_err(|why| match why {
            NoSeat::Full(_) => EndReason::Overload,
            NoSeat::Revoked => EndReason::Revoked,
        })?;
        self.principal = Some(principal);
        Ok(())
    }

    async fn subscribe(&mut self, id: &str, parameters: Parameters) -> Next {
        let (None, Some(principal)) = (self.init_until, &self.principal) else {
            return Err(EndReason::NotAcknowledged);
        };
        if self.operations.holds(id) {
            return Err(EndReason::DuplicateId);
        }
        match self.prepare(principal.clone(), parameters) {
            Ok((answers, seat)) => {
                self.operations.start(id, answers, seat);
                Ok(())
            }
            Err(refusal) => match Answer::refused(refusal) {
                Answer::Refused(json) | Answer::Result(json) => {
                    self.send(message::about(id, "error", Some(&json))).await
                }
            },
        }
    }

    fn prepare(
        &self,
        principal: Principal,
        parameters: Parameters,
    ) -> Result<(Answers, OperationSeat), Refusal> {
        let limit = self.door.streams().settings().max_operations;
        let too_many = |message: &'static str| Refusal::new(Kind::TooManyOperations, message);
        if self.operations.len() >= limit {
            return Err(too_many(
                "operation limit reached for this connection (max_operations); \
                complete some operations, or open another connection",
            )
            .with("limit", "max_operations")
            .with("value", limit));
        }
        let seat = self.seat.operation().map_err(|_| {
            too_many(
                "operation limit reached for this client (max_operations_per_client); complete \
                some operations",
            )
            .with("limit", "max_operations_per_client")
        })?;
        self.door.client_limits().pace(&principal)?;
        let _entered = self.place.as_ref().and_then(|place| place.enter());
        let prepared = self.door.prepare(parameters, principal, |_| Ok(()))?;
        Ok((self.door.run(prepared, Transport::WebSocket), seat))
    }

    async fn send(&mut self, text: String) -> Next {
        self.put(Message::text(text)).await
    }

    /// Sends, as long as the peer takes it and nobody tells the stream to end.
    async fn put(&mut self, message: Message) -> Next {
        let patience = Instant::now() + self.door.streams().settings().pong_timeout * PINGS;
        let (ends, over) = self.seat.ends();
        let (until, reason) = if ends < patience { (ends, over) } else { (patience, EndReason::SlowPeer) };
        {
            let mut sending = std::pin::pin!(self.socket.send(message));
            if let Some(sent) = sending.as_mut().now_or_never() {
                return sent.map_err(|error| reason_of(&error));
            }
            tokio::select! {
                biased;
                sent = sending => sent.map_err(|error| reason_of(&error))?,
                reason = self.seat.told() => return Err(reason),
                () = sleep_until(until) => return Err(reason),
            }
        }
        // there was no room, and the peer made some: it reads, and what it said meanwhile was not looked at
        self.lives();
        Ok(())
    }
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

/// Sends the close frame, if there is one to send, and waits a little for the peer to read it: a socket that is dropped
/// with something unread is reset, and the reset can overtake the frame.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, reason: EndReason) {
    let Some((code, text)) = reason.close() else { return };
    let frame = CloseFrame { code: CloseCode::from(code), reason: text.into() };
    let farewell = async {
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
    if timeout(LINGER, farewell).await.is_err() {
        tracing::debug!("websocket peer did not close the connection");
    }
}
