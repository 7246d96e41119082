//! Everybody who is known: client keys, issuers and the watch tokens that clients make, as one configuration lists them; and
//! the same live, so that another configuration can take its place while the gateway serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};

use super::clients::ClientKeys;
use super::jwt::{Issuers, Means};
use super::watch_tokens::WatchTokens;
use crate::config::{ClientConfig, Config};
use crate::domain::id::JobKey;
use crate::domain::principal::{Grant, Principal};
use crate::outbound::http::RoadError;
use crate::ports::clock::Clock;
use crate::ports::identity::{Identity, NoToken, Refusal, WatchToken};

/// The clients and issuers of one configuration.
///
/// Without any whoever reaches the gateway is [`Principal::local`]; the configuration sees to it that only this machine
/// can.
#[derive(Debug)]
pub struct Everybody {
    keys: ClientKeys,
    issuers: Issuers,
    passes: Arc<WatchTokens>,
    clock: Arc<dyn Clock>,
}

/// Everybody who is known now. A clone is cheap and means the same.
#[derive(Clone, Debug)]
pub struct LiveIdentity {
    now: Arc<ArcSwap<Everybody>>,
    means: Means,
    passes: Arc<WatchTokens>,
}

impl Everybody {
    /// Knows clients by their keys, and what they make.
    pub fn by_keys(clients: &[ClientConfig], passes: Arc<WatchTokens>, clock: Arc<dyn Clock>) -> Self {
        let issuers = Issuers::none(Arc::clone(&clock));
        Self { keys: ClientKeys::new(clients), issuers, passes, clock }
    }

    fn is_nobody(&self) -> bool {
        self.keys.is_empty() && self.issuers.is_empty()
    }

    /// What the client of a name may read now, if it is listed.
    fn grant_of(&self, name: &str) -> Option<Grant> {
        let local = Principal::local();
        if self.is_nobody() && name == local.name() {
            return Some(local.grant().clone());
        }
        self.keys.grant_of(name)
    }

    /// Says whether a watch token that was good still is, as far as its maker goes.
    fn backs(&self, principal: &Principal) -> bool {
        !principal.pass().carries_grant || self.issuers.back(principal)
    }
}

impl Identity for Everybody {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        if let Some(token) = presented.filter(|token| WatchTokens::is_one(token.expose_secret())) {
            let read = self.passes.read(token, self.clock.time_of_day(), |name| self.grant_of(name));
            return read
                .and_then(|holder| if self.backs(&holder) { Ok(holder) } else { Err(Refusal::Unknown) });
        }
        if self.is_nobody() {
            return Ok(Principal::local());
        }
        let presented = presented.ok_or(Refusal::Missing)?;
        if Issuers::looks_like_token(presented.expose_secret()) {
            return self.issuers.recognise(presented.expose_secret()).map_err(|reason| {
                tracing::debug!(%reason, "token rejected");
                reason.into()
            });
        }
        self.keys.recognise(presented).ok_or(Refusal::Unknown)
    }

    fn stands(&self, principal: &Principal) -> bool {
        if principal.only_watches() {
            let good = WatchTokens::stands(principal, self.clock.time_of_day(), |name| self.grant_of(name));
            return good && self.backs(principal);
        }
        if principal.pass().fingerprint.is_none() {
            return self.is_nobody();
        }
        self.keys.stands(principal) || self.issuers.stand(principal)
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, NoToken> {
        self.passes.mint(principal, jobs, ttl, self.clock.time_of_day(), |name| self.grant_of(name))
    }
}

impl LiveIdentity {
    /// Takes the clients and issuers of a configuration.
    ///
    /// # Errors
    /// When the HTTP client that reads keys cannot be built on this machine.
    pub fn new(config: &Config, passes: WatchTokens, means: Means) -> Result<Self, RoadError> {
        let passes = Arc::new(passes);
        let first = everybody(config, None, &passes, &means)?;
        Ok(Self { now: Arc::new(ArcSwap::from_pointee(first)), means, passes })
    }

    /// Puts the clients and issuers of another configuration in the place of those known so far. Keys of issuers that are
    /// read in the same place go on, and so does what watch tokens are signed with.
    ///
    /// # Errors
    /// As for [`LiveIdentity::new`]; nothing is changed then.
    pub fn replace(&self, config: &Config) -> Result<(), RoadError> {
        let next = everybody(config, Some(&self.now.load()), &self.passes, &self.means)?;
        self.now.store(Arc::new(next));
        Ok(())
    }
}

fn everybody(
    config: &Config,
    before: Option<&Everybody>,
    passes: &Arc<WatchTokens>,
    means: &Means,
) -> Result<Everybody, RoadError> {
    let issuers = Issuers::new(&config.jwt, before.map(|before| &before.issuers), means)?;
    let keys = ClientKeys::new(&config.clients);
    Ok(Everybody { keys, issuers, passes: Arc::clone(passes), clock: Arc::clone(&means.clock) })
}

impl Identity for LiveIdentity {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        self.now.load().recognise(presented)
    }

    fn stands(&self, principal: &Principal) -> bool {
        self.now.load().stands(principal)
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, NoToken> {
        self.now.load().watch_token(principal, jobs, ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::system::SystemClock;

    #[test]
    fn without_clients_and_issuers_whoever_comes_is_local() {
        let passes = Arc::new(WatchTokens::of_this_process().unwrap());
        let nobody = Everybody::by_keys(&[], passes, Arc::new(SystemClock));
        assert_eq!(nobody.recognise(None), Ok(Principal::local()));
        assert_eq!(nobody.recognise(Some(&"anything".into())), Ok(Principal::local()));
        assert!(nobody.stands(&Principal::local()));
        assert_eq!(nobody.recognise(Some(&"jgw_a.b".into())), Err(Refusal::Unknown));
    }
}
