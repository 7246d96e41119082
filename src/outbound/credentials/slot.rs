//! What is held for one source: the credential in force, a newer one that waits, and those that were shown before. Every decision
//! about them is made here, under a short lock; reading, trying and waiting are not.

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

/// How many of those that were shown are remembered, and how long: an upstream could repeat them.
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

/// What stands where the secret should be, if it is not what is in force.
enum PendingCredential {
    Nothing,
    Untried(Credential, Timestamp),
    Refused(Credential, Timestamp),
    Unusable(Option<Timestamp>),
}

/// What came of a value that was read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// It is in force already.
    Active,
    /// It is in force from now on, untried: there was none before, or one that the source refuses.
    Adopted,
    /// It is to be tried; whether it was seen before.
    ToTry(Credential, PreviouslySent),
    /// It is none.
    Unusable(BadSecret),
}

/// Whether a newer credential was known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviouslySent {
    First,
    Before,
}

impl CredentialSlot {
    /// What was read at the start comes into force as it is, since there is nothing to fall back on.
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

    /// Notes from when on the first one is in force, or missing.
    pub(super) fn start(&self, now: Timestamp) {
        let mut state = self.lock();
        if let Some(ActiveCredential { since: since @ None, .. }) = &mut state.active {
            *since = Some(now);
        }
        if let PendingCredential::Unusable(since @ None) = &mut state.newer {
            *since = Some(now);
        }
    }

    /// Notes that these were shown to the source before.
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

    /// Decides about what was read now. `refused`: the source refuses the one in force.
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
        // one that the source has refused itself is not better than one that it refuses
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

    /// The source takes it: it comes into force.
    pub(super) fn adopt(&self, tried: Credential, now: Timestamp) {
        self.lock().adopt(tried, now);
    }

    /// The source refuses it: the one before stays.
    pub(super) fn refuse(&self, tried: Credential, now: Timestamp) {
        let mut state = self.lock();
        // since the first time
        if !matches!(&state.newer, PendingCredential::Refused(known, _) if known.is(&tried)) {
            state.newer = PendingCredential::Refused(tried, now);
        }
    }

    /// No code that can panic runs under this lock, and each change under it is whole.
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
