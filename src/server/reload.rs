//! Reloads the configuration while the gateway serves. A new configuration is applied completely or not at all, except
//! for the options that need a restart, which are reported. Ends the streams of clients that are not valid any more.

mod differences;
pub(super) mod watch;

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{Config, Environment, ValidationErrors};
use crate::inbound::admin::status::LastReload;
use crate::inbound::client_limits::ClientLimits;
use crate::inbound::http::layers::LiveSettings;
use crate::inbound::http::peer::TrustedProxies;
use crate::inbound::page::PageSettings;
use crate::inbound::streams::StreamRegistry;
use crate::jobs::Jobs;
use crate::outbound::credentials::rotation::RotationTasks;
use crate::outbound::identity::LiveIdentity;
use crate::telemetry::log;
use crate::telemetry::meters::{self, ReloadOutcome};

use super::settings;
use super::sources::SourceSet;

/// The running parts that a reload changes.
pub(super) struct ReloadableParts {
    pub(super) identity: LiveIdentity,
    pub(super) streams: StreamRegistry,
    pub(super) jobs: Jobs,
    pub(super) sources: SourceSet,
    pub(super) clients: ClientLimits,
    pub(super) layers: LiveSettings,
    pub(super) page: PageSettings,
}

/// The active configuration, and its replacement by another one.
pub struct Reload {
    /// The initial configuration with all changes since.
    running: Mutex<Config>,
    env: Environment,
    parts: ReloadableParts,
    /// The outcome of the last reload; none if there was none.
    last: Mutex<Option<Reloaded>>,
    report: LastReload,
}

/// The outcome of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is active, except for the options that need a restart.
    Done {
        /// Options that were changed.
        changed: Vec<String>,
        /// Streams that were ended, because their client is not valid any more.
        ended: usize,
        /// Options that differ from the running ones and were not changed.
        need_restart: Vec<String>,
    },
    /// Nothing was changed. The path of each validation error, and its text.
    Refused(Vec<(String, String)>),
}

impl Reloaded {
    /// The label of the metric, and the text of the status page.
    fn report(&self) -> (ReloadOutcome, &'static str) {
        match self {
            Self::Refused(_) => (ReloadOutcome::Refused, "refused: the one before stays in force"),
            Self::Done { changed, need_restart, .. } if !need_restart.is_empty() => {
                let counted =
                    if changed.is_empty() { ReloadOutcome::Unchanged } else { ReloadOutcome::Applied };
                (counted, "done, and a restart is needed for the rest")
            }
            Self::Done { changed, .. } if changed.is_empty() => {
                (ReloadOutcome::Unchanged, "nothing was changed")
            }
            Self::Done { .. } => (ReloadOutcome::Applied, "done"),
        }
    }
}

/// Why the configuration is reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadTrigger {
    /// An operator requested it, and expects the outcome in the log.
    Signal,
    /// It may have changed. If it has not, or is rejected for the same errors again, nothing is logged.
    Noticed,
}

impl Reload {
    pub(super) fn new(running: Config, env: Environment, parts: ReloadableParts) -> Self {
        Self {
            running: Mutex::new(running),
            env,
            parts,
            last: Mutex::default(),
            report: LastReload::default(),
        }
    }

    /// Takes over the tasks that watch the secrets.
    pub(super) fn serves(&self, followers: RotationTasks) {
        self.parts.sources.followed_by(followers);
    }

    fn last(&self) -> MutexGuard<'_, Option<Reloaded>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the current file is invalid, so that a restart would fail.
    pub fn is_refused(&self) -> bool {
        matches!(&*self.last(), Some(Reloaded::Refused(_)))
    }

    /// The handle to read the last outcome.
    pub(super) fn report(&self) -> LastReload {
        self.report.clone()
    }

    /// Applies the text of the configuration file, as [`Reload::adopt`] does. Without a file the defaults and the
    /// environment are used.
    fn adopt_text(
        &self,
        text: Result<String, ValidationErrors>,
        path: Option<&Path>,
        why: ReloadTrigger,
    ) -> Reloaded {
        let read = text.and_then(|text| match path {
            Some(path) => Config::from_text(&text, path, &self.env),
            None => Config::from_yaml(&text, &self.env),
        });
        self.adopt(read, why)
    }

    /// Applies a configuration as far as possible without a restart, or rejects it as a whole. Logs the outcome. Blocks
    /// on the disk, if it names new secrets.
    pub fn adopt(&self, read: Result<Config, ValidationErrors>, why: ReloadTrigger) -> Reloaded {
        let outcome = match read {
            Ok(next) => self.try_to_adopt(&next),
            Err(faults) => {
                let owned = |(path, fault): (&str, &str)| (path.to_owned(), fault.to_owned());
                Reloaded::Refused(faults.iter().map(owned).collect())
            }
        };
        let before = self.last().clone();
        let logs = why == ReloadTrigger::Signal
            || match (&outcome, before) {
                (
                    Reloaded::Done { changed, need_restart, .. },
                    Some(Reloaded::Done { need_restart: known, .. }),
                ) => !changed.is_empty() || *need_restart != known,
                (Reloaded::Done { changed, need_restart, .. }, None) => {
                    !changed.is_empty() || !need_restart.is_empty()
                }
                (outcome, before) => before.as_ref() != Some(outcome),
            };
        if logs {
            self.say(&outcome);
            let (counted, word) = outcome.report();
            meters::reload(counted);
            self.report.record(word);
            *self.last() = Some(outcome.clone());
        }
        outcome
    }

    fn try_to_adopt(&self, next: &Config) -> Reloaded {
        let mut running = self.running();
        // The access rules without clients are decided at the start, and a file that is truncated before its clients
        // must not disable authentication.
        if next.auth_disabled() != running.auth_disabled() {
            let fault = if next.auth_disabled() {
                "removes all clients and issuers, so that any caller could read every job; keep clients or jwt, or restart"
            } else {
                "adds the first clients or issuers, while any caller may read every job so far; restart"
            };
            return Reloaded::Refused(vec![("clients".to_owned(), fault.to_owned())]);
        }
        let sources = match self.parts.sources.prepare(next, &self.env) {
            Ok(sources) => sources,
            Err(faults) => return Reloaded::Refused(faults),
        };
        // the last step that can fail
        if let Err(error) = self.parts.identity.replace(next) {
            return Reloaded::Refused(vec![("jwt".to_owned(), error.to_string())]);
        }
        let before = running.clone();
        differences::take_over(&mut running, next);
        // locked to the end: two files are never applied at the same time
        let config = running.clone();
        let ReloadableParts { streams, jobs, clients, layers, page, .. } = &self.parts;
        self.parts.sources.put(sources, jobs, &config, before.credentials != config.credentials);
        jobs.put_rules(settings::freshness(&config), settings::follow(&config));
        streams.set_settings(settings::streams(&config));
        clients.set(settings::clients(&config));
        let proxies = TrustedProxies(config.server.trusted_proxies.clone());
        layers.put(settings::origins(&config), proxies);
        page.put(&settings::page_logins(&config));
        if before.telemetry.log_level != config.telemetry.log_level
            && let Err(error) = log::set_level(&config.telemetry.log_level)
        {
            // it was checked when the file was parsed, by the same rules
            tracing::error!(%error, "log level not changed");
        }
        let ended = streams.review(|holder| jobs.is_still_valid(holder));
        Reloaded::Done {
            changed: differences::between(&before, &config),
            ended,
            need_restart: differences::between(&config, next),
        }
    }

    fn say(&self, outcome: &Reloaded) {
        match outcome {
            Reloaded::Done { changed, ended, need_restart } => {
                if !need_restart.is_empty() {
                    let options = need_restart.join(", ");
                    tracing::warn!(options, "changed options need a restart");
                }
                let running = self.running();
                tracing::info!(
                    changed = changed.join(", "),
                    sources = running.sources.len(),
                    clients = running.clients.len(),
                    issuers = running.jwt.len(),
                    ended,
                    "configuration reloaded"
                );
            }
            Reloaded::Refused(faults) => {
                for (path, fault) in faults {
                    tracing::error!(path, error = fault, "invalid configuration");
                }
                tracing::error!("configuration not reloaded; the previous one stays active");
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Config> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("last", &*self.last()).finish_non_exhaustive()
    }
}
