//! When the configuration is reloaded: at SIGHUP, when the directory of its file changes, and on a timer, since a
//! notification can be lost. Without a SIGHUP the file is read until it is stable: it may be written at the moment.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Reload, ReloadTrigger};
use crate::config::{Config, ValidationErrors};
use crate::outbound::file_watch::FileWatch;

/// The interval of the reads without a notification.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How long the file must be unchanged.
const STILL_FOR: Duration = Duration::from_millis(250);
/// The most reads until then; after that, the timer reads again.
const CHECKS: usize = 40;

/// The location of the configuration, and whether to watch it.
#[derive(Clone, Debug)]
pub struct ConfigWatch {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether to watch for changes; SIGHUP works in any case.
    pub watch: bool,
}

/// The triggers of a reload.
#[derive(Debug)]
pub(in crate::server) struct ReloadTriggers {
    hangup: Signal,
    reread: ConfigWatch,
}

impl ReloadTriggers {
    /// From now on a SIGHUP does not terminate the process.
    ///
    /// # Errors
    /// Returns an error if the signal handler cannot be installed.
    pub(in crate::server) fn listen(reread: ConfigWatch) -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, reread })
    }

    /// Reloads the configuration at every trigger, for ever.
    pub(in crate::server) async fn run(mut self, reload: Arc<Reload>) {
        // a pipe can be read only once
        let stays = |file: &PathBuf| std::fs::metadata(file).map_or(true, |found| found.is_file());
        let watched = self.reread.file.clone().filter(|file| self.reread.watch && stays(file));
        let watch = watched.as_deref().map(|file| FileWatch::new([file]));
        let mut changes = watch.as_ref().map(FileWatch::changes);
        // the first read is at once: the file may have changed while the gateway was built
        let mut due = tokio::time::interval(CHECK_INTERVAL);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            let noticed = async {
                let Some(changes) = &mut changes else { return std::future::pending().await };
                tokio::select! {
                    () = changes.next() => {}
                    _ = due.tick() => {}
                }
            };
            let signalled = tokio::select! {
                biased;
                hangup = self.hangup.recv() => match hangup {
                    Some(()) => true,
                    None => return std::future::pending().await,
                },
                () = noticed => false,
            };
            if signalled {
                tracing::info!("reloading configuration");
                let text = self.read().await;
                seen = Some(mark(&text));
                self.adopt(&reload, text, ReloadTrigger::Signal).await;
                continue;
            }
            let Some(text) = self.read_still().await else { continue };
            let now = Some(mark(&text));
            // one that was rejected for a missing secret is tried again
            if now != seen || reload.is_refused() {
                seen = now;
                self.adopt(&reload, text, ReloadTrigger::Noticed).await;
            }
        }
    }

    /// Outside of the runtime's worker threads, because it blocks on the disk.
    async fn adopt(&self, reload: &Arc<Reload>, text: Result<String, ValidationErrors>, why: ReloadTrigger) {
        let (reload, file) = (Arc::clone(reload), self.reread.file.clone());
        let adopt = move || reload.adopt_text(text, file.as_deref(), why);
        if tokio::task::spawn_blocking(adopt).await.is_err() {
            tracing::error!("configuration reload aborted; the previous one stays active");
        }
    }

    async fn read(&self) -> Result<String, ValidationErrors> {
        let Some(file) = self.reread.file.clone() else { return Ok(String::new()) };
        let read = tokio::task::spawn_blocking(move || Config::text_again(&file)).await;
        read.unwrap_or_else(|_| Ok(String::new()))
    }

    /// The content of the file once it is stable. `None` if it does not become stable.
    async fn read_still(&self) -> Option<Result<String, ValidationErrors>> {
        let mut before = mark(&self.read().await);
        for _ in 0..CHECKS {
            tokio::time::sleep(STILL_FOR).await;
            let text = self.read().await;
            let now = mark(&text);
            if now == before {
                return Some(text);
            }
            before = now;
        }
        tracing::warn!("configuration file keeps changing; not reloaded yet");
        None
    }
}

/// A hash that distinguishes texts, and errors of reading.
fn mark(text: &Result<String, ValidationErrors>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match text {
        Ok(text) => text.hash(&mut hasher),
        Err(faults) => (1, faults.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}
