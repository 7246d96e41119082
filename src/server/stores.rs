//! Opens the stores: the configured store, and the shared store of the replicas.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::config::{Config, Environment, RedisConfig, RedisMode, SecretRef, StoreKind, StoredRows};
use crate::outbound::credentials::secret;
use crate::outbound::redis::{RedisSettings as TierSettings, SharedStore, TopologyMode};
use crate::outbound::stores::embedded::{self, EmbeddedStore, RowLimits};
use crate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use crate::outbound::stores::rows::{KeptRows, MemoryRows};
use crate::outbound::system::SystemClock;
use crate::ports::clock::Clock;
use crate::ports::feed::NotificationFeed;
use crate::ports::leases::{LeaseManager, LocalLeases};
use crate::ports::ledger::Ledger;
use crate::ports::rows::RowCache;
use crate::ports::store::JobStore;

use super::settings;

/// How long a page of rows is cached. The rows of a terminal job do not change, so only their memory has an option.
const ROWS_CACHED_FOR: Duration = Duration::from_mins(10);
/// The largest shared record, in bytes. The body of a status call has the same limit by default.
const MAX_RECORD: usize = 1 << 20;

/// The store, and the shared store of the replicas.
pub(super) struct StoreSet {
    pub(super) store: Arc<dyn JobStore>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) leases: Arc<dyn LeaseManager>,
    pub(super) feed: Arc<dyn NotificationFeed>,
    pub(super) rows: Arc<dyn RowCache>,
    pub(super) shared_store: Option<SharedStore>,
}

/// Opens the configured store. Blocks on the disk, before any request is served; does not connect.
pub(super) fn open(config: &Config, env: &Environment, clock: &Arc<dyn Clock>) -> anyhow::Result<StoreSet> {
    let retention = retention(config);
    let rows = MemoryRows::new(config.cache.rows_max_bytes as u64, ROWS_CACHED_FOR);
    let (store, ledger, rows): (Arc<dyn JobStore>, Arc<dyn Ledger>, Arc<dyn RowCache>) =
        match config.store.kind {
            StoreKind::Memory => (Arc::new(MemoryStore::new(retention)), Arc::new(NoLedger), Arc::new(rows)),
            StoreKind::Embedded => {
                let path = config.store.path.clone();
                let StoredRows { per_job, max_bytes } = config.store.rows;
                let limits = RowLimits { per_job: per_job as u64, max_bytes: max_bytes as u64 };
                let max_bytes = config.store.max_bytes as u64;
                let settings = embedded::EmbeddedSettings { path, max_bytes, rows: limits, retention };
                let store = Arc::new(EmbeddedStore::open(settings, Arc::clone(clock))?);
                let rows = Arc::new(KeptRows::new(rows, Arc::clone(&store)));
                (Arc::clone(&store) as Arc<dyn JobStore>, store as Arc<dyn Ledger>, rows)
            }
            StoreKind::Redis => {
                let shared_store = shared_store(&config.store.redis, env, retention, clock)?;
                let leases = shared_store.leases();
                return Ok(StoreSet {
                    store: shared_store.store(),
                    ledger: shared_store.ledger(),
                    leases: Arc::clone(&leases) as Arc<dyn LeaseManager>,
                    feed: leases,
                    rows: Arc::new(rows),
                    shared_store: Some(shared_store),
                });
            }
        };
    Ok(StoreSet {
        store,
        ledger,
        leases: Arc::new(LocalLeases),
        feed: Arc::new(LocalLeases),
        rows,
        shared_store: None,
    })
}

fn retention(config: &Config) -> Retention {
    let cache = &config.cache;
    Retention {
        max_bytes: cache.max_bytes as u64,
        finished: cache.keep_finished,
        unfinished: cache.keep_unfinished,
        missing: settings::NOT_FOUND_CACHED_FOR,
    }
}

/// Checks whether the shared store can be prepared, if it is configured. Does not connect.
///
/// # Errors
/// Returns an error if a secret or a file cannot be read, or an address cannot be used; names the option.
pub fn check_tier(config: &Config, env: &Environment) -> anyhow::Result<()> {
    match config.store.kind {
        StoreKind::Redis => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            shared_store(&config.store.redis, env, retention(config), &clock).map(drop)
        }
        StoreKind::Embedded | StoreKind::Memory => Ok(()),
    }
}

/// The URLs with the separately configured password.
fn with_password(urls: &SecretString, password: &SecretString) -> anyhow::Result<SecretString> {
    let split = |letter: char| letter == ',' || letter.is_whitespace();
    let mut whole = Vec::new();
    for text in urls.expose_secret().split(split).filter(|text| !text.is_empty()) {
        // an invalid URL is reported later, with its option
        let Ok(mut url) = Url::parse(text) else { return Ok(urls.clone()) };
        anyhow::ensure!(
            url.password().is_none(),
            "store.redis.url holds a password as well: keep one of the two"
        );
        if url.set_password(Some(password.expose_secret())).is_err() {
            return Ok(urls.clone());
        }
        whole.push(String::from(url));
    }
    Ok(SecretString::from(whole.join(",")))
}

/// Prepares the shared store. Reads its secrets.
fn shared_store(
    config: &RedisConfig,
    env: &Environment,
    retention: Retention,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<SharedStore> {
    let read = |path: &'static str, reference: &Option<SecretRef>| match reference {
        Some(reference) => {
            secret::read(reference, env).with_context(|| format!("{path}: {reference}")).map(Some)
        }
        None => Ok(None),
    };
    let urls = read("store.redis.url", &config.url)?.context("store.redis.url: is empty")?;
    let urls = match read("store.redis.password", &config.password)? {
        Some(password) => with_password(&urls, &password).context("store.redis.password")?,
        None => urls,
    };
    let record_secret = read("store.redis.record_secret", &config.record_secret)?;
    let sentinel_password = read("store.redis.sentinel_password", &config.sentinel_password)?;
    let authorities = match &config.ca_file {
        Some(path) => {
            let read = std::fs::read(path);
            Some(read.with_context(|| format!("store.redis.ca_file: {} cannot be read", path.display()))?)
        }
        None => None,
    };
    let mode = match config.mode {
        RedisMode::Single => TopologyMode::Single,
        RedisMode::Sentinel => TopologyMode::Sentinel(config.sentinel_name.clone()),
        RedisMode::Cluster => TopologyMode::Cluster,
    };
    let settings = TierSettings {
        urls,
        mode,
        authorities,
        sentinel_password,
        prefix: config.prefix.clone(),
        record_secret,
        lease: config.lease,
        timeout: config.timeout,
        max_record: MAX_RECORD,
        retention,
        clock: Arc::clone(clock),
    };
    SharedStore::new(settings).context("store.redis")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(urls: &str, password: &str) -> Result<String, String> {
        let both = with_password(&SecretString::from(urls), &SecretString::from(password));
        both.map(|urls| urls.expose_secret().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn separate_redis_password_is_inserted_into_every_url() {
        assert_eq!(whole("redis://h", "a/b@c").unwrap(), "redis://:a%2Fb%40c@h");
        assert_eq!(
            whole("rediss://me@a:1,rediss://me@b:2/3", "p:w#").unwrap(),
            "rediss://me:p%3Aw%23@a:1,rediss://me:p%3Aw%23@b:2/3"
        );
        assert_eq!(whole("no url", "p").unwrap(), "no url");
    }

    #[test]
    fn second_redis_password_is_refused() {
        let refused = whole("redis://me:cAnaRy@h", "cAnaRy").unwrap_err();
        assert_eq!(refused, "store.redis.url holds a password as well: keep one of the two");
    }
}
