//! When the configuration is read again: at SIGHUP, when the directory of its file changes, and on a timer, since a watch is a
//! hint and not a promise. What was noticed and not told is read until it stands still: somebody may be writing it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Reload, ReloadTrigger};
use crate::config::{Config, ValidationErrors};
use crate::outbound::files::FileWatch;

/// How often the file is looked at though nobody has heard of a change.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// For how long the file has to stand still.
const STILL_FOR: Duration = Duration::from_millis(250);
/// How often it is looked at until then; after that, the timer looks again.
const CHECKS: usize = 40;

/// Where the configuration is, and whether to look for changes of it.
#[derive(Clone, Debug)]
pub struct ConfigWatch {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether to look for changes; SIGHUP is heard all the same.
    pub watch: bool,
}

/// What has the configuration read again.
#[derive(Debug)]
pub(in crate::server) struct ReloadTriggers {
    hangup: Signal,
    reread: ConfigWatch,
}

impl ReloadTriggers {
    /// From now on a SIGHUP does not end the process.
    ///
    /// # Errors
    /// When the signal cannot be listened for.
    pub(in crate::server) fn listen(reread: ConfigWatch) -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, reread })
    }

    /// Reads the configuration again whenever it is time to, for ever.
    pub(in crate::server) async fn run(mut self, reload: Arc<Reload>) {
        // what came by a pipe came once
        let stays = |file: &PathBuf| std::fs::metadata(file).map_or(true, |found| found.is_file());
        let watched = self.reread.file.clone().filter(|file| self.reread.watch && stays(file));
        let watch = watched.as_deref().map(|file| FileWatch::new([file]));
        let mut changes = watch.as_ref().map(FileWatch::changes);
        // the first look is at once: the file may have changed while the gateway was built
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
            // one that was refused for a secret that was not there yet is tried again
            if now != seen || reload.is_refused() {
                seen = now;
                self.adopt(&reload, text, ReloadTrigger::Noticed).await;
            }
        }
    }

    /// Away from the runtime's own threads, for the disk.
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

    /// What stands in the file once it stands still. `None` when it does not.
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

/// Tells texts apart, and faults of reading.
fn mark(text: &Result<String, ValidationErrors>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match text {
        Ok(text) => text.hash(&mut hasher),
        Err(faults) => (1, faults.to_string()).hash(&mut hasher),
    }
    hasher.finish()
}
