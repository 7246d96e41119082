//! Everybody who is known: client keys and issuers together, as one configuration lists them, and the same live, so that
//! another configuration can take its place while the gateway serves.

use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use super::clients::ClientKeys;
use super::jwt::{Issuers, Means};
use crate::config::Config;
use crate::domain::principal::Principal;
use crate::outbound::http::RoadError;
use crate::ports::identity::{Identity, Refusal};

/// The clients and issuers of one configuration.
///
/// Without any whoever reaches the gateway is [`Principal::local`]; the configuration sees to it that only this machine
/// can.
#[derive(Debug)]
pub struct Everybody {
    keys: ClientKeys,
    issuers: Issuers,
}

/// Everybody who is known now. A clone is cheap and means the same.
#[derive(Clone, Debug)]
pub struct LiveIdentity {
    now: Arc<ArcSwap<Everybody>>,
    means: Means,
}

impl Everybody {
    fn new(config: &Config, before: Option<&Self>, means: &Means) -> Result<Self, RoadError> {
        let issuers = Issuers::new(&config.jwt, before.map(|before| &before.issuers), means)?;
        Ok(Self { keys: ClientKeys::new(&config.clients), issuers })
    }

    fn is_nobody(&self) -> bool {
        self.keys.is_empty() && self.issuers.is_empty()
    }
}

impl Identity for Everybody {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        if self.is_nobody() {
            return Ok(Principal::local());
        }
        let presented = presented.ok_or(Refusal::Missing)?;
        if Issuers::looks_like_token(presented.expose_secret()) {
            return self.issuers.recognise(presented.expose_secret()).map_err(|reason| {
                tracing::debug!(%reason, "a token is refused");
                Refusal::Unknown
            });
        }
        if self.keys.is_empty() { Err(Refusal::Unknown) } else { self.keys.recognise(Some(presented)) }
    }

    fn stands(&self, principal: &Principal) -> bool {
        if principal.pass().fingerprint.is_none() {
            return self.is_nobody();
        }
        self.keys.stands(principal) || self.issuers.stand(principal)
    }
}

impl LiveIdentity {
    /// Takes the clients and issuers of a configuration.
    ///
    /// # Errors
    /// When the HTTP client that reads keys cannot be built on this machine.
    pub fn new(config: &Config, means: Means) -> Result<Self, RoadError> {
        let first = Everybody::new(config, None, &means)?;
        Ok(Self { now: Arc::new(ArcSwap::from_pointee(first)), means })
    }

    /// Puts the clients and issuers of another configuration in the place of those known so far. Keys of issuers that are
    /// read in the same place go on.
    ///
    /// # Errors
    /// As for [`LiveIdentity::new`]; nothing is changed then.
    pub fn replace(&self, config: &Config) -> Result<(), RoadError> {
        let next = Everybody::new(config, Some(&self.now.load()), &self.means)?;
        self.now.store(Arc::new(next));
        Ok(())
    }
}

impl Identity for LiveIdentity {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        self.now.load().recognise(presented)
    }

    fn stands(&self, principal: &Principal) -> bool {
        self.now.load().stands(principal)
    }
}
