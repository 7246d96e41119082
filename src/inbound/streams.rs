//! The one registry of streams, whatever carries them: who holds how many, how old one may get, and how all of them end
//! when the process does. It knows no protocol: a transport asks its [`StreamGuard`] when to end and why.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::principal::Principal;
use crate::telemetry::meters;

mod origins;
mod reason;

pub use origins::Origins;
pub use reason::EndReason;

/// The slowest pace of a drain: fewer streams than fill the window end sooner than its end. Ten that come back in a second are no load.
const DRAIN_PACE: Duration = Duration::from_millis(100);
/// How far the maximum age of a stream is spread, in each direction.
const AGE_JITTER: f64 = 0.2;

/// What streams hold to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// How long a WebSocket client may take until its `connection_init`.
    pub init_timeout: Duration,
    /// How long a WebSocket may be silent until it is pinged.
    pub ping_interval: Duration,
    /// How long each of two pings in a row is waited for, and half of how long a peer may take nothing of what is sent.
    pub pong_timeout: Duration,
    /// How often an event stream says that it is alive.
    pub heartbeat: Duration,
    /// How old a stream gets, give or take a fifth.
    pub max_age: Duration,
    /// Operations under way on one WebSocket.
    pub max_operations: usize,
    /// Streams that one client may hold, of every kind.
    pub max_streams_per_client: usize,
    /// Operations that one client may have under way, over all its streams.
    pub max_operations_per_client: usize,
    /// Longest message of a WebSocket client, in bytes.
    pub max_message: usize,
    /// The pages that may open a stream.
    pub origins: Origins,
    /// Over what time all streams are ended when the process is told to stop.
    pub drain_window: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            init_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(35),
            heartbeat: Duration::from_secs(15),
            max_age: Duration::from_hours(1),
            max_operations: 200,
            max_streams_per_client: 1000,
            max_operations_per_client: 5000,
            max_message: 64 * 1024,
            origins: Origins::default(),
            drain_window: Duration::from_secs(10),
        }
    }
}

/// What carries a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `graphql-transport-ws`.
    WebSocket,
    /// GraphQL-SSE, distinct connections.
    Sse,
    /// Apollo's multipart subscriptions.
    Multipart,
}

impl Transport {
    /// The word of logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Multipart => "multipart",
        }
    }
}

/// The place of the connection that a stream came by, as an extension of its request: a WebSocket outlives the connection's
/// own task, and holds on to this so that it is still counted.
#[derive(Clone)]
pub struct ConnectionPermit(pub Arc<dyn std::any::Any + Send + Sync>);

impl fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

type SpawnTask = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

/// All streams of the process. A clone is cheap and means the same registry.
#[derive(Clone)]
pub struct StreamRegistry(Arc<RegisteredStreams>);

struct RegisteredStreams {
    settings: ArcSwap<StreamSettings>,
    spawn: Box<SpawnTask>,
    held: Mutex<HeldStream>,
}

#[derive(Default)]
struct HeldStream {
    next: u64,
    draining: bool,
    counts: StreamCounts,
    open: HashMap<u64, OpenStream>,
    clients: HashMap<Arc<str>, StreamUsage>,
}

struct OpenStream {
    holder: Option<Principal>,
    end: oneshot::Sender<EndReason>,
}

#[derive(Default)]
struct StreamUsage {
    streams: usize,
    operations: usize,
}

/// How many streams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamCounts {
    /// Those of `graphql-transport-ws`.
    pub websocket: usize,
    /// Event streams of GraphQL-SSE.
    pub sse: usize,
    /// Multipart subscriptions.
    pub multipart: usize,
}

impl StreamCounts {
    fn of(&mut self, transport: Transport) -> &mut usize {
        match transport {
            Transport::WebSocket => &mut self.websocket,
            Transport::Sse => &mut self.sse,
            Transport::Multipart => &mut self.multipart,
        }
    }
}

/// Why a stream or an operation finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLimitReached {
    /// The process is about to end.
    Draining,
    /// The client holds as many as one client may.
    Client,
}

impl StreamRegistry {
    /// An empty registry. `spawn` starts the task of a WebSocket, which outlives the request it came by.
    pub fn new(
        settings: StreamSettings,
        spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        let settings = ArcSwap::from_pointee(settings);
        Self(Arc::new(RegisteredStreams { settings, spawn: Box::new(spawn), held: Mutex::default() }))
    }

    /// What streams hold to now.
    pub fn settings(&self) -> Arc<StreamSettings> {
        self.0.settings.load_full()
    }

    /// Has streams hold to something else. One that is open keeps its age and the size of its messages, and holds to the
    /// rest from its next step on; none is ended because there are now more than there may be.
    pub fn set_settings(&self, settings: StreamSettings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Starts the task of a stream.
    pub(super) fn spawn(&self, task: BoxFuture<'static, ()>) {
        (self.0.spawn)(task);
    }

    /// Takes a place for a stream; dropping the seat gives it back. A client that is not known yet is claimed for later.
    ///
    /// # Errors
    /// When the process drains, or the client holds as many as it may.
    pub fn open(
        &self,
        transport: Transport,
        holder: Option<&Principal>,
    ) -> Result<StreamGuard, StreamLimitReached> {
        let mut held = self.0.lock();
        if held.draining {
            return Err(StreamLimitReached::Draining);
        }
        let client = holder.map(|holder| held.claim(holder.name(), &self.settings())).transpose()?;
        let id = held.next;
        held.next += 1;
        let (end, ended) = oneshot::channel();
        held.open.insert(id, OpenStream { holder: holder.cloned(), end });
        *held.counts.of(transport) += 1;
        drop(held);
        meters::stream_opened(transport.word());
        let settings = self.settings();
        let spread = 1.0 + AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        Ok(StreamGuard {
            streams: self.clone(),
            id,
            transport,
            client,
            ended,
            opened: Instant::now(),
            updates: 0,
            span: tracing::Span::current(),
            old_at: Instant::now() + settings.max_age.mul_f64(spread),
            expires_at: None,
            why: EndReason::ClientLeft,
        })
    }

    /// How many streams there are now.
    pub fn counts(&self) -> StreamCounts {
        self.0.lock().counts
    }

    /// Ends every stream now whose holder does not stand any more, and says how many. One that nobody holds yet goes on.
    pub fn review(&self, is_valid: impl Fn(&Principal) -> bool) -> usize {
        let held = self.0.lock();
        let holders = held.open.iter().filter_map(|(id, open)| Some((*id, open.holder.clone()?)));
        let holders: Vec<_> = holders.collect();
        drop(held);
        // asked with the registry free: streams open and close meanwhile
        let fallen = holders.into_iter().filter(|(_, holder)| !is_valid(holder));
        let fallen: HashMap<u64, Principal> = fallen.collect();
        let mut held = self.0.lock();
        // whoever came in anew meanwhile, with another credential, was recognised by what holds now
        let ended = held
            .open
            .extract_if(|id, open| open.holder.as_ref().is_some_and(|now| fallen.get(id) == Some(now)));
        let ended: Vec<OpenStream> = ended.map(|(_, open)| open).collect();
        drop(held);
        let count = ended.len();
        for open in ended {
            end(open, EndReason::Revoked);
        }
        count
    }

    /// Lets no stream in any more, and tells each to end: spread over the window, in no order, so that those who come back
    /// do not come at once. Returns when the last is told; what they still hold is counted by whoever runs them.
    ///
    /// Dropping it tells the rest at once.
    pub async fn drain(&self, window: Duration) {
        let mut open: Vec<OpenStream> = {
            let mut held = self.0.lock();
            held.draining = true;
            held.open.drain().map(|(_, open)| open).collect()
        };
        let Ok(count) = u32::try_from(open.len()) else { return };
        let Some(pace) = window.checked_div(count) else { return };
        let pace = pace.min(DRAIN_PACE);
        fastrand::shuffle(&mut open);
        let start = Instant::now();
        for (index, open) in (0_u32..).zip(open) {
            tokio::time::sleep_until(start + pace.mul_f64(f64::from(index) + fastrand::f64())).await;
            end(open, EndReason::Drained);
        }
    }
}

/// A stream that has just ended by itself needs no telling.
fn end(open: OpenStream, reason: EndReason) {
    open.end.send(reason).ok();
}

impl RegisteredStreams {
    fn lock(&self) -> MutexGuard<'_, HeldStream> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldStream {
    fn claim(&mut self, client: &str, settings: &StreamSettings) -> Result<Arc<str>, StreamLimitReached> {
        let streams = self.clients.get(client).map_or(0, |usage| usage.streams);
        if streams >= settings.max_streams_per_client {
            return Err(StreamLimitReached::Client);
        }
        let name =
            self.clients.get_key_value(client).map_or_else(|| client.into(), |(name, _)| Arc::clone(name));
        self.clients.entry(Arc::clone(&name)).or_default().streams += 1;
        Ok(name)
    }

    fn give_back(&mut self, client: &str, what: impl FnOnce(&mut StreamUsage)) {
        let Some(usage) = self.clients.get_mut(client) else { return };
        what(usage);
        if usage.streams == 0 && usage.operations == 0 {
            self.clients.remove(client);
        }
    }
}

impl fmt::Debug for StreamRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamRegistry").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The place of one stream.
#[derive(Debug)]
pub struct StreamGuard {
    streams: StreamRegistry,
    id: u64,
    transport: Transport,
    client: Option<Arc<str>>,
    ended: oneshot::Receiver<EndReason>,
    opened: Instant,
    updates: u64,
    /// What the stream was opened under: its end is told there.
    span: tracing::Span,
    old_at: Instant,
    expires_at: Option<Instant>,
    why: EndReason,
}

impl StreamGuard {
    /// Gives the seat to a client that was not known when it was taken, to another one, or to the same one that came in
    /// anew. It ends when what the client came in with does not hold any more, after `left`.
    ///
    /// # Errors
    /// When the client holds as many as it may.
    pub fn claim(&mut self, holder: &Principal, left: Option<Duration>) -> Result<(), StreamLimitReached> {
        let mut held = self.streams.0.lock();
        if self.client.as_deref() != Some(holder.name()) {
            let name = held.claim(holder.name(), &self.streams.settings())?;
            if let Some(before) = self.client.replace(name) {
                held.give_back(&before, |usage| usage.streams -= 1);
            }
        }
        if let Some(open) = held.open.get_mut(&self.id) {
            open.holder = Some(holder.clone());
        }
        drop(held);
        self.expires_at = left.and_then(|left| Instant::now().checked_add(left));
        Ok(())
    }

    /// Takes a place for one operation of the seat's client; dropping it gives it back.
    ///
    /// # Errors
    /// When the client has as many under way as it may.
    pub fn operation(&self) -> Result<OperationGuard, StreamLimitReached> {
        let streams = self.streams.clone();
        let client = self.client.clone().ok_or(StreamLimitReached::Client)?;
        {
            let mut held = streams.0.lock();
            let usage = held.clients.entry(Arc::clone(&client)).or_default();
            if usage.operations >= streams.settings().max_operations_per_client {
                return Err(StreamLimitReached::Client);
            }
            usage.operations += 1;
        }
        Ok(OperationGuard { streams, client })
    }

    /// When the stream ends at the latest, and why then. The transport keeps the time: it has a timer anyway.
    pub fn ends(&self) -> (Instant, EndReason) {
        match self.expires_at.filter(|at| *at < self.old_at) {
            Some(at) => (at, EndReason::CredentialExpired),
            None => (self.old_at, EndReason::TooOld),
        }
    }

    /// Resolves when the stream has been told to end. Not to be polled again after that.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let reason = ready!(Pin::new(&mut self.ended).poll(cx));
        Poll::Ready(reason.unwrap_or(EndReason::Drained))
    }

    /// The same as a future. Cancel safe.
    pub async fn end_reason(&mut self) -> EndReason {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Counts an update that the stream was given.
    pub const fn update_delivered(&mut self) {
        self.updates += 1;
    }

    /// Gives the seat back, and says why in the log.
    pub fn leave(mut self, why: EndReason) {
        self.why = why;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut held = self.streams.0.lock();
        held.open.remove(&self.id);
        *held.counts.of(self.transport) -= 1;
        if let Some(client) = &self.client {
            held.give_back(client, |usage| usage.streams -= 1);
        }
        drop(held);
        // the one place where the end of a stream is told, whatever carried it and whoever ended it
        let (transport, reason, client) = (self.transport.word(), self.why.word(), self.client.as_deref());
        let age_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let updates = self.updates;
        meters::stream_ended(transport, reason);
        self.span.in_scope(|| tracing::debug!(transport, reason, client, age_ms, updates, "stream ended"));
    }
}

/// The place of one operation.
#[derive(Debug)]
pub struct OperationGuard {
    streams: StreamRegistry,
    client: Arc<str>,
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        self.streams.0.lock().give_back(&self.client, |usage| usage.operations -= 1);
    }
}

#[cfg(test)]
mod tests;
