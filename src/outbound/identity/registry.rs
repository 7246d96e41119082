//! The registry of identities: client keys, issuers and watch tokens of one configuration; and a live version that can
//! be replaced by another configuration while the gateway serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use super::clients::ClientKeys;
use super::jwt::{Issuers, JwtDeps};
use super::watch_tokens::WatchTokens;
use crate::config::{ClientConfig, Config};
use crate::domain::id::JobKey;
use crate::domain::principal::{Grant, Principal};
use crate::outbound::http::HttpClientError;
use crate::ports::clock::Clock;
use crate::ports::identity::{AuthError, Identity, WatchToken, WatchTokenError};

/// The clients and issuers of one configuration.
///
/// If there are none, every caller is [`Principal::local`]; the configuration then only allows callers on this machine.
#[derive(Debug)]
pub struct IdentityRegistry {
    keys: ClientKeys,
    issuers: Issuers,
    watch_tokens: Arc<WatchTokens>,
    clock: Arc<dyn Clock>,
    /// The number of configurations that were applied before it.
    generation: u64,
}

/// The current registry. A clone is cheap and shares the registry.
#[derive(Clone, Debug)]
pub struct LiveIdentity {
    now: Arc<ArcSwap<IdentityRegistry>>,
    deps: JwtDeps,
    watch_tokens: Arc<WatchTokens>,
}

impl IdentityRegistry {
    /// Authenticates clients by their keys, and by the watch tokens that they create.
    pub fn by_keys(clients: &[ClientConfig], watch_tokens: Arc<WatchTokens>, clock: Arc<dyn Clock>) -> Self {
        let issuers = Issuers::none(Arc::clone(&clock));
        Self { keys: ClientKeys::new(clients), issuers, watch_tokens, clock, generation: 0 }
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.issuers.is_empty()
    }

    /// The current grant of a client, if it is listed.
    fn grant_of(&self, name: &str) -> Option<Grant> {
        let local = Principal::local();
        if self.is_empty() && name == local.name() {
            return Some(local.grant().clone());
        }
        self.keys.grant_of(name)
    }

    /// Returns whether the issuer of a watch token still has the grant for it.
    fn backs(&self, principal: &Principal) -> bool {
        !principal.credential().carries_grant || self.issuers.back(principal)
    }
}

impl Identity for IdentityRegistry {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        if let Some(token) = presented.filter(|token| WatchTokens::is_one(token.expose_secret())) {
            let read = self.watch_tokens.read(token, self.clock.time_of_day(), |name| self.grant_of(name));
            return read
                .and_then(|holder| if self.backs(&holder) { Ok(holder) } else { Err(AuthError::Unknown) });
        }
        if self.is_empty() {
            return Ok(Principal::local());
        }
        let presented = presented.ok_or(AuthError::Missing)?;
        if Issuers::is_token_shaped(presented.expose_secret()) {
            return self.issuers.authenticate(presented.expose_secret()).map_err(|reason| {
                tracing::debug!(%reason, "token rejected");
                reason.into()
            });
        }
        self.keys.authenticate(presented).ok_or(AuthError::Unknown)
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        if principal.only_watches() {
            let good = WatchTokens::is_valid(principal, self.clock.time_of_day(), |name| self.grant_of(name));
            return good && self.backs(principal);
        }
        if principal.credential().fingerprint.is_none() {
            return self.is_empty();
        }
        self.keys.is_valid(principal) || self.issuers.is_valid(principal)
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenError> {
        self.watch_tokens.mint(principal, jobs, ttl, self.clock.time_of_day(), |name| self.grant_of(name))
    }
}

impl LiveIdentity {
    /// Creates the clients and issuers of a configuration.
    ///
    /// # Errors
    /// Returns an error if the HTTP client for key fetches cannot be built on this machine.
    pub fn new(config: &Config, watch_tokens: WatchTokens, deps: JwtDeps) -> Result<Self, HttpClientError> {
        let watch_tokens = Arc::new(watch_tokens);
        let first = registry(config, None, &watch_tokens, &deps)?;
        Ok(Self { now: Arc::new(ArcSwap::from_pointee(first)), deps, watch_tokens })
    }

    /// Replaces the clients and issuers by those of another configuration. Issuers with an unchanged key location keep
    /// their keys, and the signing key of watch tokens stays.
    ///
    /// # Errors
    /// As for [`LiveIdentity::new`]; nothing is changed then.
    pub fn replace(&self, config: &Config) -> Result<(), HttpClientError> {
        let next = registry(config, Some(&self.now.load()), &self.watch_tokens, &self.deps)?;
        self.now.store(Arc::new(next));
        Ok(())
    }
}

fn registry(
    config: &Config,
    before: Option<&IdentityRegistry>,
    watch_tokens: &Arc<WatchTokens>,
    deps: &JwtDeps,
) -> Result<IdentityRegistry, HttpClientError> {
    let issuers = Issuers::new(&config.jwt, before.map(|before| &before.issuers), deps)?;
    let keys = ClientKeys::new(&config.clients);
    Ok(IdentityRegistry {
        keys,
        issuers,
        watch_tokens: Arc::clone(watch_tokens),
        clock: Arc::clone(&deps.clock),
        generation: before.map_or(0, |before| before.generation + 1),
    })
}

impl Identity for LiveIdentity {
    fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, AuthError> {
        self.now.load().authenticate(presented)
    }

    fn is_valid(&self, principal: &Principal) -> bool {
        self.now.load().is_valid(principal)
    }

    fn generation(&self) -> Option<u64> {
        Some(self.now.load().generation)
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenError> {
        self.now.load().watch_token(principal, jobs, ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::system::SystemClock;

    #[test]
    fn without_clients_and_issuers_every_caller_is_local() {
        let watch_tokens = Arc::new(WatchTokens::of_this_process().unwrap());
        let without_clients = IdentityRegistry::by_keys(&[], watch_tokens, Arc::new(SystemClock));
        assert_eq!(without_clients.authenticate(None), Ok(Principal::local()));
        assert_eq!(without_clients.authenticate(Some(&"anything".into())), Ok(Principal::local()));
        assert!(without_clients.is_valid(&Principal::local()));
        assert_eq!(without_clients.authenticate(Some(&"jgw_a.b".into())), Err(AuthError::Unknown));
    }
}
