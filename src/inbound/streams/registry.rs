//! The registry of all streams, of every transport: limits them by client and by age, and ends all of them when the
//! process drains. It is independent of the protocols: a transport polls its [`StreamGuard`] for the end and its
//! reason.

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
use crate::telemetry::log::RequestScope;
use crate::telemetry::meters;

use super::end_reason::EndReason;
use super::settings::StreamSettings;

/// The slowest rate of a drain: if there are fewer streams than fill the window, it completes earlier. Ten reconnects
/// in a second are no load.
const DRAIN_PACE: Duration = Duration::from_millis(100);
/// The jitter of the maximum age of a stream, in each direction.
const AGE_JITTER: f64 = 0.2;

/// The transport of a stream.
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
    /// The label in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Multipart => "multipart",
        }
    }
}

/// The permit of a connection: a WebSocket outlives the connection's own task, and keeps this so that it is still
/// counted.
#[derive(Clone)]
pub struct ConnectionPermit(pub Arc<dyn std::any::Any + Send + Sync>);

impl fmt::Debug for ConnectionPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

type SpawnTask = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

/// All streams of the process. A clone is cheap and shares the registry.
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

/// The numbers of streams.
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

/// Why a stream or an operation is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLimitReached {
    /// The process is draining.
    Draining,
    /// The client has reached its limit.
    Client,
}

impl StreamRegistry {
    /// An empty registry. `spawn` starts the task of a WebSocket, which outlives its request.
    pub fn new(
        settings: StreamSettings,
        spawn: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
    ) -> Self {
        let settings = ArcSwap::from_pointee(settings);
        Self(Arc::new(RegisteredStreams { settings, spawn: Box::new(spawn), held: Mutex::default() }))
    }

    /// The current settings.
    pub fn settings(&self) -> Arc<StreamSettings> {
        self.0.settings.load_full()
    }

    /// Applies other settings. An open stream keeps its age and its message limit, and applies the rest from its next
    /// step on; none is ended because a lower limit is exceeded.
    pub fn set_settings(&self, settings: StreamSettings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Starts the task of a stream.
    pub(in crate::inbound) fn spawn(&self, task: BoxFuture<'static, ()>) {
        (self.0.spawn)(task);
    }

    /// Admits a stream; dropping the guard releases it. A client that is not authenticated yet is added later by
    /// `claim`.
    ///
    /// # Errors
    /// Returns an error if the process drains, or the client has reached its limit.
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
            request: RequestScope::current(),
            old_at: Instant::now() + settings.max_age.mul_f64(spread),
            expires_at: None,
            why: EndReason::ClientLeft,
        })
    }

    /// The current numbers of streams.
    pub fn counts(&self) -> StreamCounts {
        self.0.lock().counts
    }

    /// Ends every stream whose holder is not valid any more, and returns their number. A stream without a holder
    /// continues.
    pub fn review(&self, is_valid: impl Fn(&Principal) -> bool) -> usize {
        let held = self.0.lock();
        let holders = held.open.iter().filter_map(|(id, open)| Some((*id, open.holder.clone()?)));
        let holders: Vec<_> = holders.collect();
        drop(held);
        // called without the lock: streams open and close meanwhile
        let fallen = holders.into_iter().filter(|(_, holder)| !is_valid(holder));
        let fallen: HashMap<u64, Principal> = fallen.collect();
        let mut held = self.0.lock();
        // a client that reconnected meanwhile, with another credential, was authenticated by the current state
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

    /// Admits no more streams, and ends each: spread over the window, in random order, so that clients do not reconnect
    /// all at once. Returns after the last one was signalled; their remaining tasks are counted by the spawner.
    ///
    /// Dropping it ends the rest at once.
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

/// A stream that has just ended by itself has no receiver any more.
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

/// The registration of one stream.
#[derive(Debug)]
pub struct StreamGuard {
    streams: StreamRegistry,
    id: u64,
    transport: Transport,
    client: Option<Arc<str>>,
    ended: oneshot::Receiver<EndReason>,
    opened: Instant,
    updates: u64,
    /// The request that opened the stream: its end is logged for it.
    request: RequestScope,
    old_at: Instant,
    expires_at: Option<Instant>,
    why: EndReason,
}

impl StreamGuard {
    /// Assigns the stream to a client that was not authenticated when it was opened, to another one, or to the same one
    /// with a new credential. The stream ends when the credential expires, after `left`.
    ///
    /// # Errors
    /// Returns an error if the client has reached its limit.
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

    /// Admits one operation of the stream's client; dropping the guard releases it.
    ///
    /// # Errors
    /// Returns an error if the client has reached its limit.
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

    /// The latest end of the stream, and its reason. The transport keeps the time: it has a timer anyway.
    pub fn ends(&self) -> (Instant, EndReason) {
        match self.expires_at.filter(|at| *at < self.old_at) {
            Some(at) => (at, EndReason::CredentialExpired),
            None => (self.old_at, EndReason::TooOld),
        }
    }

    /// Completes when the stream must end. Must not be polled again after that.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        let reason = ready!(Pin::new(&mut self.ended).poll(cx));
        Poll::Ready(reason.unwrap_or(EndReason::Drained))
    }

    /// The same as a future. Cancel safe.
    pub async fn end_reason(&mut self) -> EndReason {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Counts an update that was delivered on the stream.
    pub const fn update_delivered(&mut self) {
        self.updates += 1;
    }

    /// Unregisters the stream, and logs the reason.
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
        // the one place where the end of a stream is logged, whatever its transport and its reason
        let (transport, reason, client) = (self.transport.word(), self.why.word(), self.client.as_deref());
        let age_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let updates = self.updates;
        meters::stream_ended(transport, reason);
        self.request.within(|| tracing::debug!(transport, reason, client, age_ms, updates, "stream ended"));
    }
}

/// The registration of one operation.
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
