//! The tier that replicas share, in Redis or Valkey: the jobs, whose turn it is to look, the hints, the budgets and who is
//! there. Everything in it can be lost: then replicas go on by themselves, each with its share of the budgets.
//! `docs/replicas.md` says what is promised. Not here: what a hint leads to, which is `jobs::replicas`.

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
use crate::outbound::limiter::shared::SharedBudget;
use crate::outbound::stores::memory::Retention;
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

/// What the operator says about the tier.
pub struct RedisSettings {
    /// Where it is: one URL, or several between commas or white space. They may hold a user and a password.
    pub urls: SecretString,
    /// What stands there.
    pub mode: TopologyMode,
    /// The PEM text of the authorities to trust for `rediss://`; those of the machine when absent.
    pub authorities: Option<Vec<u8>>,
    /// What sentinels are asked with.
    pub sentinel_password: Option<SecretString>,
    /// What every key begins with.
    pub prefix: String,
    /// What records are authenticated with.
    pub record_secret: Option<SecretString>,
    /// How long a turn lasts that is not renewed.
    pub lease: Duration,
    /// How long one command may take, connecting included.
    pub timeout: Duration,
    /// The largest record, in bytes; a larger one stays with the replica that learned it.
    pub max_record: usize,
    /// How long jobs are kept, and what of them in memory.
    pub retention: Retention,
    /// What observations are stamped with.
    pub clock: Arc<dyn Clock>,
}

/// The most commands that nobody waits for, and how many of them go at once.
const LATER_MAX: usize = 10_000;
const LATER_AT_ONCE: usize = 64;

/// The tier of one process. A cheap clone.
#[derive(Clone, Debug)]
pub struct SharedStore {
    shared: Arc<RedisShared>,
    store: Arc<RedisStore>,
}

/// What the parts of the tier share.
#[derive(Debug)]
struct RedisShared {
    connection: RedisConnection,
    keys: RedisKeys,
    /// This process among the replicas: drawn anew at each start.
    owner: String,
    lease: Duration,
    notifications: NotificationQueue,
    /// The turns that this process has.
    held: leases::LeaseValidity,
    /// How the times of records are written and read.
    server_clock: ServerClock,
    /// What there is to reconcile.
    repair: Reconciliation,
    /// The budgets that are kept in step with the other replicas.
    budgets: budget::RedisBudgets,
    /// How many replicas there are, by what was last known. At least 1.
    replicas: AtomicU32,
    /// Commands that nobody waits for.
    later: mpsc::Sender<Cmd>,
    queue: AsyncMutex<mpsc::Receiver<Cmd>>,
}

impl SharedStore {
    /// Makes the tier ready, without connecting.
    ///
    /// # Errors
    /// When an address or a certificate cannot be read.
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

    /// The jobs, and what is remembered of following them.
    pub fn store(&self) -> Arc<RedisStore> {
        Arc::clone(&self.store)
    }

    /// The turns and the hints.
    pub fn leases(&self) -> Arc<RedisLeases> {
        Arc::new(RedisLeases(Arc::clone(&self.shared)))
    }

    /// The budget of one source.
    pub fn budget(&self, source: &SourceName) -> Arc<dyn SharedBudget> {
        let budget = Arc::new(RedisBudget::new(Arc::clone(&self.shared), source));
        self.shared.budgets.add(&budget);
        budget
    }

    /// Keeps the tier alive until `stop` is cancelled: says that this replica is there, listens for hints, gives back slots,
    /// keeps the budgets in step, and reconciles the jobs after an outage. Then takes its leave.
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
    /// How the server is doing, by what this process has met.
    fn health(&self) -> SharedStoreHealth {
        let counts = self.notifications.counts();
        SharedStoreHealth {
            replicas: self.replicas.load(Ordering::Relaxed),
            clock_ahead_ms: self.server_clock.ahead_ms(),
            hints: counts.hints,
            gaps: counts.gaps,
            reconciled: counts.reconciled,
            ..self.connection.health()
        }
    }

    /// Has a command done that nobody waits for. What does not fit is left out: whatever it was for runs out by itself.
    fn spawn_background(&self, command: Cmd) {
        self.later.try_send(command).ok();
    }

    /// Has done what nobody waits for, for ever.
    async fn work_off(&self) {
        let mut queue = self.queue.lock().await;
        let mut commands = Vec::new();
        while queue.recv_many(&mut commands, LATER_AT_ONCE).await > 0 {
            self.do_all(&mut commands).await;
        }
    }

    /// Has done what is left of it.
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
