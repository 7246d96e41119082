//! Builds the gateway: one linear function from a valid configuration to a gateway that can serve.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Environment, PersistedQueries, SourceConfig};
use crate::domain::id::SourceName;
use crate::inbound::admin;
use crate::inbound::admin::metrics::MetricsEndpoint;
use crate::inbound::admin::readiness::Readiness;
use crate::inbound::admin::status::StatusEndpoint;
use crate::inbound::answer_limits::answer_memory::AnswerMemory;
use crate::inbound::answer_limits::cpu_limiter::CpuLimiter;
use crate::inbound::client_limits::ClientLimits;
use crate::inbound::graphql::document::admission::Admission;
use crate::inbound::graphql::document::persisted::{Manifest, PersistedDocuments};
use crate::inbound::graphql::execution::endpoint::GraphqlEndpoint;
use crate::inbound::graphql::schema;
use crate::inbound::http::concurrency_limit::ConcurrencyLimit;
use crate::inbound::http::layers::{LayerSettings, LiveSettings};
use crate::inbound::http::min_rate_body::BodyRate as BodyPace;
use crate::inbound::http::peer::TrustedProxies;
use crate::inbound::page::PageSettings;
use crate::inbound::router::{self, PublicRoutes};
use crate::inbound::streams::{StreamCounts, StreamRegistry};
use crate::jobs::{Jobs, Ports};
use crate::outbound::credentials::SecretFiles;
use crate::outbound::credentials::rotation::Rotation;
use crate::outbound::credentials::secret;
use crate::outbound::http::{HttpClients, UpstreamHttpClient};
use crate::outbound::identity::LiveIdentity;
use crate::outbound::identity::jwt;
use crate::outbound::identity::watch_tokens::WatchTokens;
use crate::outbound::redis::SharedStore;
use crate::outbound::system::{RuntimeSpawner, SystemClock, ThreadEntropy};
use crate::outbound::upstreams::{self, SourceDeps};
use crate::ports::clock::Clock;
use crate::ports::credentials::Credentials;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::store::StoreHealth;
use crate::ports::upstream::JobReader;

use super::explorer;
use super::handles;
use super::listeners::{ConnectionLimits, ConnectionTimeouts, Listener, Shutdown};
use super::reload::{Reload, ReloadableParts};
use super::settings;
use super::sources::SourceSet;
use super::stores::{self, StoreSet};
use super::tls::Certificate;

/// The option with the path of the manifest of documents.
const MANIFEST: &str = "graphql.trusted_documents.manifest";

/// A gateway that is bound to its addresses and does not serve yet.
#[derive(Debug)]
pub struct Gateway {
    public: Listener,
    admin: Listener,
    jobs: Jobs,
    routes: PublicRoutes,
    limits: ConnectionLimits,
    certificate: Option<Certificate>,
    readiness: Readiness,
    requests: ConcurrencyLimit,
    connections: ConcurrencyLimit,
    admin_connections: usize,
    started: (Timestamp, Instant),
    spawner: RuntimeSpawner,
    streams: StreamRegistry,
    shared_store: Option<SharedStore>,
    reload: Arc<Reload>,
    /// Stops the tasks that refresh issuers' keys.
    keys_end: CancellationToken,
    rotation: Rotation,
    http_clients: Arc<HttpClients>,
    drain_delay: Duration,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Serving {
    readiness: Readiness,
    spawner: RuntimeSpawner,
    /// The shutdown of the public listener.
    ends: Shutdown,
    /// Cancelled after the drain has begun: streams receive updates until they are closed.
    following: CancellationToken,
    /// Cancelled last: readiness probes receive "not ready" for as long as possible.
    probes_end: CancellationToken,
    drain_delay: Duration,
    streams: StreamRegistry,
    jobs: Jobs,
    reload: Arc<Reload>,
    keys_end: CancellationToken,
}

impl Gateway {
    /// Builds everything and binds the addresses. Calls no upstream.
    ///
    /// A source whose secret cannot be read is left unconfigured, and the others serve.
    ///
    /// # Errors
    /// Returns an error if an address cannot be bound, or the certificate or the manifest of documents is invalid,
    /// naming the option.
    pub async fn build(config: &Config, env: &Environment) -> anyhow::Result<Self> {
        let spawner = RuntimeSpawner::default();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let started = clock.now();
        let (credentials, problems) = SecretFiles::read(&config.sources, env);
        for problem in problems {
            tracing::error!(%problem, "source has no usable credential; it is unconfigured");
        }
        let credentials = Arc::new(credentials);
        let StoreSet { store, ledger, leases, feed, rows, shared_store } = stores::open(config, env, &clock)?;
        let deps = deps(Arc::clone(&credentials) as Arc<dyn Credentials>, &clock, shared_store.clone())?;
        let http_clients = Arc::new(HttpClients::new(env, config.credentials.reload_interval));
        let sources = SourceSet::new(config, Arc::clone(&credentials), Arc::clone(&http_clients), deps)?;
        let rotation =
            Rotation::new(credentials, sources.readers(), Arc::clone(&clock), config.credentials.clone());
        let keys_end = CancellationToken::new();
        let deps = jwt::JwtDeps {
            clock: Arc::clone(&clock),
            spawner: Arc::new(spawner.clone()),
            stop: keys_end.clone(),
            env: env.clone(),
        };
        let identity = LiveIdentity::new(config, watch_tokens(config, env)?, deps)
            .context("the keys of issuers cannot be read")?;
        let ports = Ports {
            identity: Arc::new(identity.clone()),
            readers: sources.readers(),
            store,
            ledger,
            leases,
            feed,
            rows,
            clock: Arc::clone(&clock),
            spawner: Arc::new(spawner.clone()),
        };
        let jobs = Jobs::new(ports, settings::freshness(config), settings::follow(config));

        let server = &config.server;
        let schema = schema::build(jobs.clone(), config.allows_introspection());
        let streams = {
            let spawner = spawner.clone();
            StreamRegistry::new(settings::streams(config), move |task| spawner.spawn(TaskKind::Stream, task))
        };
        let types = schema::input_types().context("read the input types of the schema")?;
        let clients = ClientLimits::new(settings::clients(config));
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let admission = Admission {
            clients: clients.clone(),
            documents: known_documents(config)?,
            memory: AnswerMemory::new(settings::max_answer_bytes(server), server.answer_memory),
            cpu: CpuLimiter::new(cores.saturating_sub(1)),
            plans: Some(jobs.clone()),
        };
        let endpoint = GraphqlEndpoint::new(
            schema,
            types,
            jobs.clone(),
            settings::documents(config),
            admission,
            settings::body_timeout(server),
            streams.clone(),
        );
        endpoint.check_listed().map_err(|fault| anyhow::anyhow!("{MANIFEST}: {fault}"))?;
        let certificate = server.tls.as_ref().map(Certificate::read).transpose()?;
        let requests = ConcurrencyLimit::new(server.max_requests);
        let shares = handles::share(config, handles::raise());
        let connections = ConcurrencyLimit::new(shares.public);
        let layers = LayerSettings {
            max_body: server.max_body,
            pace: BodyPace {
                within: settings::body_timeout(server),
                bytes_per_second: u32::try_from(server.min_body_rate).unwrap_or(u32::MAX),
            },
            deadline: server.request_timeout,
            concurrency: requests.clone(),
            access_log: config.telemetry.access_log,
            origins: settings::origins(config),
            open: config.auth_disabled(),
            proxies: TrustedProxies(server.trusted_proxies.clone()),
            tls: certificate.is_some(),
            ..LayerSettings::default()
        };
        let live = LiveSettings::new(&layers);
        let explorer = explorer::open(config);
        let page = PageSettings::new(explorer.is_installed(), &settings::page_logins(config));
        let parts = ReloadableParts {
            identity,
            streams: streams.clone(),
            jobs: jobs.clone(),
            sources,
            clients: clients.clone(),
            layers: live.clone(),
            page: page.clone(),
        };
        Ok(Self {
            public: Listener::bind("public", "server.listen", server.listen).await?,
            admin: Listener::bind("admin", "server.admin_listen", server.admin_listen).await?,
            routes: router::public_live(endpoint, jobs.clone(), clients, &layers, live, page, explorer),
            reload: Arc::new(Reload::new(config.clone(), env.clone(), parts)),
            keys_end,
            jobs,
            limits: ConnectionLimits {
                connections: connections.clone(),
                timeouts: ConnectionTimeouts {
                    idle: server.idle_timeout,
                    header: server.header_timeout,
                    write: settings::write_timeout(server),
                },
            },
            certificate,
            readiness: Readiness::over(vec![requests.clone(), connections.clone()]),
            requests,
            connections,
            admin_connections: shares.admin,
            started: (started, Instant::now()),
            spawner,
            streams,
            shared_store,
            rotation,
            http_clients,
            drain_delay: server.drain_delay,
        })
    }

    /// The use cases behind the listeners.
    pub fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// The address of the public listener.
    pub const fn public_addr(&self) -> SocketAddr {
        self.public.local_addr()
    }

    /// The address of the admin listener.
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Starts both listeners. Returns at once; the gateway serves in the background.
    pub fn serve(self) -> Serving {
        let ends = Shutdown::default();
        let spawner = Arc::new(self.spawner.clone());
        tracing::info!(public = %self.public_addr(), admin = %self.admin_addr(), "listening");
        let probes_end = CancellationToken::new();
        let tls = self.certificate.as_ref().map(Certificate::acceptor);
        let metrics = MetricsEndpoint::new(self.jobs.clone(), self.streams.clone());
        metrics.export_otlp();
        let status = StatusEndpoint {
            jobs: self.jobs.clone(),
            streams: self.streams.clone(),
            readiness: self.readiness.clone(),
            requests: self.requests,
            connections: self.connections.clone(),
            last_reload: self.reload.report(),
            started: self.started,
        };
        // a flood at the public listener does not affect the admin listener
        let apart =
            ConnectionLimits { connections: ConcurrencyLimit::new(self.admin_connections), ..self.limits };
        let public = self.public.serve(self.routes, tls, self.limits, spawner.clone(), ends.clone());
        let probes = admin::router(self.readiness.clone(), metrics, status);
        let closed = Shutdown { closed: probes_end.clone(), idle: probes_end.clone(), ..Shutdown::default() };
        let admin = self.admin.serve(probes, None, apart, spawner, closed);
        self.spawner.spawn(TaskKind::Listener, Box::pin(public));
        self.spawner.spawn(TaskKind::Listener, Box::pin(admin));
        if let Some(certificate) = self.certificate {
            let task = certificate.keep_fresh(ends.closed.clone());
            self.spawner.spawn(TaskKind::Certificate, Box::pin(task));
        }
        let following = CancellationToken::new();
        if let Some(shared_store) = self.shared_store {
            self.spawner.spawn(TaskKind::Replicas, Box::pin(shared_store.run(following.clone())));
        }
        self.jobs.start_following(following.clone());
        let followers = self.rotation.start(Arc::new(self.spawner.clone()), following.clone());
        self.reload.serves(followers);
        self.spawner.spawn(TaskKind::Rotation, Box::pin(self.http_clients.follow(following.clone())));
        self.readiness.set(true);
        Serving {
            readiness: self.readiness,
            spawner: self.spawner,
            ends,
            following,
            probes_end,
            drain_delay: self.drain_delay,
            streams: self.streams,
            jobs: self.jobs,
            reload: self.reload,
            keys_end: self.keys_end,
        }
    }
}

impl Serving {
    /// Completes when an essential task has panicked.
    pub async fn broken(&self) {
        self.spawner.fatal().await;
    }

    /// The number of followed jobs.
    pub fn followed(&self) -> usize {
        self.jobs.followed()
    }

    /// The health of the store.
    pub fn store_health(&self) -> StoreHealth {
        self.jobs.store_health()
    }

    /// The numbers of open streams.
    pub fn streams(&self) -> StreamCounts {
        self.streams.counts()
    }

    /// The parts that can change while it serves.
    pub const fn reload(&self) -> &Arc<Reload> {
        &self.reload
    }

    /// Becomes unready, keeps serving for the configured delay, stops accepting, ends the streams over their window,
    /// closes idle connections, and waits until all requests are finished.
    pub async fn drain(&self) {
        self.readiness.set(false);
        // Traffic still arrives until every load balancer has noticed that it is unready. Keep-alive connections are
        // closed with each response, so that few are left when they are closed.
        self.ends.leaving.cancel();
        tokio::time::sleep(self.drain_delay).await;
        self.ends.closed.cancel();
        self.streams.drain(self.streams.settings().drain_window).await;
        self.ends.idle.cancel();
        self.following.cancel();
        self.keys_end.cancel();
        self.probes_end.cancel();
        self.spawner.idle().await;
        self.jobs.close().await;
    }
}

/// Prepares the signing of watch tokens. Blocks on the disk. If the configured secret is missing, no random one
/// replaces it: other replicas could not verify its tokens.
///
/// # Errors
/// Returns an error if the secret cannot be read or is too short, naming the option.
pub fn watch_tokens(config: &Config, env: &Environment) -> anyhow::Result<WatchTokens> {
    let Some(reference) = &config.watch_tokens.secret else {
        return WatchTokens::of_this_process().context("watch_tokens");
    };
    let secret = secret::read(reference, env)
        .map_err(|reason| anyhow::anyhow!("watch_tokens.secret: {reference} {reason}"))?;
    WatchTokens::shared(&secret)
        .map_err(|reason| anyhow::anyhow!("watch_tokens.secret: {reference} {reason}"))
}

/// Builds the reader of each configured source, without calling it. With a shared store its budget is that of all
/// replicas.
///
/// # Errors
/// Returns an error if the HTTP client cannot be built on this machine, or a base URL is unusable.
pub fn readers(
    config: &Config,
    env: &Environment,
    credentials: Arc<dyn Credentials>,
    clock: &Arc<dyn Clock>,
    shared_store: Option<SharedStore>,
) -> anyhow::Result<Vec<Arc<dyn JobReader>>> {
    let deps = deps(credentials, clock, shared_store)?;
    let http_clients = HttpClients::new(env, config.credentials.reload_interval);
    let ready = |(name, source): (&SourceName, &SourceConfig)| {
        let settings = settings::source(name, source, settings::max_rows_body(config))
            .with_context(|| format!("sources.{name}.base_url"))?;
        let deps = SourceDeps { http_client: http_clients.http_client(source), ..deps.clone() };
        Ok(upstreams::reader(source.upstream, settings, deps))
    };
    config.sources.iter().map(ready).collect()
}

fn known_documents(config: &Config) -> anyhow::Result<PersistedDocuments> {
    let automatic = config.graphql.persisted_queries == PersistedQueries::Auto;
    let Some(trusted) = &config.graphql.trusted_documents else {
        return Ok(PersistedDocuments::new(None, false, automatic));
    };
    let cannot = || format!("{MANIFEST}: {} cannot be read", trusted.manifest.display());
    let json = std::fs::read_to_string(&trusted.manifest).with_context(cannot)?;
    let manifest = Manifest::parse(&json).map_err(|fault| anyhow::anyhow!("{MANIFEST}: {fault}"))?;
    Ok(PersistedDocuments::new(Some(manifest), trusted.only, automatic))
}

/// Validates the files that a configuration names, except the credentials of sources: the certificate, the manifest,
/// and the proxy and TLS files of sources.
pub fn faults_of_files(config: &Config, env: &Environment) -> Vec<String> {
    let http_clients = HttpClients::new(env, config.credentials.reload_interval);
    let calls = config.sources.iter().filter_map(|(name, source)| {
        let fault = http_clients.http_client(source).fault()?;
        Some(format!("sources.{name}.{fault}"))
    });
    let certificate = config.server.tls.as_ref().map(Certificate::read).transpose().map(drop);
    let documents = known_documents(config).map(drop);
    let faults = [certificate, documents].into_iter().filter_map(Result::err);
    faults.map(|fault| format!("{fault:#}")).chain(calls).collect()
}

/// The dependencies that all sources share.
fn deps(
    credentials: Arc<dyn Credentials>,
    clock: &Arc<dyn Clock>,
    shared_store: Option<SharedStore>,
) -> anyhow::Result<SourceDeps> {
    Ok(SourceDeps {
        http_client: Arc::new(UpstreamHttpClient::new().context("the HTTP client cannot be built")?),
        credentials,
        clock: Arc::clone(clock),
        entropy: Arc::new(ThreadEntropy),
        shared_store,
    })
}
