//! Authenticates clients by signed tokens (JWT) of configured issuers. Does not block and sends no request: the
//! issuers' keys are in memory, and a background task refreshes them. The time comes from the clock port; the library
//! only checks signatures.

mod keyring;
mod keyset;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::Algorithm;
use tokio_util::sync::CancellationToken;

use self::keyring::Keyring;
use self::token::{JwtClaims, UnverifiedToken};
use super::keys;
use crate::config::{Environment, IssuerConfig, SigningAlgorithm};
use crate::domain::id::SourceName;
use crate::domain::principal::{CredentialInfo, CredentialKind, Grant, Principal, Scope};
use crate::outbound::http::HttpClientError;
use crate::ports::clock::Clock;
use crate::ports::identity::AuthError;
use crate::ports::spawner::Spawner;

/// The largest difference between the clocks of the issuer and of the gateway: a token is accepted for this long after its
/// expiry and before its `nbf`.
const LEEWAY: SignedDuration = SignedDuration::from_secs(30);
/// The longest name of a client within its issuer, in bytes.
const NAME_MAX: usize = 128;
/// Separates the issuer and the client in a principal's name. No issuer and no configured client contains it.
const OF: char = '#';

/// The dependencies of issuers.
#[derive(Clone, Debug)]
pub struct JwtDeps {
    /// The clock for the validity of tokens.
    pub clock: Arc<dyn Clock>,
    /// Starts the tasks that refresh keys.
    pub spawner: Arc<dyn Spawner>,
    /// Stops all of them.
    pub stop: CancellationToken,
    /// The environment, for the proxy of key fetches.
    pub env: Environment,
}

/// The configured issuers, with the keys of each.
pub struct Issuers {
    all: Vec<Issuer>,
    clock: Arc<dyn Clock>,
}

struct Issuer {
    config: IssuerConfig,
    algorithms: Vec<Algorithm>,
    sources: Arc<BTreeMap<SourceName, Scope>>,
    keys: Arc<Keyring>,
}

/// Why a token is rejected. For the log: a client only learns that it is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwtError {
    #[error("it is no signed token")]
    Form,
    #[error("its issuer is not configured")]
    Issuer,
    #[error("its algorithm is not allowed for its issuer")]
    Algorithm,
    #[error("its key is not known")]
    Key,
    #[error("its signature does not fit")]
    Signature,
    #[error("it is meant for somebody else")]
    Audience,
    #[error("it has expired, or never says when it does")]
    Expired,
    #[error("it does not hold yet")]
    TooEarly,
    #[error("it names no client, or in a form that cannot be logged")]
    Name,
    #[error("it holds no list of sources where one is asked for")]
    Sources,
}

impl From<JwtError> for AuthError {
    fn from(bad: JwtError) -> Self {
        match bad {
            // the signature was valid
            JwtError::Expired => Self::Expired,
            // an issuer rotates its keys, and a gateway that has just started has none
            JwtError::Key | JwtError::TooEarly => Self::Unverified,
            JwtError::Form
            | JwtError::Issuer
            | JwtError::Algorithm
            | JwtError::Signature
            | JwtError::Audience
            | JwtError::Name
            | JwtError::Sources => Self::Unknown,
        }
    }
}

impl Issuers {
    /// Creates the configured issuers. Keys whose location is the same as in `before` are kept.
    ///
    /// # Errors
    /// Returns an error if the HTTP client cannot be built on this machine.
    pub fn new(
        configured: &[IssuerConfig],
        before: Option<&Self>,
        deps: &JwtDeps,
    ) -> Result<Self, HttpClientError> {
        let all = configured.iter().map(|config| {
            let same = before.and_then(|before| before.all.iter().find(|old| old.config.jwks == config.jwks));
            let keys = if let Some(same) = same {
                Arc::clone(&same.keys)
            } else {
                let location = keyring::location(&config.jwks, &deps.env)?;
                let (spawner, stop) = (&*deps.spawner, &deps.stop);
                Arc::new(Keyring::start(&config.issuer, location, spawner, stop))
            };
            Ok(Issuer::new(config, keys))
        });
        Ok(Self { all: all.collect::<Result<_, _>>()?, clock: Arc::clone(&deps.clock) })
    }

    /// No issuers.
    pub(super) const fn none(clock: Arc<dyn Clock>) -> Self {
        Self { all: Vec::new(), clock }
    }

    /// Returns whether there are no issuers.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns whether a text has the form of a signed token: three parts separated by dots.
    pub fn is_token_shaped(text: &str) -> bool {
        text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// The principal of a token, if it is valid.
    pub(super) fn authenticate(&self, text: &str) -> Result<Principal, JwtError> {
        let token = UnverifiedToken::read(text).ok_or(JwtError::Form)?;
        let issuer = self.all.iter().find(|issuer| Some(issuer.config.issuer.as_str()) == token.issuer());
        issuer.ok_or(JwtError::Issuer)?.accept(token, keys::hash(text), self.clock.time_of_day())
    }

    /// Returns whether a token that was valid still is: it has not expired, and its issuer may still grant the same.
    pub(super) fn is_valid(&self, principal: &Principal) -> bool {
        let good = principal.credential().expires.is_some_and(|expires| self.clock.time_of_day() < expires);
        good && self.back(principal)
    }

    /// Returns whether the issuer may still grant what a holder of its tokens delegated.
    pub(super) fn back(&self, principal: &Principal) -> bool {
        self.of(principal).is_some_and(|issuer| issuer.grants(principal.grant()))
    }

    /// The issuer in a principal's name.
    fn of(&self, principal: &Principal) -> Option<&Issuer> {
        let (name, _) = principal.name().split_once(OF)?;
        self.all.iter().find(|issuer| issuer.config.issuer == name)
    }
}

impl Issuer {
    fn new(config: &IssuerConfig, keys: Arc<Keyring>) -> Self {
        let sources = config.sources.iter().map(|source| (source.clone(), Scope::default()));
        Self {
            algorithms: config.algorithms.iter().copied().map(algorithm).collect(),
            sources: Arc::new(sources.collect()),
            config: config.clone(),
            keys,
        }
    }

    /// Returns whether a grant contains only sources of this issuer.
    fn grants(&self, grant: &Grant) -> bool {
        match grant {
            Grant::All => false,
            Grant::Sources(sources) => {
                sources.iter().all(|(source, scope)| self.sources.get(source) == Some(scope))
            }
        }
    }

    fn accept(
        &self,
        token: UnverifiedToken<'_>,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Principal, JwtError> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(JwtError::Algorithm);
        }
        let keys = self.keys.keys();
        let Some(key) = keys.find(token.kid.as_deref(), token.algorithm) else {
            if token.kid.is_some_and(|kid| !keys.contains(&kid)) {
                self.keys.want();
            }
            return Err(JwtError::Key);
        };
        let claims = token.check(key).ok_or(JwtError::Signature)?;
        let audiences = claims.one_or_more("aud").unwrap_or_default();
        if !audiences.iter().any(|one| self.config.audience.iter().any(|ours| ours == one)) {
            return Err(JwtError::Audience);
        }
        let expires = claims.time("exp").ok().flatten().ok_or(JwtError::Expired)?;
        if now.duration_since(expires) >= LEEWAY {
            return Err(JwtError::Expired);
        }
        let begins = claims.time("nbf").map_err(|()| JwtError::TooEarly)?;
        if begins.is_some_and(|begins| begins.duration_since(now) > LEEWAY) {
            return Err(JwtError::TooEarly);
        }
        let credential = CredentialInfo {
            kind: CredentialKind::Jwt,
            fingerprint: Some(fingerprint),
            expires: Some(expires),
            ..CredentialInfo::default()
        };
        let grant = Grant::Sources(self.granted(&claims)?);
        Ok(Principal::with_grant(self.name(&claims)?, grant).with_credential(credential))
    }

    /// The issuer and its name for the client, so that a client of one issuer cannot impersonate one of another.
    fn name(&self, claims: &JwtClaims) -> Result<String, JwtError> {
        let name = claims.text(&self.config.name_claim).ok_or(JwtError::Name)?;
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits) {
            Ok(format!("{}{OF}{name}", self.config.issuer))
        } else {
            Err(JwtError::Name)
        }
    }

    fn granted(&self, claims: &JwtClaims) -> Result<Arc<BTreeMap<SourceName, Scope>>, JwtError> {
        let Some(claim) = &self.config.sources_claim else { return Ok(Arc::clone(&self.sources)) };
        let listed = claims.list(claim).ok_or(JwtError::Sources)?;
        let both = self.sources.iter().filter(|(source, _)| listed.contains(&source.as_str()));
        Ok(Arc::new(both.map(|(source, scope)| (source.clone(), scope.clone())).collect()))
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|issuer| &issuer.config.issuer)).finish()
    }
}

const fn algorithm(named: SigningAlgorithm) -> Algorithm {
    match named {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Rs384 => Algorithm::RS384,
        SigningAlgorithm::Rs512 => Algorithm::RS512,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Ps384 => Algorithm::PS384,
        SigningAlgorithm::Ps512 => Algorithm::PS512,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Es384 => Algorithm::ES384,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}
