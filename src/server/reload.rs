//! What can change while the gateway serves: who may ask. Takes a configuration that was read again, puts its clients and
//! issuers in the place of the old ones, and ends the streams of whoever does not stand any more. Says what needs a restart.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::config::{Config, Faults};
use crate::inbound::status::LastReload;
use crate::inbound::streams::Streams;
use crate::jobs::Jobs;
use crate::outbound::identity::LiveIdentity;

/// The sections that are put in place without a restart.
const LIVE: [&str; 2] = ["clients", "jwt"];

/// The running parts that another configuration changes.
#[derive(Debug)]
pub struct Reload {
    /// What is in force: as at the start, but for the live sections.
    running: Mutex<Config>,
    identity: LiveIdentity,
    streams: Streams,
    jobs: Jobs,
    told: LastReload,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It is in force, but for the sections that need a restart. So many streams were ended.
    Done {
        /// Streams whose client does not stand any more.
        ended: usize,
        /// Sections that differ from what is running and stay as they were.
        need_restart: Vec<String>,
    },
    /// Nothing was changed. Every reason is in the log.
    Refused,
}

impl Reload {
    /// Takes what was started from a configuration.
    pub(super) fn new(running: Config, identity: LiveIdentity, streams: Streams, jobs: Jobs) -> Self {
        let running = Mutex::new(running);
        Self { running, identity, streams, jobs, told: LastReload::default() }
    }

    /// Where the last outcome can be read.
    pub(super) fn told(&self) -> LastReload {
        self.told.clone()
    }

    /// Puts a configuration in force as far as it goes without a restart, or refuses it as a whole. Says in the log what
    /// came of it. Blocks nothing.
    pub fn adopt(&self, read: Result<Config, Faults>) -> Reloaded {
        let outcome = self.put_in_force(read);
        self.told.tell(match &outcome {
            Reloaded::Done { need_restart, .. } if need_restart.is_empty() => "done",
            Reloaded::Done { .. } => "done, and a restart is needed for the rest",
            Reloaded::Refused => "refused: the one before stays in force",
        });
        outcome
    }

    fn put_in_force(&self, read: Result<Config, Faults>) -> Reloaded {
        let next = match read {
            Ok(next) => next,
            Err(faults) => {
                for (path, fault) in faults.iter() {
                    tracing::error!(path, fault, "the configuration has a fault");
                }
                tracing::error!("the configuration was not reloaded: the one before stays in force");
                return Reloaded::Refused;
            }
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // What the door holds everybody to was settled at the start, and a file cut off before its clients must open nothing.
        if next.knows_nobody() != running.knows_nobody() {
            let fault = if next.knows_nobody() {
                "leaves nobody who is known, so that whoever comes might ask for everything: keep clients or jwt, or restart"
            } else {
                "names the first who are known, where so far whoever came could ask for everything: restart"
            };
            tracing::error!(path = "clients", fault, "the configuration was not reloaded");
            return Reloaded::Refused;
        }
        if let Err(error) = self.identity.replace(&next) {
            tracing::error!(%error, "the configuration was not reloaded");
            return Reloaded::Refused;
        }
        running.clients.clone_from(&next.clients);
        running.jwt.clone_from(&next.jwt);
        let need_restart = differences(&running, &next);
        drop(running);
        let ended = self.streams.review(|holder| self.jobs.still_stands(holder));
        if !need_restart.is_empty() {
            let sections = need_restart.join(", ");
            tracing::warn!(sections, "these sections were changed and need a restart");
        }
        tracing::info!(
            clients = next.clients.len(),
            issuers = next.jwt.len(),
            ended,
            "the configuration is reloaded"
        );
        Reloaded::Done { ended, need_restart }
    }
}

/// The sections in which two configurations differ, but for the live ones.
fn differences(running: &Config, next: &Config) -> Vec<String> {
    let sections = |config: &Config| match config.effective() {
        Ok(Value::Object(sections)) => sections,
        _ => Map::new(),
    };
    let (running, next) = (sections(running), sections(next));
    let names: BTreeSet<&String> = running.keys().chain(next.keys()).collect();
    let differ = names.into_iter().filter(|name| running.get(*name) != next.get(*name));
    differ.filter(|name| !LIVE.contains(&name.as_str())).cloned().collect()
}
