//! Creates and verifies watch tokens: `jgw_`, the payload, a dot, and the HMAC-SHA-256 of everything before the dot.
//!
//! The payload contains the issuing client, the expiry, and the jobs. The client's grant is looked up when the token is
//! used; a client that is not in the configuration has its grant in the payload. The payload is parsed only after the
//! signature is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::keys::{self, NoRandomness};
use crate::domain::id::{ExternalId, JobKey, SourceName};
use crate::domain::principal::{CredentialInfo, CredentialKind, Grant, Principal, Scope};
use crate::ports::identity::{AuthError, WatchToken, WatchTokenError};

/// The prefix of every token. No client key has it.
const MARK: &str = "jgw_";
/// The longest token, in bytes: it shares the headers of a request with others.
const LONGEST: usize = 4 * 1024;
/// The version of the payload format.
const VERSION: u8 = 1;
/// The shortest signing secret, in bytes: as long as the signature.
pub const SECRET_MIN: usize = 32;

/// A secret that is too short for signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "holds fewer than {SECRET_MIN} bytes: put a longer secret there, such as the output of `openssl rand -base64 48`"
)]
pub struct ShortSecret;

/// Creates and verifies watch tokens with one signing key.
pub struct WatchTokens {
    key: hmac::Key,
    /// Whether the key is random and the warning about it is not logged yet.
    warns_of_random_key: AtomicBool,
}

impl WatchTokens {
    /// Signs with a secret that all replicas share.
    ///
    /// # Errors
    /// Returns an error if it is shorter than [`SECRET_MIN`].
    pub fn shared(secret: &SecretString) -> Result<Self, ShortSecret> {
        let secret = secret.expose_secret().as_bytes();
        if secret.len() < SECRET_MIN {
            return Err(ShortSecret);
        }
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            warns_of_random_key: AtomicBool::new(false),
        })
    }

    /// Signs with a random key of this process: other replicas cannot verify the tokens, and a restart invalidates
    /// them. The first use logs a warning.
    ///
    /// # Errors
    /// Returns an error if the system provides no random bytes.
    pub fn of_this_process() -> Result<Self, NoRandomness> {
        let mut secret = [0; SECRET_MIN];
        rand::fill(&mut secret).map_err(|_| NoRandomness)?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            warns_of_random_key: AtomicBool::new(true),
        })
    }

    /// Returns whether a text has the prefix of a watch token.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(MARK)
    }

    /// Creates a token for jobs that expires no later than the credential of its issuing client. `grant_of` returns the
    /// current grant of a listed client.
    ///
    /// # Errors
    /// Returns an error if it would be too long, or if the client is not listed and may read everything, because such a
    /// grant is not written into a token.
    pub fn mint(
        &self,
        maker: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
        now: Timestamp,
        grant_of: impl Fn(&str) -> Option<Grant>,
    ) -> Result<WatchToken, WatchTokenError> {
        if self.warns_of_random_key.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                "watch_tokens.secret is not set; watch tokens are valid on this replica until it restarts"
            );
        }
        let wished = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        let until = maker.credential().expires.map_or(wished, |own| own.min(wished)).as_second();
        let listed =
            maker.credential().expires.is_none() && grant_of(maker.name()).as_ref() == Some(maker.grant());
        let by = match maker.grant() {
            _ if listed => TokenIssuer::Listed(maker.name().to_owned()),
            Grant::All => return Err(WatchTokenError::NotMade),
            Grant::Sources(scopes) => {
                let of_jobs =
                    scopes.iter().filter(|(source, _)| jobs.iter().any(|job| job.source == **source));
                let scopes =
                    of_jobs.map(|(source, scope)| (source.as_str().to_owned(), WrittenScope::from(scope)));
                TokenIssuer::Carried(maker.name().to_owned(), scopes.collect())
            }
        };
        let mut written: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for JobKey { source, external_id } in jobs {
            written.entry(source.as_str().to_owned()).or_default().push(external_id.as_str().to_owned());
        }
        let payload = TokenPayload { v: VERSION, by, until, jobs: written };
        let payload = serde_json::to_vec(&payload).map_err(|_| WatchTokenError::NotMade)?;
        let signed = format!("{MARK}{}", URL_SAFE_NO_PAD.encode(payload));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
        if token.len() > LONGEST {
            return Err(WatchTokenError::TooLong(LONGEST));
        }
        let expires_at = Timestamp::from_second(until).map_err(|_| WatchTokenError::NotMade)?;
        Ok(WatchToken { token: SecretString::from(token), expires_at })
    }

    /// Authenticates a token: its holder may read its jobs, as far as the issuing client may read them now.
    ///
    /// # Errors
    /// Returns an error if the signature is invalid, the token has expired, or the issuing client is no longer listed.
    pub fn read(
        &self,
        presented: &SecretString,
        now: Timestamp,
        grant_of: impl Fn(&str) -> Option<Grant>,
    ) -> Result<Principal, AuthError> {
        let text = presented.expose_secret();
        let payload = self.verified(text).ok_or(AuthError::Unknown)?;
        let expires = Timestamp::from_second(payload.until).ok().filter(|until| now < *until);
        let expires = expires.ok_or(AuthError::Expired)?;
        let jobs = payload.keys().ok_or(AuthError::Unknown)?;
        let carries_grant = matches!(payload.by, TokenIssuer::Carried(..));
        let (name, grant) = match payload.by {
            TokenIssuer::Listed(name) => {
                let grant = grant_of(&name);
                (name, grant)
            }
            TokenIssuer::Carried(name, scopes) => (name, grant(scopes)),
        };
        let principal = Principal::with_grant(name, grant.ok_or(AuthError::Unknown)?);
        Ok(principal.with_credential(CredentialInfo {
            kind: CredentialKind::WatchToken,
            fingerprint: Some(keys::hash(text)),
            expires: Some(expires),
            jobs: Some(Arc::new(jobs)),
            carries_grant,
        }))
    }

    /// Returns whether a principal of a token would be authenticated with the same token now.
    pub fn is_valid(principal: &Principal, now: Timestamp, grant_of: impl Fn(&str) -> Option<Grant>) -> bool {
        let credential = principal.credential();
        credential.expires.is_some_and(|until| now < until)
            && (credential.carries_grant
                || grant_of(principal.name()).is_some_and(|now| now.covers(principal.grant())))
    }

    /// The payload of a token with a valid signature. The signature is compared in constant time, before anything is
    /// parsed.
    fn verified(&self, text: &str) -> Option<TokenPayload> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, tag) = text.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &tag).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(signed.strip_prefix(MARK)?).ok()?;
        serde_json::from_slice(&payload).ok().filter(|payload: &TokenPayload| payload.v == VERSION)
    }
}

impl fmt::Debug for WatchTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchTokens")
    }
}

/// The payload of a token. The names are short since it has to fit into a header.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenPayload {
    v: u8,
    by: TokenIssuer,
    /// In seconds since 1970.
    until: i64,
    /// The ids of the jobs, by source.
    jobs: BTreeMap<String, Vec<String>>,
}

/// The client that created a token.
#[derive(Serialize, Deserialize)]
enum TokenIssuer {
    /// A client whose grant is looked up by its name.
    #[serde(rename = "client")]
    Listed(String),
    /// A client that is not in the configuration, with its grant for the sources of the jobs.
    #[serde(rename = "bearer")]
    Carried(String, BTreeMap<String, WrittenScope>),
}

/// The serialized form of a scope.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenScope {
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    kinds: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl From<&Scope> for WrittenScope {
    fn from(scope: &Scope) -> Self {
        Self { kinds: scope.kinds.clone(), labels: scope.labels.clone() }
    }
}

impl TokenPayload {
    fn keys(&self) -> Option<BTreeSet<JobKey>> {
        let each = self.jobs.iter().flat_map(|(source, ids)| ids.iter().map(move |id| (source, id)));
        let key = |(source, id): (&String, &String)| {
            Some(JobKey { source: SourceName::parse(source).ok()?, external_id: ExternalId::parse(id).ok()? })
        };
        each.map(key).collect()
    }
}

fn grant(scopes: BTreeMap<String, WrittenScope>) -> Option<Grant> {
    let read = |(source, WrittenScope { kinds, labels }): (String, WrittenScope)| {
        Some((SourceName::parse(&source).ok()?, Scope { kinds, labels }))
    };
    let scopes: Option<BTreeMap<_, _>> = scopes.into_iter().map(read).collect();
    Some(Grant::Sources(Arc::new(scopes?)))
}

#[cfg(test)]
mod tests;
