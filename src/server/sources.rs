//! The configured sources, and their replacement while the gateway serves: the used budget of a source stays used, and
//! a source with an unchanged configuration is not touched.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::config::{Config, Environment, SourceConfig};
use crate::domain::id::SourceName;
use crate::jobs::Jobs;
use crate::outbound::credentials::rotation::RotationTasks;
use crate::outbound::credentials::{NextSecrets, SecretFiles};
use crate::outbound::http::{HttpClients, UpstreamHttpClient};
use crate::outbound::upstreams::{self, SourceDeps, SourceSettings, SourceState};
use crate::ports::credentials::Credentials;
use crate::ports::upstream::JobReader;

use super::settings;

/// For how long the state of a removed source is kept: as long as its longest budget counts.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The current sources.
pub(super) struct SourceSet {
    deps: SourceDeps,
    secrets: Arc<SecretFiles>,
    http_clients: Arc<HttpClients>,
    /// From an option that needs a restart.
    max_rows_body: usize,
    held: Mutex<BTreeMap<SourceName, ActiveSource>>,
    /// The tasks that watch the secrets, once the gateway serves.
    followers: OnceLock<RotationTasks>,
}

struct ActiveSource {
    config: SourceConfig,
    source_state: SourceState,
    reader: Arc<dyn JobReader>,
    /// When it was removed, if it was.
    gone: Option<Instant>,
}

/// Other sources, built and not called yet.
pub(super) struct PreparedSources {
    secrets: NextSecrets,
    sources: BTreeMap<SourceName, PreparedSource>,
}

struct PreparedSource {
    config: SourceConfig,
    settings: SourceSettings,
    source_state: SourceState,
    reader: Arc<dyn JobReader>,
    /// The difference from the current source; none if it is unchanged.
    change: Option<SourceChange>,
}

/// The kind of difference from the current source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceChange {
    /// It has the same URL, with other settings.
    Manner,
    /// It is new, or its URL, proxy or TLS configuration or credential has changed: its previous health does not apply.
    Place,
}

impl SourceSet {
    /// Builds the sources of a configuration.
    pub(super) fn new(
        config: &Config,
        secrets: Arc<SecretFiles>,
        http_clients: Arc<HttpClients>,
        deps: SourceDeps,
    ) -> anyhow::Result<Self> {
        let max_rows_body = settings::max_rows_body(config);
        let mut held = BTreeMap::new();
        for (name, source) in &config.sources {
            let settings = settings::source(name, source, max_rows_body)
                .with_context(|| format!("sources.{name}.base_url"))?;
            let source_state = SourceState::new(&settings, deps.shared_store.as_ref());
            let http_client = http_clients.http_client(source);
            if let Some(problem) = http_client.fault() {
                tracing::error!(source = %name, %problem, "source cannot be called; its proxy or certificate files are unusable");
            }
            let deps = SourceDeps { credentials: secrets.of(name), http_client, ..deps.clone() };
            let reader = upstreams::reader_on(source.upstream, settings, deps, source_state.clone());
            held.insert(
                name.clone(),
                ActiveSource { config: source.clone(), source_state, reader, gone: None },
            );
        }
        let (held, followers) = (Mutex::new(held), OnceLock::new());
        Ok(Self { deps, secrets, http_clients, max_rows_body, held, followers })
    }

    /// All of them.
    pub(super) fn readers(&self) -> Vec<Arc<dyn JobReader>> {
        let held = self.lock();
        held.values().filter(|held| held.gone.is_none()).map(|held| Arc::clone(&held.reader)).collect()
    }

    /// Takes over the tasks that watch the secrets.
    pub(super) fn followed_by(&self, followers: RotationTasks) {
        self.followers.set(followers).ok();
    }

    /// Builds the sources of another configuration. Changes nothing yet. Blocks on the disk.
    ///
    /// # Errors
    /// Returns the path of each validation error, and its text.
    pub(super) fn prepare(
        &self,
        next: &Config,
        env: &Environment,
    ) -> Result<PreparedSources, Vec<(String, String)>> {
        let mut faults = Vec::new();
        let secrets = self.secrets.prepare(&next.sources, env).map_err(|unreadable| {
            let fault = |one: &crate::outbound::credentials::UnreadableSecret| {
                let message =
                    format!("{} {}: put the secret there, or name another place", one.reference, one.reason);
                (format!("sources.{}.credential", one.source_name), message)
            };
            unreadable.iter().map(fault).collect::<Vec<_>>()
        })?;
        let held = self.lock();
        let mut sources = BTreeMap::new();
        for (name, source) in &next.sources {
            let before = held.get(name);
            if before.is_some_and(|held| held.config.upstream != source.upstream) {
                let message = "cannot become another upstream while jobgate serves: give the source another name, or restart";
                faults.push((format!("sources.{name}.upstream"), message.to_owned()));
                continue;
            }
            let settings = match settings::source(name, source, self.max_rows_body) {
                Ok(settings) => settings,
                Err(error) => {
                    faults.push((format!("sources.{name}.base_url"), error.to_string()));
                    continue;
                }
            };
            let http_client = self.http_clients.http_client(source);
            let as_before = before.is_some_and(|held| held.config.egress == source.egress);
            if let Some(fault) = http_client.fault().filter(|_| !as_before) {
                faults.push((format!("sources.{name}.{}", fault.option), fault.message));
                continue;
            }
            let ready = self.ready(name, source, settings, before, (secrets.of(name), http_client));
            sources.insert(name.clone(), ready);
        }
        drop(held);
        if faults.is_empty() { Ok(PreparedSources { secrets, sources }) } else { Err(faults) }
    }

    fn ready(
        &self,
        name: &SourceName,
        source: &SourceConfig,
        settings: SourceSettings,
        before: Option<&ActiveSource>,
        (credentials, http_client): (Arc<dyn Credentials>, Arc<UpstreamHttpClient>),
    ) -> PreparedSource {
        let config = source.clone();
        let known = before.filter(|held| held.config.upstream == source.upstream);
        let change = match known.filter(|held| held.gone.is_none()).map(|held| &held.config) {
            Some(held) if held == source => None,
            Some(held)
                if held.base_url == source.base_url
                    && held.credential == source.credential
                    && held.egress == source.egress =>
            {
                Some(SourceChange::Manner)
            }
            Some(_) | None => Some(SourceChange::Place),
        };
        if let (Some(held), None) = (known, change) {
            let (source_state, reader) = (held.source_state.clone(), Arc::clone(&held.reader));
            return PreparedSource { config, settings, source_state, reader, change };
        }
        let shared_store = self.deps.shared_store.as_ref();
        let source_state =
            known.map_or_else(|| SourceState::new(&settings, shared_store), |held| held.source_state.clone());
        tracing::debug!(source = %name, ?change, "source prepared");
        let deps = SourceDeps { http_client, credentials, ..self.deps.clone() };
        let reader = upstreams::reader_on(source.upstream, settings.clone(), deps, source_state.clone());
        PreparedSource { config, settings, source_state, reader, change }
    }

    /// Replaces the sources. `anew` restarts the watch of every secret, because its settings have changed.
    pub(super) fn put(&self, next: PreparedSources, jobs: &Jobs, config: &Config, anew: bool) {
        let PreparedSources { secrets, sources } = next;
        self.secrets.put(secrets);
        self.http_clients.set_interval(config.credentials.reload_interval);
        let mut held = self.lock();
        let now = Instant::now();
        for (name, held) in held.iter_mut().filter(|(name, _)| !sources.contains_key(*name)) {
            held.gone.get_or_insert(now);
            if let Some(followers) = self.followers.get() {
                followers.leave(name);
            }
        }
        held.retain(|_, held| held.gone.is_none_or(|since| now.duration_since(since) < REMEMBERED));
        let mut followed = Vec::new();
        for (name, ready) in sources {
            let PreparedSource { config, settings, source_state, reader, change } = ready;
            if change.is_some() {
                source_state.set_limits(&settings);
            }
            if change == Some(SourceChange::Place) {
                source_state.reset_endpoint_state();
            }
            if anew || change.is_some() {
                followed.push(Arc::clone(&reader));
            }
            held.insert(name, ActiveSource { config, source_state, reader, gone: None });
        }
        drop(held);
        jobs.put_sources(self.readers());
        if let Some(followers) = self.followers.get().filter(|_| !followed.is_empty()) {
            followers.follow(followed, &config.credentials);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, ActiveSource>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}
