//! Watches the secrets while the process runs. One task a source reads its file again when the directory changes and on
//! a timer, verifies a new value with one read request, and activates it or logs an alarm. It also warns before a
//! credential expires. `slot` decides what a value means.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SecretFiles;
use super::expiry::{ExpiryWarning, nearness};
use super::secret::{self, BadSecret};
use super::slot::{CredentialSlot, PreviouslySent, ReadOutcome};
use crate::config::{CredentialsConfig, SecretRef};
use crate::domain::id::SourceName;
use crate::domain::schedule::Backoff;
use crate::domain::source::CredentialState;
use crate::outbound::file_watch::{Changes, FileWatch};
use crate::ports::clock::Clock;
use crate::ports::credentials::Credential;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::upstream::{FetchError, JobReader};
use crate::telemetry::log::LastReason;
use crate::telemetry::throttle::Throttle;

/// The backoff between attempts to verify a new credential while the source neither accepts nor rejects it.
const PUBLISH_BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// The backoff after a rejection: a new credential may need time until every upstream server accepts it.
const REFUSED: Backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_mins(10) };
/// How often an unchanged alarm is repeated.
const REPEATED: Duration = Duration::from_hours(1);

/// The tasks that watch the secrets; idle until started.
#[derive(Debug)]
pub struct Rotation {
    files: Arc<SecretFiles>,
    readers: Vec<Arc<dyn JobReader>>,
    clock: Arc<dyn Clock>,
    settings: CredentialsConfig,
}

impl Rotation {
    /// Prepares to watch the secrets of these sources. Each is verified through its own reader, and so within its
    /// budget.
    pub fn new(
        files: Arc<SecretFiles>,
        readers: Vec<Arc<dyn JobReader>>,
        clock: Arc<dyn Clock>,
        settings: CredentialsConfig,
    ) -> Self {
        Self { files, readers, clock, settings }
    }

    /// Starts one task a source. They run until `end` is cancelled, or until the returned handle stops them.
    pub fn start(self, spawner: Arc<dyn Spawner>, end: CancellationToken) -> RotationTasks {
        let Self { files, readers, clock, settings } = self;
        let followers = RotationTasks { files, clock, spawner, end, running: Mutex::default() };
        followers.follow(readers, &settings);
        followers
    }
}

/// The tasks that watch secrets, one a source. Dropping the handle stops none of them.
#[derive(Debug)]
pub struct RotationTasks {
    files: Arc<SecretFiles>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    end: CancellationToken,
    running: Mutex<BTreeMap<SourceName, CancellationToken>>,
}

impl RotationTasks {
    /// Watches the secrets of these sources, and replaces the tasks that did so before.
    pub fn follow(&self, readers: Vec<Arc<dyn JobReader>>, settings: &CredentialsConfig) {
        let found = readers.into_iter().filter_map(|reader| Some((self.files.slot(reader.name())?, reader)));
        let found: Vec<(Arc<CredentialSlot>, Arc<dyn JobReader>)> = found.collect();
        let watch =
            Arc::new(FileWatch::new(found.iter().filter_map(|(slot, _)| match slot.config.form.secret() {
                SecretRef::File(path) => Some(path.as_path()),
                SecretRef::Env(_) => None,
            })));
        for (slot, reader) in found {
            let end = self.end.child_token();
            let before = self.lock().insert(reader.name().clone(), end.clone());
            if let Some(before) = before {
                before.cancel();
            }
            let follower = RotationTask {
                reference: slot.config.form.secret().clone(),
                slot,
                reader,
                clock: Arc::clone(&self.clock),
                settings: settings.clone(),
                changes: watch.changes(),
                tries: 0,
                try_at: Instant::now(),
                alarm: RotationThrottle::default(),
                warned: (None, ExpiryWarning::Far),
            };
            let watch = Arc::clone(&watch);
            let task = async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = follower.follow() => {}
                }
                drop(watch);
            };
            self.spawner.spawn(TaskKind::Rotation, Box::pin(task));
        }
    }

    /// Stops watching the secret of a source.
    pub fn leave(&self, source: &SourceName) {
        if let Some(end) = self.lock().remove(source) {
            end.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the secret of one source.
struct RotationTask {
    reference: SecretRef,
    slot: Arc<CredentialSlot>,
    reader: Arc<dyn JobReader>,
    clock: Arc<dyn Clock>,
    settings: CredentialsConfig,
    changes: Changes,
    /// How often the pending credential was tried, and when it is tried next.
    tries: u32,
    try_at: Instant,
    alarm: RotationThrottle,
    /// The expiry of the last warning, and how close it was.
    warned: (Option<Timestamp>, ExpiryWarning),
}

impl RotationTask {
    async fn follow(mut self) {
        self.slot.start(self.clock.time_of_day());
        loop {
            let secret_read = match self.reference.clone() {
                SecretRef::File(path) => self.read(path).await,
                SecretRef::Env(_) => SecretRead::Settled,
            };
            self.warn_of_the_end();
            match secret_read {
                SecretRead::Settled => self.wait(self.settings.reload_interval).await,
                SecretRead::ToTry => {
                    let left = self.try_at.saturating_duration_since(Instant::now());
                    self.wait(self.settings.reload_interval.min(left)).await;
                }
                SecretRead::Changed => {}
            }
        }
    }

    /// Reads the file once, and acts on its content.
    async fn read(&mut self, path: PathBuf) -> SecretRead {
        let Some(read) = read(path.clone()).await else { return SecretRead::Settled };
        let refused = self.reader.status().credential.state == CredentialState::Refused;
        let now = self.clock.time_of_day();
        match self.slot.observe(read, refused, now) {
            ReadOutcome::Active => {
                self.alarm = RotationThrottle::default();
                SecretRead::Settled
            }
            ReadOutcome::Adopted => {
                self.alarm = RotationThrottle::default();
                tracing::info!(
                    source = %self.reader.name(), reference = %self.reference,
                    "new credential activated without verification; no other credential is accepted by the source"
                );
                SecretRead::Settled
            }
            ReadOutcome::Unusable(bad) => {
                self.raise(&format!("it {bad}"));
                SecretRead::Settled
            }
            ReadOutcome::ToTry(credential, seen) => {
                if seen == PreviouslySent::First {
                    (self.tries, self.try_at) = (0, Instant::now());
                    self.alarm = self.alarm.restart();
                }
                if Instant::now() < self.try_at {
                    return SecretRead::ToTry;
                }
                self.attempt(path, credential).await
            }
        }
    }

    /// Tries a credential, unless the file contains another one meanwhile.
    async fn attempt(&mut self, path: PathBuf, credential: Credential) -> SecretRead {
        let reader = Arc::clone(&self.reader);
        let mut probe = reader.probe(Some(&credential));
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut probe => break outcome,
                () = self.wait(self.settings.reload_interval) => {
                    if !still(path.clone(), &credential).await {
                        return SecretRead::Changed;
                    }
                }
            }
        };
        let now = self.clock.time_of_day();
        let slot = &self.slot;
        let pause = match outcome {
            Ok(()) => {
                slot.adopt(credential.clone(), now);
                self.alarm = RotationThrottle::default();
                tracing::info!(
                    source = %self.reader.name(), reference = %self.reference,
                    "new credential verified and activated"
                );
                return SecretRead::Settled;
            }
            Err(FetchError::CredentialRejected) => {
                slot.refuse(credential.clone(), now);
                self.raise("the source refuses it");
                REFUSED.wait(self.tries, 1.0)
            }
            Err(error) => {
                self.note(&error);
                PUBLISH_BACKOFF.wait(self.tries, 1.0)
            }
        };
        self.tries = self.tries.saturating_add(1);
        self.try_at = Instant::now() + pause;
        SecretRead::ToTry
    }

    /// Waits for at most this long, or for a change.
    async fn wait(&mut self, most: Duration) {
        tokio::select! {
            () = tokio::time::sleep(most) => {}
            () = self.changes.next() => {}
        }
    }

    /// Logs that a new value is pending. This is not an alarm: no action is required.
    fn note(&mut self, error: &FetchError) {
        if self.alarm.due("untried").is_some() {
            let (source, reference) = (self.reader.name(), &self.reference);
            tracing::warn!(%source, %reference, %error, "new credential not verified yet; the previous one stays active");
        }
    }

    /// Logs that a new value was not activated.
    fn raise(&mut self, reason: &str) {
        let Some(suppressed) = self.alarm.due(reason) else { return };
        let (source, reference) = (self.reader.name(), &self.reference);
        if self.slot.current().is_some() {
            tracing::error!(
                %source, %reference, reason, suppressed,
                "new credential not activated; the previous one stays active"
            );
        } else {
            tracing::error!(
                %source, %reference, reason, suppressed,
                "source has no usable credential anymore; it is unconfigured"
            );
        }
    }

    /// Warns once at each step as the expiry comes closer.
    fn warn_of_the_end(&mut self) {
        let end = self.slot.status().expires_at;
        let memory = nearness(self.clock.time_of_day(), end);
        if self.warned.0 != end {
            self.warned = (end, ExpiryWarning::Far);
        }
        if memory <= self.warned.1 {
            return;
        }
        self.warned.1 = memory;
        let (source, reference) = (self.reader.name(), &self.reference);
        let expires_at = end.map(tracing::field::display);
        match memory {
            ExpiryWarning::Far => {}
            ExpiryWarning::Week | ExpiryWarning::Day | ExpiryWarning::Hour => {
                tracing::warn!(%source, %reference, expires_at, "credential expires soon");
            }
            ExpiryWarning::Ended => tracing::error!(%source, %reference, expires_at, "credential expired"),
        }
    }
}

/// The result of a read of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretRead {
    /// Nothing to do until the next change.
    Settled,
    /// A credential must be tried again.
    ToTry,
    /// The file changed during the attempt.
    Changed,
}

/// Logs each new problem at once, limits the rate, and repeats an unchanged problem after a while.
#[derive(Debug, Default)]
struct RotationThrottle {
    last: LastReason<String>,
    limit: Throttle,
}

impl RotationThrottle {
    /// Returns the number of suppressed log lines if `reason` must be logged now.
    fn due(&mut self, reason: &str) -> Option<u64> {
        let reason = reason.to_owned();
        if self.last.is_repeated(&reason, REPEATED) {
            return None;
        }
        let suppressed = self.limit.admit()?;
        self.last.logged(reason);
        Some(suppressed)
    }

    /// The same limit for another value.
    fn restart(&mut self) -> Self {
        Self { last: LastReason::default(), limit: std::mem::take(&mut self.limit) }
    }
}

/// Reads the file outside of the runtime's worker threads. `None` while the runtime shuts down, and for a pipe or a
/// device: it can be read only once, at the start, and a second read would block for ever.
async fn read(path: PathBuf) -> Option<Result<SecretString, BadSecret>> {
    let read = move || match fs::metadata(&path) {
        Ok(found) if !found.is_file() && !found.is_dir() => None,
        Ok(_) | Err(_) => Some(secret::file(&path)),
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// Returns whether the file still contains this credential.
async fn still(path: PathBuf, credential: &Credential) -> bool {
    match (read(path).await, credential) {
        (Some(Ok(secret)), Credential::Bearer(_)) => credential.is(&Credential::Bearer(secret)),
        (Some(Ok(secret)), Credential::ApiKey(_)) => credential.is(&Credential::ApiKey(secret)),
        (Some(Err(_)), _) => false,
        (None, _) => true,
    }
}
