//! The store that replicas share, in Redis or Valkey: jobs, leases, notifications, budgets and the member list. All
//! data in it can be lost: then the replicas run standalone, each with its local budget. `docs/replicas.md` describes
//! the guarantees. Not here: the handling of a notification, which is in `jobs::replicas`.

mod budget;
mod connection;
mod feed;
mod heartbeat;
mod keys;
mod leases;
mod ledger;
mod record_mac;
mod repair;
mod scripts;
mod server_clock;
mod stats;
mod store;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use redis::Cmd;
use secrecy::SecretString;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::domain::id::SourceName;
use crate::outbound::stores::memory::Retention;
use crate::outbound::upstreams::limiter::shared::SharedBudget;
use crate::ports::clock::Clock;
use crate::ports::shared_store::SharedStoreHealth;

pub use budget::RedisBudget;
use connection::RedisConnection;
use feed::NotificationQueue;
use keys::RedisKeys;
pub use leases::RedisLeases;
use record_mac::RecordMac;
use repair::Reconciliation;
use server_clock::ServerClock;
pub use store::RedisStore;
pub use topology::{BadAddress, TopologyMode};

/// The configuration of the shared store.
pub struct RedisSettings {
    /// The address: one URL, or several separated by commas or white space. They may contain a user and a password.
    pub urls: SecretString,
    /// The topology at the address.
    pub mode: TopologyMode,
    /// The PEM text of the authorities to trust for `rediss://`; those of the machine when absent.
    pub authorities: Option<Vec<u8>>,
    /// The password of the sentinels.
    pub sentinel_password: Option<SecretString>,
    /// The prefix of every key.
    pub prefix: String,
    /// The secret that authenticates records.
    pub record_secret: Option<SecretString>,
    /// How long a lease lasts that is not renewed.
    pub lease: Duration,
    /// The timeout of one command, including the connection.
    pub timeout: Duration,
    /// The largest record, in bytes; a larger one is only kept by the replica that observed it.
    pub max_record: usize,
    /// The retention of jobs, and the limits of the memory cache.
    pub retention: Retention,
    /// The clock of observations.
    pub clock: Arc<dyn Clock>,
}

/// The most background commands in the queue, and how many of them run concurrently.
const LATER_MAX: usize = 10_000;
const LATER_AT_ONCE: usize = 64;

/// The shared store as one process uses it. A cheap clone.
#[derive(Clone, Debug)]
pub struct SharedStore {
    shared: Arc<RedisShared>,
    store: Arc<RedisStore>,
}

/// The state that the parts of the shared store have in common.
#[derive(Debug)]
struct RedisShared {
    connection: RedisConnection,
    keys: RedisKeys,
    /// The id of this process among the replicas: random at each start.
    owner: String,
    lease: Duration,
    notifications: NotificationQueue,
    /// The leases of this process.
    held: leases::LeaseValidity,
    /// How the times of records are written and read.
    server_clock: ServerClock,
    /// The state of the reconciliation.
    repair: Reconciliation,
    /// The budgets that are synchronized with the other replicas.
    budgets: budget::RedisBudgets,
    /// The last known number of replicas. At least 1.
    replicas: AtomicU32,
    /// Background commands.
    later: mpsc::Sender<Cmd>,
    queue: AsyncMutex<mpsc::Receiver<Cmd>>,
}

impl SharedStore {
    /// Prepares the shared store, without connecting.
    ///
    /// # Errors
    /// Returns an error if an address or a certificate cannot be parsed.
    pub fn new(settings: RedisSettings) -> Result<Self, BadAddress> {
        let RedisSettings {
            urls,
            mode,
            authorities,
            sentinel_password,
            prefix,
            record_secret,
            lease,
            timeout,
            max_record,
            retention,
            clock,
        } = settings;
        let topology =
            topology::Topology::new(&urls, mode, authorities.as_deref(), sentinel_password, timeout)?;
        let (later, queue) = mpsc::channel(LATER_MAX);
        let shared = Arc::new(RedisShared {
            connection: RedisConnection::new(topology, timeout),
            keys: RedisKeys::new(&prefix),
            owner: format!("{:016x}", fastrand::u64(..)),
            lease,
            notifications: NotificationQueue::default(),
            held: leases::LeaseValidity::default(),
            replicas: AtomicU32::new(1),
            budgets: budget::RedisBudgets::default(),
            repair: Reconciliation::default(),
            server_clock: ServerClock::new(clock),
            later,
            queue: AsyncMutex::new(queue),
        });
        let record_mac = RecordMac::new(record_secret.as_ref());
        let store = Arc::new(RedisStore::new(Arc::clone(&shared), record_mac, max_record, retention));
        Ok(Self { shared, store })
    }

    /// The store of jobs and tracked jobs.
    pub fn store(&self) -> Arc<RedisStore> {
        Arc::clone(&self.store)
    }

    /// The leases and the notifications.
    pub fn leases(&self) -> Arc<RedisLeases> {
        Arc::new(RedisLeases(Arc::clone(&self.shared)))
    }

    /// The budget of one source.
    pub fn budget(&self, source: &SourceName) -> Arc<dyn SharedBudget> {
        let budget = Arc::new(RedisBudget::new(Arc::clone(&self.shared), source));
        self.shared.budgets.add(&budget);
        budget
    }

    /// Runs the shared store until `stop` is cancelled: sends heartbeats, listens for notifications, releases slots,
    /// synchronizes the budgets, and reconciles the jobs after an outage. Then removes this replica from the member
    /// list.
    pub async fn run(self, stop: CancellationToken) {
        if !self.store.is_sealed() {
            tracing::warn!("store.redis.record_secret is not set; records in redis are not authenticated");
        }
        let listening = feed::listen(&self.shared, &self.store);
        let beating = heartbeat::heartbeat(&self.shared);
        let repairing = repair::run(&self.shared, &self.store);
        let budgets = budget::keep_in_step(&self.shared);
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { tokio::join!(listening, beating, repairing, budgets, self.shared.work_off()); } => {}
        }
        heartbeat::leave(&self.shared).await;
    }
}

impl RedisShared {
    /// The state of the server, as this process observed it.
    fn health(&self) -> SharedStoreHealth {
        let counts = self.notifications.counts();
        SharedStoreHealth {
            replicas: self.replicas.load(Ordering::Relaxed),
            clock_ahead_ms: self.server_clock.ahead_ms(),
            notifications: counts.notifications,
            gaps: counts.gaps,
            reconciled: counts.reconciled,
            ..self.connection.health()
        }
    }

    /// Runs a command in the background. A command that does not fit into the queue is dropped: whatever it would have
    /// released expires.
    fn spawn_background(&self, command: Cmd) {
        self.later.try_send(command).ok();
    }

    /// Runs the background commands, for ever.
    async fn work_off(&self) {
        let mut queue = self.queue.lock().await;
        let mut commands = Vec::new();
        while queue.recv_many(&mut commands, LATER_AT_ONCE).await > 0 {
            self.do_all(&mut commands).await;
        }
    }

    /// Runs the remaining background commands.
    async fn reconcile_rest(&self) {
        let mut queue = self.queue.lock().await;
        let mut commands = Vec::new();
        while let Ok(command) = queue.try_recv() {
            commands.push(command);
        }
        self.do_all(&mut commands).await;
    }

    async fn do_all(&self, commands: &mut Vec<Cmd>) {
        join_all(commands.drain(..).map(async |command| self.connection.command::<i64>(&command).await.ok()))
            .await;
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("mode", &self.mode)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
