//! The sources as they are configured now, and how other ones take their places while the gateway serves: what was used up of
//! an account stays used up, and a source that is configured as before is not touched.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::config::{Config, Environment, SourceConfig};
use crate::domain::id::SourceName;
use crate::jobs::Jobs;
use crate::outbound::credentials::rotation::Followers;
use crate::outbound::credentials::{NextSecrets, SecretFiles};
use crate::outbound::http::{HttpRoad, Roads};
use crate::outbound::upstreams::{self, Account, Means, SourceSettings};
use crate::ports::credentials::Credentials;
use crate::ports::upstream::JobReader;

use super::settings;

/// For how long the use of a source is remembered that was taken out: as long as its longest budget counts.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The sources that are asked now.
pub(super) struct Sources {
    means: Means,
    secrets: Arc<SecretFiles>,
    roads: Arc<Roads>,
    held: Mutex<BTreeMap<SourceName, Held>>,
    /// Whoever follows the secrets, from when the gateway serves.
    followers: OnceLock<Followers>,
}

struct Held {
    config: SourceConfig,
    account: Account,
    reader: Arc<dyn JobReader>,
    /// When it was taken out, if it was.
    gone: Option<Instant>,
}

/// Other sources, made ready and not asked yet.
pub(super) struct Next {
    secrets: NextSecrets,
    sources: BTreeMap<SourceName, Ready>,
}

struct Ready {
    config: SourceConfig,
    settings: SourceSettings,
    account: Account,
    reader: Arc<dyn JobReader>,
    /// How it differs from what is asked now; nothing where it does not.
    change: Option<Change>,
}

/// How a source differs from what is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is the same place, asked otherwise.
    Manner,
    /// It is new, another place, called another way, or it is shown another credential: how it did so far says nothing.
    Place,
}

impl Sources {
    /// Makes the sources of a configuration ready to be asked.
    pub(super) fn new(
        config: &Config,
        secrets: Arc<SecretFiles>,
        roads: Arc<Roads>,
        means: Means,
    ) -> anyhow::Result<Self> {
        let mut held = BTreeMap::new();
        for (name, source) in &config.sources {
            let settings =
                settings::source(name, source).with_context(|| format!("sources.{name}.base_url"))?;
            let account = Account::new(&settings, means.tier.as_ref());
            let road = roads.road(source);
            if let Some(problem) = road.fault() {
                tracing::error!(source = %name, %problem, "source cannot be called; its proxy or certificate files are unusable");
            }
            let means = Means { credentials: secrets.of(name), road, ..means.clone() };
            let reader = upstreams::reader_on(source.upstream, settings, means, account.clone());
            held.insert(name.clone(), Held { config: source.clone(), account, reader, gone: None });
        }
        Ok(Self { means, secrets, roads, held: Mutex::new(held), followers: OnceLock::new() })
    }

    /// All of them.
    pub(super) fn readers(&self) -> Vec<Arc<dyn JobReader>> {
        let held = self.lock();
        held.values().filter(|held| held.gone.is_none()).map(|held| Arc::clone(&held.reader)).collect()
    }

    /// Takes over whoever follows the secrets.
    pub(super) fn followed_by(&self, followers: Followers) {
        self.followers.set(followers).ok();
    }

    /// Makes the sources of another configuration ready. Changes nothing yet. Blocks on the disk.
    ///
    /// # Errors
    /// With the path of each fault, and what it is.
    pub(super) fn prepare(&self, next: &Config, env: &Environment) -> Result<Next, Vec<(String, String)>> {
        let mut faults = Vec::new();
        let secrets = self.secrets.prepare(&next.sources, env).map_err(|unreadable| {
            let fault = |one: &crate::outbound::credentials::Unreadable| {
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
            let settings = match settings::source(name, source) {
                Ok(settings) => settings,
                Err(error) => {
                    faults.push((format!("sources.{name}.base_url"), error.to_string()));
                    continue;
                }
            };
            let road = self.roads.road(source);
            let as_before = before.is_some_and(|held| held.config.egress == source.egress);
            if let Some(fault) = road.fault().filter(|_| !as_before) {
                faults.push((format!("sources.{name}.{}", fault.option), fault.message));
                continue;
            }
            let ready = self.ready(name, source, settings, before, (secrets.of(name), road));
            sources.insert(name.clone(), ready);
        }
        drop(held);
        if faults.is_empty() { Ok(Next { secrets, sources }) } else { Err(faults) }
    }

    fn ready(
        &self,
        name: &SourceName,
        source: &SourceConfig,
        settings: SourceSettings,
        before: Option<&Held>,
        (credentials, road): (Arc<dyn Credentials>, Arc<HttpRoad>),
    ) -> Ready {
        let config = source.clone();
        let known = before.filter(|held| held.config.upstream == source.upstream);
        let change = match known.filter(|held| held.gone.is_none()).map(|held| &held.config) {
            Some(held) if held == source => None,
            Some(held)
                if held.base_url == source.base_url
                    && held.credential == source.credential
                    && held.egress == source.egress =>
            {
                Some(Change::Manner)
            }
            Some(_) | None => Some(Change::Place),
        };
        if let (Some(held), None) = (known, change) {
            let (account, reader) = (held.account.clone(), Arc::clone(&held.reader));
            return Ready { config, settings, account, reader, change };
        }
        let tier = self.means.tier.as_ref();
        let account = known.map_or_else(|| Account::new(&settings, tier), |held| held.account.clone());
        tracing::debug!(source = %name, ?change, "source prepared");
        let means = Means { road, credentials, ..self.means.clone() };
        let reader = upstreams::reader_on(source.upstream, settings.clone(), means, account.clone());
        Ready { config, settings, account, reader, change }
    }

    /// Asks other sources from now on. `anew` has every secret followed anew, because how has changed.
    pub(super) fn put(&self, next: Next, jobs: &Jobs, config: &Config, anew: bool) {
        let Next { secrets, sources } = next;
        self.secrets.put(secrets);
        self.roads.set_interval(config.credentials.reload_interval);
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
            let Ready { config, settings, account, reader, change } = ready;
            if change.is_some() {
                account.hold_to(&settings);
            }
            if change == Some(Change::Place) {
                account.forget_the_place();
            }
            if anew || change.is_some() {
                followed.push(Arc::clone(&reader));
            }
            held.insert(name, Held { config, account, reader, gone: None });
        }
        drop(held);
        jobs.put_sources(self.readers());
        if let Some(followers) = self.followers.get().filter(|_| !followed.is_empty()) {
            followers.follow(followed, &config.credentials);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lock().keys()).finish()
    }
}
