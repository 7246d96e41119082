//! The credentials of the sources, read from the files and environment variables that the configuration names. A file
//! is watched while the process runs (see `rotation`); a variable cannot change.

mod expiry;
pub mod rotation;
pub mod secret;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;

use secrecy::SecretString;

pub use self::secret::BadSecret;
use self::slot::CredentialSlot;
use crate::config::{Environment, SecretRef, SourceConfig};
use crate::domain::id::SourceName;
use crate::domain::source::{CredentialState, CredentialStatus};
use crate::ports::credentials::{Credential, Credentials};

/// The secrets of all sources.
pub struct SecretFiles {
    slots: ArcSwap<CredentialSlots>,
}

type CredentialSlots = BTreeMap<SourceName, Arc<CredentialSlot>>;

/// The secrets of a new set of sources, read but not active yet.
pub struct NextSecrets(CredentialSlots);

const MISSING: CredentialStatus =
    CredentialStatus { state: CredentialState::Missing, since: None, active_since: None, expires_at: None };

/// A secret that could not be read, so that its source is not called. Contains the reference and never the secret.
#[derive(Debug, thiserror::Error)]
#[error("sources.{source_name}.credential: {reference} {reason}")]
pub struct UnreadableSecret {
    /// The source without a secret.
    pub source_name: SourceName,
    /// The configured location of the secret.
    pub reference: SecretRef,
    /// Why the secret could not be read.
    pub reason: BadSecret,
}

impl SecretFiles {
    /// Reads the secret of every source. Blocks on the disk. A source with an unreadable secret gets none and is
    /// returned in the list.
    pub fn read<'a>(
        sources: impl IntoIterator<Item = (&'a SourceName, &'a SourceConfig)>,
        env: &Environment,
    ) -> (Self, Vec<UnreadableSecret>) {
        let mut slots = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, source) in sources {
            let reference = source.credential.form.secret();
            let (slot, bad) = CredentialSlot::new(source.credential.clone(), secret::read(reference, env));
            slots.insert(name.clone(), Arc::new(slot));
            unreadable.extend(bad.map(|reason| UnreadableSecret {
                source_name: name.clone(),
                reference: reference.clone(),
                reason,
            }));
        }
        (Self { slots: ArcSwap::from_pointee(slots) }, unreadable)
    }

    /// Reads the secrets of a new set of sources. A credential whose configuration is unchanged is not read again,
    /// because it is watched already. Blocks on the disk only: a pipe or a device is rejected as a secret during a
    /// reload.
    ///
    /// # Errors
    /// Returns every newly configured secret that cannot be read.
    pub fn prepare<'a>(
        &self,
        sources: impl IntoIterator<Item = (&'a SourceName, &'a SourceConfig)>,
        env: &Environment,
    ) -> Result<NextSecrets, Vec<UnreadableSecret>> {
        let before = self.slots.load();
        let (mut slots, mut unreadable) = (CredentialSlots::new(), Vec::new());
        for (name, source) in sources {
            let held = before.get(name);
            if let Some(held) = held.filter(|held| held.config == source.credential) {
                slots.insert(name.clone(), Arc::clone(held));
                continue;
            }
            let reference = source.credential.form.secret();
            let (slot, bad) = CredentialSlot::new(source.credential.clone(), read_now(reference, env));
            // A response to a call with the previous credential may still arrive.
            slot.remember(held.map(|held| held.previously_sent()).unwrap_or_default());
            slots.insert(name.clone(), Arc::new(slot));
            unreadable.extend(bad.map(|reason| UnreadableSecret {
                source_name: name.clone(),
                reference: reference.clone(),
                reason,
            }));
        }
        if unreadable.is_empty() { Ok(NextSecrets(slots)) } else { Err(unreadable) }
    }

    /// Activates prepared secrets.
    pub fn put(&self, next: NextSecrets) {
        self.slots.store(Arc::new(next.0));
    }

    /// The credentials of one source under the current configuration. A later configuration does not change them.
    pub fn of(&self, source: &SourceName) -> Arc<dyn Credentials> {
        Arc::new(SourceSecret(self.slot(source)))
    }

    fn slot(&self, source: &SourceName) -> Option<Arc<CredentialSlot>> {
        self.slots.load().get(source).cloned()
    }
}

/// Reads a secret, unless the read could block until another process writes.
fn read_now(reference: &SecretRef, env: &Environment) -> Result<SecretString, BadSecret> {
    if let SecretRef::File(path) = reference
        && fs::metadata(path).is_ok_and(|found| !found.is_file())
    {
        let what = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
        return Err(BadSecret::File(what));
    }
    secret::read(reference, env)
}

impl NextSecrets {
    /// The credentials that one source will have.
    pub fn of(&self, source: &SourceName) -> Arc<dyn Credentials> {
        Arc::new(SourceSecret(self.0.get(source).cloned()))
    }
}

/// The secret of one source under one configuration: a call to a URL of that configuration must not send a secret that
/// is configured for another URL.
#[derive(Debug)]
struct SourceSecret(Option<Arc<CredentialSlot>>);

impl Credentials for SourceSecret {
    fn current(&self, _: &SourceName) -> Option<Credential> {
        self.0.as_ref()?.current()
    }

    fn pending(&self, _: &SourceName) -> Vec<Credential> {
        self.0.as_ref().map(|slot| slot.previously_sent()).unwrap_or_default()
    }

    fn status(&self, _: &SourceName) -> CredentialStatus {
        self.0.as_ref().map_or(MISSING, |slot| slot.status())
    }
}

impl Credentials for SecretFiles {
    fn current(&self, source: &SourceName) -> Option<Credential> {
        self.slot(source)?.current()
    }

    fn pending(&self, source: &SourceName) -> Vec<Credential> {
        self.slot(source).map(|slot| slot.previously_sent()).unwrap_or_default()
    }

    fn status(&self, source: &SourceName) -> CredentialStatus {
        self.slot(source).map_or(MISSING, |slot| slot.status())
    }
}

impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFiles({} sources)", self.slots.load().len())
    }
}

impl fmt::Debug for NextSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NextSecrets({} sources)", self.0.len())
    }
}
