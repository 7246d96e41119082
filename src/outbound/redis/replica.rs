//! This process as one of the replicas: its connection, its id, and what all parts of the shared store use of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use redis::Cmd;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::connection::RedisConnection;
use super::keys::RedisKeys;
use super::notification_queue::NotificationQueue;
use super::server_clock::ServerClock;
use super::unavailable::Unavailable;
use crate::domain::id::JobKey;
use crate::ports::clock::Clock;
use crate::ports::shared_store::SharedStoreHealth;

/// The most background commands in the queue, and how many of them run concurrently.
const LATER_MAX: usize = 10_000;
const LATER_AT_ONCE: usize = 64;

/// One of the replicas.
#[derive(Debug)]
pub(super) struct RedisReplica {
    pub(super) connection: RedisConnection,
    pub(super) keys: RedisKeys,
    /// The id of this process among the replicas: random at each start.
    pub(super) owner: String,
    pub(super) notifications: NotificationQueue,
    /// How the times of records are written and read.
    pub(super) server_clock: ServerClock,
    /// The last known number of replicas. At least 1.
    replicas: AtomicU32,
    /// Background commands.
    later: mpsc::Sender<Cmd>,
    queue: AsyncMutex<mpsc::Receiver<Cmd>>,
}

impl RedisReplica {
    /// A replica that is not connected yet.
    pub(super) fn new(connection: RedisConnection, prefix: &str, clock: Arc<dyn Clock>) -> Self {
        let (later, queue) = mpsc::channel(LATER_MAX);
        Self {
            connection,
            keys: RedisKeys::new(prefix),
            owner: format!("{:016x}", fastrand::u64(..)),
            notifications: NotificationQueue::default(),
            server_clock: ServerClock::new(clock),
            replicas: AtomicU32::new(1),
            later,
            queue: AsyncMutex::new(queue),
        }
    }

    /// The last known number of replicas. At least 1.
    pub(super) fn replicas(&self) -> u32 {
        self.replicas.load(Ordering::Relaxed).max(1)
    }

    /// Sets the number of replicas.
    pub(super) fn set_replicas(&self, replicas: u32) {
        self.replicas.store(replicas, Ordering::Relaxed);
    }

    /// The state of the server, as this process observed it.
    pub(super) fn health(&self) -> SharedStoreHealth {
        let counts = self.notifications.counts();
        SharedStoreHealth {
            replicas: self.replicas(),
            clock_ahead_ms: self.server_clock.ahead_ms(),
            notifications: counts.notifications,
            gaps: counts.gaps,
            reconciled: counts.reconciled,
            ..self.connection.health()
        }
    }

    /// Sends a notification to the other replicas.
    pub(super) async fn publish(&self, what: &str, key: &JobKey) -> Result<(), Unavailable> {
        let message = format!("{} {what} {}", self.owner, key.node_id());
        let command = redis::cmd("PUBLISH").arg(self.keys.feed()).arg(message).to_owned();
        self.connection.command::<i64>(&command).await.map(drop)
    }

    /// Runs a command in the background. A command that does not fit into the queue is dropped: whatever it would have
    /// released expires.
    pub(super) fn spawn_background(&self, command: Cmd) {
        self.later.try_send(command).ok();
    }

    /// Runs the background commands, for ever.
    pub(super) async fn run_background(&self) {
        let mut queue = self.queue.lock().await;
        let mut commands = Vec::new();
        while queue.recv_many(&mut commands, LATER_AT_ONCE).await > 0 {
            self.run_all(&mut commands).await;
        }
    }

    /// Runs the remaining background commands.
    pub(super) async fn finish_background(&self) {
        let mut queue = self.queue.lock().await;
        let mut commands = Vec::new();
        while let Ok(command) = queue.try_recv() {
            commands.push(command);
        }
        self.run_all(&mut commands).await;
    }

    async fn run_all(&self, commands: &mut Vec<Cmd>) {
        join_all(commands.drain(..).map(async |command| self.connection.command::<i64>(&command).await.ok()))
            .await;
    }
}
