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
mod notification_queue;
mod record_mac;
mod records;
mod repair;
mod replica;
mod scripts;
mod server_clock;
mod stats;
mod store;
mod topology;
mod unavailable;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::domain::id::SourceName;
use crate::outbound::stores::memory::Retention;
use crate::outbound::upstreams::limiter::shared::SharedBudget;
use crate::ports::clock::Clock;

use self::budget::{RedisBudget, RedisBudgets};
use self::connection::RedisConnection;
pub use self::leases::RedisLeases;
pub use self::ledger::RedisLedger;
use self::record_mac::RecordMac;
use self::records::JobRecords;
use self::repair::Reconciliation;
use self::replica::RedisReplica;
pub use self::store::RedisStore;
use self::store::StoreParts;
use self::topology::Topology;
pub use self::topology::{BadAddress, TopologyMode};

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

/// The shared store as one process uses it. A cheap clone.
#[derive(Clone, Debug)]
pub struct SharedStore {
    replica: Arc<RedisReplica>,
    record_mac: Arc<RecordMac>,
    leases: Arc<RedisLeases>,
    records: Arc<JobRecords>,
    ledger: Arc<RedisLedger>,
    store: Arc<RedisStore>,
    budgets: Arc<RedisBudgets>,
    /// The state of the reconciliation.
    repair: Arc<Reconciliation>,
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
        let topology = Topology::new(&urls, mode, authorities.as_deref(), sentinel_password, timeout)?;
        let replica = Arc::new(RedisReplica::new(RedisConnection::new(topology, timeout), &prefix, clock));
        let record_mac = Arc::new(RecordMac::new(record_secret.as_ref()));
        let leases = Arc::new(RedisLeases::new(Arc::clone(&replica), lease));
        let records = Arc::new(JobRecords::new(Arc::clone(&replica), Arc::clone(&record_mac), retention));
        let ledger = Arc::new(RedisLedger::new(Arc::clone(&replica), Arc::clone(&record_mac)));
        let parts = StoreParts {
            replica: Arc::clone(&replica),
            records: Arc::clone(&records),
            leases: Arc::clone(&leases),
            ledger: Arc::clone(&ledger),
        };
        let store = Arc::new(RedisStore::new(parts, max_record, retention));
        Ok(Self {
            replica,
            record_mac,
            leases,
            records,
            ledger,
            store,
            budgets: Arc::default(),
            repair: Arc::default(),
        })
    }

    /// The store of jobs.
    pub fn store(&self) -> Arc<RedisStore> {
        Arc::clone(&self.store)
    }

    /// The tracked jobs.
    pub fn ledger(&self) -> Arc<RedisLedger> {
        Arc::clone(&self.ledger)
    }

    /// The leases and the notifications.
    pub fn leases(&self) -> Arc<RedisLeases> {
        Arc::clone(&self.leases)
    }

    /// The budget of one source.
    pub fn budget(&self, source: &SourceName) -> Arc<dyn SharedBudget> {
        let budget = Arc::new(RedisBudget::new(Arc::clone(&self.replica), source));
        self.budgets.add(&budget);
        budget
    }

    /// Runs the shared store until `stop` is cancelled: sends heartbeats, listens for notifications, releases slots,
    /// synchronizes the budgets, and reconciles the jobs after an outage. Then removes this replica from the member
    /// list.
    pub async fn run(self, stop: CancellationToken) {
        if !self.record_mac.has_secret() {
            tracing::warn!("store.redis.record_secret is not set; records in redis are not authenticated");
        }
        let listening = feed::run(&self.replica, &self.records);
        let beating = heartbeat::run(&self.replica, &self.repair);
        let repairing = repair::run(&self.repair, &self.replica, &self.store, &self.ledger);
        let budgets = budget::keep_in_step(&self.budgets);
        let background = self.replica.run_background();
        tokio::select! {
            () = stop.cancelled() => {}
            () = async { tokio::join!(listening, beating, repairing, budgets, background); } => {}
        }
        heartbeat::leave(&self.replica).await;
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
