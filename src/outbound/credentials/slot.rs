//! The credentials of one source: the active one, a pending one, and those that were sent before. Every decision about
//! them is made here, under a short lock; reading, verifying and waiting happen elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use tokio::time::Instant;

use super::expiry;
use super::secret::BadSecret;
use crate::config::{CredentialConfig, CredentialRef};
use crate::domain::source::{CredentialState, CredentialStatus};
use crate::ports::credentials::Credential;

/// How many credentials that were sent are remembered, and for how long: an upstream could echo them.
const MOST_SHOWN: usize = 32;
const SHOWN_FOR: Duration = Duration::from_hours(1);

/// The credentials of one source.
pub(super) struct CredentialSlot {
    pub(super) config: CredentialConfig,
    state: Mutex<SlotState>,
}

impl fmt::Debug for CredentialSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSlot").field("config", &self.config).finish_non_exhaustive()
    }
}

struct SlotState {
    active: Option<ActiveCredential>,
    newer: PendingCredential,
    sent: VecDeque<(Credential, Instant)>,
}

struct ActiveCredential {
    credential: Credential,
    since: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

/// The content of the secret's file, if it differs from the active credential.
enum PendingCredential {
    Nothing,
    Untried(Credential, Timestamp),
    Refused(Credential, Timestamp),
    Unusable(Option<Timestamp>),
}

/// The result of observing a value that was read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// It is active already.
    Active,
    /// It becomes active without verification: there was none before, or the source rejects the previous one.
    Adopted,
    /// It must be tried; with whether it was known before.
    ToTry(Credential, PreviouslySent),
    /// It is not a usable secret.
    Unusable(BadSecret),
}

/// Whether a pending credential was known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviouslySent {
    First,
    Before,
}

impl CredentialSlot {
    /// The value that is read at the start becomes active without verification, because there is no other one.
    pub(super) fn new(
        config: CredentialConfig,
        read: Result<SecretString, BadSecret>,
    ) -> (Self, Option<BadSecret>) {
        let (active, bad) = match read {
            Ok(secret) => {
                let expires_at = expiry::of_token(&secret).or(config.expires_at);
                (
                    Some(ActiveCredential {
                        credential: credential(&config.form, secret),
                        since: None,
                        expires_at,
                    }),
                    None,
                )
            }
            Err(bad) => (None, Some(bad)),
        };
        let newer =
            if bad.is_some() { PendingCredential::Unusable(None) } else { PendingCredential::Nothing };
        let state = SlotState { active, newer, sent: VecDeque::new() };
        (Self { config, state: Mutex::new(state) }, bad)
    }

    /// Records the time from which the first credential is active, or missing.
    pub(super) fn start(&self, now: Timestamp) {
        let mut state = self.lock();
        if let Some(ActiveCredential { since: since @ None, .. }) = &mut state.active {
            *since = Some(now);
        }
        if let PendingCredential::Unusable(since @ None) = &mut state.newer {
            *since = Some(now);
        }
    }

    /// Records that these were sent to the source before.
    pub(super) fn remember(&self, sent: Vec<Credential>) {
        let mut state = self.lock();
        for credential in sent {
            state.remember(credential);
        }
    }

    pub(super) fn current(&self) -> Option<Credential> {
        self.lock().active.as_ref().map(|held| held.credential.clone())
    }

    pub(super) fn previously_sent(&self) -> Vec<Credential> {
        let state = self.lock();
        let current = state.active.iter().map(|held| &held.credential);
        let before = state.sent.iter().filter(|(_, at)| at.elapsed() < SHOWN_FOR).map(|(sent, _)| sent);
        current.chain(before).cloned().collect()
    }

    pub(super) fn status(&self) -> CredentialStatus {
        let state = self.lock();
        let held = state.active.as_ref();
        let (word, since) = match (&state.newer, held) {
            (PendingCredential::Nothing, Some(held)) => (CredentialState::Active, held.since),
            (PendingCredential::Nothing, None) => (CredentialState::Missing, None),
            (PendingCredential::Unusable(since), Some(_)) => (CredentialState::PendingInvalid, *since),
            (PendingCredential::Unusable(since), None) => (CredentialState::Missing, *since),
            (PendingCredential::Untried(_, since), _) => (CredentialState::PendingVerification, Some(*since)),
            (PendingCredential::Refused(_, since), _) => (CredentialState::PendingRejected, Some(*since)),
        };
        CredentialStatus {
            state: word,
            since,
            active_since: held.and_then(|held| held.since),
            expires_at: held.and_then(|held| held.expires_at),
        }
    }

    /// Decides about the value that was read now. `refused`: the source rejects the active credential.
    pub(super) fn observe(
        &self,
        read: Result<SecretString, BadSecret>,
        refused: bool,
        now: Timestamp,
    ) -> ReadOutcome {
        let mut state = self.lock();
        let read = match read {
            Ok(secret) => credential(&self.config.form, secret),
            Err(bad) => {
                if !matches!(state.newer, PendingCredential::Unusable(_)) {
                    state.newer = PendingCredential::Unusable(Some(now));
                }
                return ReadOutcome::Unusable(bad);
            }
        };
        if state.active.as_ref().is_some_and(|held| held.credential.is(&read)) {
            state.newer = PendingCredential::Nothing;
            return ReadOutcome::Active;
        }
        // a value that the source rejected itself is not better than the active one that it rejects
        if let PendingCredential::Refused(known, _) = &state.newer
            && known.is(&read)
        {
            return ReadOutcome::ToTry(read, PreviouslySent::Before);
        }
        if state.active.is_none() || refused {
            state.adopt(read, now);
            return ReadOutcome::Adopted;
        }
        if let PendingCredential::Untried(known, _) = &state.newer
            && known.is(&read)
        {
            return ReadOutcome::ToTry(read, PreviouslySent::Before);
        }
        state.remember(read.clone());
        state.newer = PendingCredential::Untried(read.clone(), now);
        ReadOutcome::ToTry(read, PreviouslySent::First)
    }

    /// Activates a credential that the source accepted.
    pub(super) fn adopt(&self, tried: Credential, now: Timestamp) {
        self.lock().adopt(tried, now);
    }

    /// Records that the source rejected the credential; the active one stays.
    pub(super) fn refuse(&self, tried: Credential, now: Timestamp) {
        let mut state = self.lock();
        // the time of the first rejection
        if !matches!(&state.newer, PendingCredential::Refused(known, _) if known.is(&tried)) {
            state.newer = PendingCredential::Refused(tried, now);
        }
    }

    /// No code that can panic runs under this lock, and each change under it is complete.
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotState {
    fn adopt(&mut self, credential: Credential, now: Timestamp) {
        let expires_at = expiry::of_token(credential.secret());
        let new = ActiveCredential { credential, since: Some(now), expires_at };
        if let Some(old) = self.active.replace(new) {
            self.remember(old.credential);
        }
        self.newer = PendingCredential::Nothing;
    }

    fn remember(&mut self, credential: Credential) {
        self.sent.retain(|(held, at)| at.elapsed() < SHOWN_FOR && !held.is(&credential));
        if self.sent.len() == MOST_SHOWN {
            self.sent.pop_front();
        }
        self.sent.push_back((credential, Instant::now()));
    }
}

fn credential(form: &CredentialRef, secret: SecretString) -> Credential {
    match form {
        CredentialRef::Bearer(_) => Credential::Bearer(secret),
        CredentialRef::ApiKey(_) => Credential::ApiKey(secret),
    }
}
