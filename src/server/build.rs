//! Builds the gateway: one straight function from a valid configuration to something that can be served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Environment, RedisConfig, RedisMode, SecretRef, SourceConfig, StoreKind};
use crate::domain::id::SourceName;
use crate::domain::pace::Pace;
use crate::inbound::graphql::http::Door;
use crate::inbound::graphql::limits::Limits;
use crate::inbound::graphql::schema;
use crate::inbound::layers::Settings;
use crate::inbound::probes::{self, Readiness};
use crate::inbound::router;
use crate::inbound::streams::{Counts, Origins, StreamSettings, Streams};
use crate::jobs::{FollowSettings, Freshness, Jobs, Ports};
use crate::outbound::credentials::{self, SecretFiles};
use crate::outbound::http::{BaseUrl, HttpRoad};
use crate::outbound::identity::clients::ClientKeys;
use crate::outbound::redis::{Mode, Settings as TierSettings, Tier};
use crate::outbound::stores::embedded::{self, EmbeddedStore};
use crate::outbound::stores::memory::{MemoryStore, NoLedger, Retention};
use crate::outbound::stores::rows::MemoryRows;
use crate::outbound::system::{RuntimeSpawner, SystemClock, ThreadEntropy};
use crate::outbound::upstreams::{self, Means, SourceSettings};
use crate::ports::clock::Clock;
use crate::ports::credentials::Credentials;
use crate::ports::feed::Feed;
use crate::ports::ledger::Ledger;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::store::{JobStore, StoreHealth};
use crate::ports::turns::{Alone, Turns};
use crate::ports::upstream::JobReader;

use super::listeners::{ConnectionLimits, Listener};

/// Of the time a request may take, the share that an answer may wait for an upstream: the rest is for writing it.
const WAITING_SHARE: f64 = 0.9;

/// A gateway that is bound to its addresses and serves nobody yet.
#[derive(Debug)]
pub struct Gateway {
    public: Listener,
    admin: Listener,
    jobs: Jobs,
    routes: axum::Router,
    limits: ConnectionLimits,
    readiness: Readiness,
    spawner: RuntimeSpawner,
    streams: Streams,
    tier: Option<Tier>,
    drain_delay: Duration,
}

/// A gateway at work.
#[derive(Debug)]
pub struct Serving {
    readiness: Readiness,
    spawner: RuntimeSpawner,
    drain: CancellationToken,
    /// Ends later than the drain begins: streams are told the news until they are closed.
    following: CancellationToken,
    /// Ends last: who asks whether we are ready is told that we are not, for as long as that can be said.
    probes_end: CancellationToken,
    drain_delay: Duration,
    streams: Streams,
    jobs: Jobs,
}

impl Gateway {
    /// Builds everything and binds the addresses. Calls no upstream.
    ///
    /// A source whose secret cannot be read is left unconfigured, and the others serve.
    ///
    /// # Errors
    /// When an address cannot be bound, naming the option.
    pub async fn build(config: &Config, env: &Environment) -> anyhow::Result<Self> {
        let spawner = RuntimeSpawner::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (credentials, problems) = SecretFiles::read(&config.sources, env);
        for problem in problems {
            tracing::error!(%problem, "source has no usable credential, it is left unconfigured");
        }
        let Stores { store, ledger, turns, feed, tier } = stores(config, env, &clock)?;
        let readers = readers(config, Arc::new(credentials), &clock, tier.clone())?;
        let cache = &config.cache;
        let ports = Ports {
            identity: Arc::new(ClientKeys::new(&config.clients)),
            readers,
            store,
            ledger,
            turns,
            feed,
            rows: Arc::new(MemoryRows::new(cache.rows_max_bytes as u64, cache.rows_for)),
            clock,
            spawner: Arc::new(spawner.clone()),
        };
        let freshness = Freshness {
            fresh_for: cache.fresh_for,
            missing_for: cache.missing_for,
            rerun_check: cache.rerun_check,
            answer_within: config.server.request_timeout.mul_f64(WAITING_SHARE),
        };
        let follow = FollowSettings {
            pace: Pace { fastest: config.follow.fastest, slowest: config.follow.slowest },
            linger: config.follow.linger,
            missing_for: config.follow.missing_for,
            unknown_for: config.follow.unknown_for,
            at_most: config.follow.at_most,
        };
        let jobs = Jobs::new(ports, freshness, follow);

        let server = &config.server;
        let schema = schema::build(jobs.clone(), config.allows_introspection());
        let authenticate = router::authenticator(jobs.clone());
        let streams = streams(config, &spawner);
        let types = schema::input_types().context("read the input types of the schema")?;
        let door =
            Door::new(schema, types, authenticate, limits(config), server.request_timeout, streams.clone());
        let settings = Settings {
            max_body: server.max_body,
            deadline: server.request_timeout,
            concurrency: server.max_requests,
            ..Settings::default()
        };
        Ok(Self {
            public: Listener::bind("public", "server.listen", server.listen).await?,
            admin: Listener::bind("admin", "server.admin_listen", server.admin_listen).await?,
            routes: router::public(door, jobs.clone(), settings),
            jobs,
            limits: ConnectionLimits {
                connections: server.max_connections,
                header_timeout: server.header_timeout,
            },
            readiness: Readiness::default(),
            spawner,
            streams,
            tier,
            drain_delay: server.drain_delay,
        })
    }

    /// The use cases behind the doors.
    pub fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// The address of the public door.
    pub const fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// The address of the operators' door.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Opens both doors. Returns at once; the gateway serves in the background.
    pub fn serve(self) -> Serving {
        let drain = CancellationToken::new();
        let start = |listener: Listener, routes, drain| {
            let spawner = Arc::new(self.spawner.clone());
            let task = listener.serve(routes, self.limits, spawner, drain);
            self.spawner.spawn(TaskKind::Listener, Box::pin(task));
        };
        tracing::info!(public = %self.public_addr(), admin = %self.admin_addr(), "listening");
        let probes_end = CancellationToken::new();
        start(self.public, self.routes, drain.clone());
        start(self.admin, probes::router(self.readiness.clone()), probes_end.clone());
        let following = CancellationToken::new();
        if let Some(tier) = self.tier {
            self.spawner.spawn(TaskKind::Replicas, Box::pin(tier.run(following.clone())));
        }
        self.jobs.start_following(following.clone());
        self.readiness.set(true);
        Serving {
            readiness: self.readiness,
            spawner: self.spawner,
            drain,
            following,
            probes_end,
            drain_delay: self.drain_delay,
            streams: self.streams,
            jobs: self.jobs,
        }
    }
}

impl Serving {
    /// Resolves when a part died without which the process cannot do its job.
    pub async fn broken(&self) {
        self.spawner.fatal().await;
    }

    /// How many jobs are being followed.
    pub fn followed(&self) -> usize {
        self.jobs.followed()
    }

    /// How the store is doing.
    pub fn store_health(&self) -> StoreHealth {
        self.jobs.store_health()
    }

    /// How many streams are open.
    pub fn streams(&self) -> Counts {
        self.streams.counts()
    }

    /// Stops being ready, goes on for the configured delay, accepts no more, ends the streams over their window, and
    /// waits until everything under way is finished.
    pub async fn drain(&self) {
        self.readiness.set(false);
        // Traffic still comes until everyone has heard that we are not ready.
        tokio::time::sleep(self.drain_delay).await;
        self.drain.cancel();
        self.streams.drain(self.streams.settings().drain_window).await;
        self.following.cancel();
        self.probes_end.cancel();
        self.spawner.idle().await;
        self.jobs.close().await;
    }
}

/// Makes each configured source ready to be asked, without asking it. With a `tier` its budget is that of all replicas.
///
/// # Errors
/// When the HTTP client cannot be built on this machine, or a base URL cannot be built upon.
pub fn readers(
    config: &Config,
    credentials: Arc<dyn Credentials>,
    clock: &Arc<dyn Clock>,
    tier: Option<Tier>,
) -> anyhow::Result<Vec<Arc<dyn JobReader>>> {
    let means = Means {
        road: Arc::new(HttpRoad::new().context("the HTTP client cannot be built")?),
        credentials,
        clock: Arc::clone(clock),
        entropy: Arc::new(ThreadEntropy),
        tier,
    };
    let ready = |(name, source): (&SourceName, &SourceConfig)| {
        let settings = settings(name, source).with_context(|| format!("sources.{name}.base_url"))?;
        Ok(upstreams::reader(source.upstream, settings, means.clone()))
    };
    config.sources.iter().map(ready).collect()
}

fn settings(name: &SourceName, source: &SourceConfig) -> anyhow::Result<SourceSettings> {
    Ok(SourceSettings {
        name: name.clone(),
        base_url: BaseUrl::new(source.base_url.clone())?,
        per_second: source.budget.per_second,
        per_hour: source.budget.per_hour,
        concurrency: source.budget.concurrency,
        max_wait: source.budget.max_wait,
        status_timeout: source.status_timeout,
        rows_timeout: source.rows_timeout,
        max_status_body: source.max_status_body,
        max_rows_body: source.max_rows_body,
    })
}

/// What is kept, and what replicas share of it.
struct Stores {
    store: Arc<dyn JobStore>,
    ledger: Arc<dyn Ledger>,
    turns: Arc<dyn Turns>,
    feed: Arc<dyn Feed>,
    tier: Option<Tier>,
}

/// Opens the configured store. Blocks on the disk, before anybody is served; connects to nobody.
fn stores(config: &Config, env: &Environment, clock: &Arc<dyn Clock>) -> anyhow::Result<Stores> {
    let retention = retention(config);
    let (store, ledger): (Arc<dyn JobStore>, Arc<dyn Ledger>) = match config.store.kind {
        StoreKind::Memory => (Arc::new(MemoryStore::new(retention)), Arc::new(NoLedger)),
        StoreKind::Embedded => {
            let path = config.store.path.clone();
            let settings = embedded::Settings { path, max_bytes: config.store.max_bytes as u64, retention };
            let store = Arc::new(EmbeddedStore::open(settings, Arc::clone(clock))?);
            (Arc::clone(&store) as Arc<dyn JobStore>, store as Arc<dyn Ledger>)
        }
        StoreKind::Redis => {
            let tier = tier(&config.store.redis, env, retention)?;
            let (store, turns) = (tier.store(), tier.turns());
            return Ok(Stores {
                store: Arc::clone(&store) as Arc<dyn JobStore>,
                ledger: store,
                turns: Arc::clone(&turns) as Arc<dyn Turns>,
                feed: turns,
                tier: Some(tier),
            });
        }
    };
    Ok(Stores { store, ledger, turns: Arc::new(Alone), feed: Arc::new(Alone), tier: None })
}

fn retention(config: &Config) -> Retention {
    let cache = &config.cache;
    Retention {
        max_bytes: cache.max_bytes as u64,
        finished: cache.keep_finished,
        unfinished: cache.keep_unfinished,
        missing: cache.missing_for,
    }
}

/// Says whether what replicas share could be made ready, where it is configured. Connects to nobody.
///
/// # Errors
/// When a secret or a file cannot be read, or an address cannot be used; names the option.
pub fn check_tier(config: &Config, env: &Environment) -> anyhow::Result<()> {
    match config.store.kind {
        StoreKind::Redis => tier(&config.store.redis, env, retention(config)).map(drop),
        StoreKind::Embedded | StoreKind::Memory => Ok(()),
    }
}

/// Makes ready what replicas share. Reads the secrets it names.
fn tier(config: &RedisConfig, env: &Environment, retention: Retention) -> anyhow::Result<Tier> {
    let read = |path: &'static str, reference: &Option<SecretRef>| match reference {
        Some(reference) => {
            credentials::secret(reference, env).with_context(|| format!("{path}: {reference}")).map(Some)
        }
        None => Ok(None),
    };
    let urls = read("store.redis.url", &config.url)?.context("store.redis.url: is empty")?;
    let record_secret = read("store.redis.record_secret", &config.record_secret)?;
    let authorities = match &config.ca_file {
        Some(path) => {
            let read = std::fs::read(path);
            Some(read.with_context(|| format!("store.redis.ca_file: {} cannot be read", path.display()))?)
        }
        None => None,
    };
    let mode = match config.mode {
        RedisMode::Single => Mode::Single,
        RedisMode::Sentinel => Mode::Sentinel(config.sentinel_name.clone()),
        RedisMode::Cluster => Mode::Cluster,
    };
    let settings = TierSettings {
        urls,
        mode,
        authorities,
        prefix: config.prefix.clone(),
        record_secret,
        lease: config.lease,
        timeout: config.timeout,
        max_record: config.max_record,
        retention,
    };
    Tier::new(settings).context("store.redis")
}

fn streams(config: &Config, spawner: &RuntimeSpawner) -> Streams {
    let streams = &config.streams;
    let settings = StreamSettings {
        init_timeout: streams.init_timeout,
        ping_interval: streams.ping_interval,
        pong_timeout: streams.pong_timeout,
        heartbeat: streams.heartbeat,
        max_age: streams.max_age,
        max_operations: streams.max_operations,
        max_streams_per_client: streams.max_streams_per_client,
        max_operations_per_client: streams.max_operations_per_client,
        max_message: streams.max_message,
        origins: Origins { allowed: streams.allowed_origins.clone(), loopback: config.server.is_local() },
        drain_window: streams.drain_window,
    };
    let spawner = spawner.clone();
    Streams::new(settings, move |task| spawner.spawn(TaskKind::Stream, task))
}

fn limits(config: &Config) -> Limits {
    let graphql = &config.graphql;
    Limits {
        max_tokens: graphql.max_tokens,
        max_depth: graphql.max_depth,
        max_aliases: graphql.max_aliases,
        max_root_fields: graphql.max_root_fields,
        max_directives: graphql.max_directives,
        max_cost: graphql.max_cost as u64,
        introspection: config.allows_introspection(),
    }
}
