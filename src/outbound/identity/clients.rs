//! Recognises clients by their keys, as the configuration lists them. Blocks nothing and asks nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::{ExposeSecret as _, SecretString};

use super::keys;
use super::watch_tokens::WatchTokens;
use crate::config::ClientConfig;
use crate::domain::id::JobKey;
use crate::domain::principal::{Grant, Pass, Principal};
use crate::ports::clock::Clock;
use crate::ports::identity::{Identity, NoToken, Refusal, WatchToken};

/// The clients of the configuration, by the hashes of their keys.
///
/// Without any client whoever reaches the gateway is [`Principal::local`]; the configuration sees to it that only this
/// machine can.
pub struct ClientKeys {
    known: Vec<([u8; 32], Principal)>,
    passes: Option<(WatchTokens, Arc<dyn Clock>)>,
}

impl ClientKeys {
    /// Takes the configured clients.
    pub fn new(clients: &[ClientConfig]) -> Self {
        let known = clients.iter().flat_map(|client| {
            let principal = Principal::with_grant(client.name.as_str(), client.grant());
            client.key_sha256.iter().map(move |hash| {
                let pass = Pass { fingerprint: Some(*hash), ..Pass::default() };
                (*hash, principal.clone().holding(pass))
            })
        });
        Self { known: known.collect(), passes: None }
    }

    /// The same, which also makes watch tokens, and knows them by this clock.
    #[must_use]
    pub fn with_watch_tokens(self, tokens: WatchTokens, clock: Arc<dyn Clock>) -> Self {
        Self { passes: Some((tokens, clock)), ..self }
    }

    /// What the client of a name may read now.
    fn grant_of(&self, name: &str) -> Option<Grant> {
        if self.known.is_empty() {
            let local = Principal::local();
            return (name == local.name()).then(|| local.grant().clone());
        }
        let found = self.known.iter().find(|(_, client)| client.name() == name);
        found.map(|(_, client)| client.grant().clone())
    }
}

impl Identity for ClientKeys {
    fn recognise(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        if let Some(token) = presented.filter(|token| WatchTokens::is_one(token.expose_secret())) {
            let (tokens, clock) = self.passes.as_ref().ok_or(Refusal::Unknown)?;
            return tokens.read(token, clock.now(), |name| self.grant_of(name));
        }
        if self.known.is_empty() {
            return Ok(Principal::local());
        }
        let hash = keys::hash(presented.ok_or(Refusal::Missing)?.expose_secret());
        // Every hash is compared, and each in constant time, so that the time taken tells nothing about any of them.
        let mut found = None;
        for (known, principal) in &self.known {
            if verify_slices_are_equal(known, &hash).is_ok() {
                found = Some(principal);
            }
        }
        found.cloned().ok_or(Refusal::Unknown)
    }

    fn stands(&self, principal: &Principal) -> bool {
        if principal.only_watches() {
            let now = self.passes.as_ref().map(|(_, clock)| clock.now());
            return now.is_some_and(|now| WatchTokens::stands(principal, now, |name| self.grant_of(name)));
        }
        match principal.pass().fingerprint {
            None => self.known.is_empty(),
            Some(hash) => self.known.iter().any(|(known, now)| *known == hash && now == principal),
        }
    }

    fn watch_token(
        &self,
        principal: &Principal,
        jobs: &BTreeSet<JobKey>,
        ttl: Duration,
    ) -> Result<WatchToken, NoToken> {
        let (tokens, clock) = self.passes.as_ref().ok_or(NoToken::NotMade)?;
        tokens.mint(principal, jobs, ttl, clock.now(), |name| self.grant_of(name))
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKeys({} keys)", self.known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::SourceName;
    use crate::domain::principal::Scope;

    fn client(name: &str, keys: &[&str], source: &str) -> ClientConfig {
        ClientConfig {
            name: name.to_owned(),
            key_sha256: keys.iter().map(|key| keys::hash(key)).collect(),
            sources: [(SourceName::parse(source).unwrap(), Scope::default())].into(),
        }
    }

    #[test]
    fn a_key_opens_what_its_client_may_read_and_nothing_else_does() {
        let clients =
            ClientKeys::new(&[client("a", &["jg_a", "jg_old"], "audit"), client("b", &["jg_b"], "sales")]);
        let [audit, sales] = ["audit", "sales"].map(|name| SourceName::parse(name).unwrap());
        for (key, name, audit_too) in [("jg_a", "a", true), ("jg_old", "a", true), ("jg_b", "b", false)] {
            let principal = clients.recognise(Some(&key.into())).unwrap();
            assert_eq!(principal.name(), name);
            assert_eq!((principal.may_read(&audit), principal.may_read(&sales)), (audit_too, !audit_too));
        }
        for wrong in ["", "jg_", "jg_A", "jg_a ", &ClientConfig::hex(&keys::hash("jg_a"))] {
            assert_eq!(clients.recognise(Some(&wrong.into())), Err(Refusal::Unknown), "{wrong:?}");
        }
        assert_eq!(clients.recognise(None), Err(Refusal::Missing));
    }

    #[test]
    fn a_principal_stands_as_long_as_its_key_and_its_grant_do() {
        let before = ClientKeys::new(&[client("a", &["jg_a", "jg_old"], "audit")]);
        let [kept, old] = ["jg_a", "jg_old"].map(|key| before.recognise(Some(&key.into())).unwrap());
        for (clients, kept_stands, old_stands) in [
            (vec![client("a", &["jg_a", "jg_old"], "audit")], true, true),
            (vec![client("a", &["jg_a"], "audit")], true, false),
            (vec![client("a", &["jg_a", "jg_old"], "sales")], false, false),
            (vec![client("b", &["jg_a", "jg_old"], "audit")], false, false),
            (vec![], false, false),
        ] {
            let now = ClientKeys::new(&clients);
            assert_eq!((now.stands(&kept), now.stands(&old)), (kept_stands, old_stands), "{clients:?}");
        }
    }

    #[test]
    fn without_clients_everybody_is_local() {
        let nobody = ClientKeys::new(&[]);
        assert_eq!(nobody.recognise(None), Ok(Principal::local()));
        assert_eq!(nobody.recognise(Some(&"anything".into())), Ok(Principal::local()));
    }
}
