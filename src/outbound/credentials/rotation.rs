//! Follows the secrets while the process runs: one task a source, which reads its file again when its directory changes and on a
//! timer, tries a new value with one harmless read, and lets it come into force or raises an alarm. Also warns of the end of a
//! credential. What a value means is decided in `slot`.

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
use crate::outbound::files::{Changes, FileWatch};
use crate::ports::clock::Clock;
use crate::ports::credentials::Credential;
use crate::ports::spawner::{Spawner, TaskKind};
use crate::ports::upstream::{FetchError, JobReader};
use crate::telemetry::warning_throttle::LimitedWarning;

/// The pauses between tries of a new credential when the source does not say whether it takes it.
const PUBLISH_BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };
/// The same after it was refused: a new one may need a while until it is known everywhere upstream.
const REFUSED: Backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_mins(10) };
/// How often an alarm is repeated that has not changed.
const REPEATED: Duration = Duration::from_hours(1);

/// Everything that follows the secrets; does nothing until it is started.
#[derive(Debug)]
pub struct Rotation {
    files: Arc<SecretFiles>,
    readers: Vec<Arc<dyn JobReader>>,
    clock: Arc<dyn Clock>,
    settings: CredentialsConfig,
}

impl Rotation {
    /// Prepares to follow the secrets of these sources. Each is tried through its own reader, and so within its budget.
    pub fn new(
        files: Arc<SecretFiles>,
        readers: Vec<Arc<dyn JobReader>>,
        clock: Arc<dyn Clock>,
        settings: CredentialsConfig,
    ) -> Self {
        Self { files, readers, clock, settings }
    }

    /// Starts one task a source. They run until `end`, or until what comes back is told otherwise.
    pub fn start(self, spawner: Arc<dyn Spawner>, end: CancellationToken) -> RotationTasks {
        let Self { files, readers, clock, settings } = self;
        let followers = RotationTasks { files, clock, spawner, end, running: Mutex::default() };
        followers.follow(readers, &settings);
        followers
    }
}

/// The tasks that follow secrets, one a source. Dropping it ends none of them.
#[derive(Debug)]
pub struct RotationTasks {
    files: Arc<SecretFiles>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    end: CancellationToken,
    running: Mutex<BTreeMap<SourceName, CancellationToken>>,
}

impl RotationTasks {
    /// Follows the secrets of these sources, in the place of whoever did so far.
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

    /// Follows the secret of a source no longer.
    pub fn leave(&self, source: &SourceName) {
        if let Some(end) = self.lock().remove(source) {
            end.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceName, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the secret of one source.
struct RotationTask {
    reference: SecretRef,
    slot: Arc<CredentialSlot>,
    reader: Arc<dyn JobReader>,
    clock: Arc<dyn Clock>,
    settings: CredentialsConfig,
    changes: Changes,
    /// How often the newer credential was tried, and when it is tried next.
    tries: u32,
    try_at: Instant,
    alarm: RotationThrottle,
    /// Which end was warned of last, and how near it was.
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

    /// Reads the file once, and acts by what is there.
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

    /// Tries a credential, unless another one takes its place meanwhile.
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

    /// Waits for so long, or for a change.
    async fn wait(&mut self, most: Duration) {
        tokio::select! {
            () = tokio::time::sleep(most) => {}
            () = self.changes.next() => {}
        }
    }

    /// Says that a new value waits. It is no alarm: nobody must act for it.
    fn note(&mut self, error: &FetchError) {
        if self.alarm.due("untried").is_some() {
            let (source, reference) = (self.reader.name(), &self.reference);
            tracing::warn!(%source, %reference, %error, "new credential not verified yet; the previous one stays active");
        }
    }

    /// Says that a new value did not come into force.
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

    /// Warns once of each step that the end comes nearer.
    fn warn_of_the_end(&mut self) {
        let end = self.slot.status().expires_at;
        let memory = nearness(self.clock.time_of_day(), end, self.settings.warn_before);
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
            ExpiryWarning::Ahead | ExpiryWarning::Day | ExpiryWarning::Hour => {
                tracing::warn!(%source, %reference, expires_at, "credential expires soon");
            }
            ExpiryWarning::Ended => tracing::error!(%source, %reference, expires_at, "credential expired"),
        }
    }
}

/// What a look at the file came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SecretRead {
    /// There is nothing to do but wait for a change.
    Settled,
    /// A credential is to be tried again.
    ToTry,
    /// The file changed while it was looked at.
    Changed,
}

/// Says each trouble at once, though not more often than the log can bear, and again after a while.
#[derive(Debug, Default)]
struct RotationThrottle {
    last_logged: Option<(String, Instant)>,
    limit: LimitedWarning,
}

impl RotationThrottle {
    /// Says whether to raise it now, and how often it was held back.
    fn due(&mut self, reason: &str) -> Option<u64> {
        let known = self
            .last_logged
            .as_ref()
            .is_some_and(|(last_logged, at)| last_logged == reason && at.elapsed() < REPEATED);
        if known {
            return None;
        }
        let suppressed = self.limit.due()?;
        self.last_logged = Some((reason.to_owned(), Instant::now()));
        Some(suppressed)
    }

    /// The same limit for another value.
    fn restart(&mut self) -> Self {
        Self { last_logged: None, limit: std::mem::take(&mut self.limit) }
    }
}

/// Reads the file away from the runtime's own threads. `None` when the runtime is ending, and for a pipe or a device: that
/// could be read once, at the start, and to read it again would wait for ever.
async fn read(path: PathBuf) -> Option<Result<SecretString, BadSecret>> {
    let read = move || match fs::metadata(&path) {
        Ok(found) if !found.is_file() && !found.is_dir() => None,
        Ok(_) | Err(_) => Some(secret::file(&path)),
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// Says whether the file still holds this.
async fn still(path: PathBuf, credential: &Credential) -> bool {
    match (read(path).await, credential) {
        (Some(Ok(secret)), Credential::Bearer(_)) => credential.is(&Credential::Bearer(secret)),
        (Some(Ok(secret)), Credential::ApiKey(_)) => credential.is(&Credential::ApiKey(secret)),
        (Some(Err(_)), _) => false,
        (None, _) => true,
    }
}
