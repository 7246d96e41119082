//! The secrets that sources want to see, from the files and variables that the configuration names. A file is followed while
//! the process runs (see `rotation`); a variable cannot change.

mod expiry;
pub mod rotation;
pub mod secret;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use self::secret::BadSecret;
use self::slot::Slot;
use crate::config::{Environment, SecretRef, SourceConfig};
use crate::domain::id::SourceName;
use crate::domain::source::{CredentialState, CredentialStatus};
use crate::ports::credentials::{Credential, Credentials};

/// The secrets of all sources.
pub struct SecretFiles {
    slots: BTreeMap<SourceName, Slot>,
}

/// A secret that could not be read, so that its source is not asked. Names the reference and never the secret.
#[derive(Debug, thiserror::Error)]
#[error("sources.{source_name}.credential: {reference} {reason}")]
pub struct Unreadable {
    /// The source that goes without.
    pub source_name: SourceName,
    /// Where the secret should have been.
    pub reference: SecretRef,
    /// What was wrong there.
    pub reason: BadSecret,
}

impl SecretFiles {
    /// Reads the secret of every source. Blocks on the disk. Sources whose secret is bad go without, and are listed.
    pub fn read<'a>(
        sources: impl IntoIterator<Item = (&'a SourceName, &'a SourceConfig)>,
        env: &Environment,
    ) -> (Self, Vec<Unreadable>) {
        let mut slots = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (name, source) in sources {
            let reference = source.credential.form.secret();
            let (slot, bad) = Slot::new(source.credential.clone(), secret::read(reference, env));
            slots.insert(name.clone(), slot);
            unreadable.extend(bad.map(|reason| Unreadable {
                source_name: name.clone(),
                reference: reference.clone(),
                reason,
            }));
        }
        (Self { slots }, unreadable)
    }
}

impl Credentials for SecretFiles {
    fn current(&self, source: &SourceName) -> Option<Credential> {
        self.slots.get(source)?.current()
    }

    fn shown(&self, source: &SourceName) -> Vec<Credential> {
        self.slots.get(source).map(Slot::shown).unwrap_or_default()
    }

    fn status(&self, source: &SourceName) -> CredentialStatus {
        let missing = CredentialStatus {
            state: CredentialState::Missing,
            since: None,
            in_force_since: None,
            expires_at: None,
        };
        self.slots.get(source).map_or(missing, Slot::status)
    }
}

impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFiles({} sources)", self.slots.len())
    }
}
