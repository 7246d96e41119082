//! Authenticates clients by their configured keys. Does not block and sends no request.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use secrecy::{ExposeSecret as _, SecretString};

use super::keys;
use crate::config::ClientConfig;
use crate::domain::principal::{CredentialInfo, CredentialKind, Grant, Principal};

/// The configured clients, by the hashes of their keys.
pub struct ClientKeys {
    known: Vec<([u8; 32], Principal)>,
}

impl ClientKeys {
    /// From the configured clients.
    pub fn new(clients: &[ClientConfig]) -> Self {
        let known = clients.iter().flat_map(|client| {
            let principal = Principal::with_grant(client.name.as_str(), client.grant());
            client.key_sha256.iter().map(move |hash| {
                let (kind, fingerprint) = (CredentialKind::ClientKey, Some(*hash));
                let credential = CredentialInfo { kind, fingerprint, ..CredentialInfo::default() };
                (*hash, principal.clone().with_credential(credential))
            })
        });
        Self { known: known.collect() }
    }

    /// Returns whether there are no clients.
    pub const fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The grant of the client with a name.
    pub(super) fn grant_of(&self, name: &str) -> Option<Grant> {
        let found = self.known.iter().find(|(_, client)| client.name() == name);
        found.map(|(_, client)| client.grant().clone())
    }

    /// The client with this key.
    pub(super) fn authenticate(&self, presented: &SecretString) -> Option<Principal> {
        let hash = keys::hash(presented.expose_secret());
        // Every hash is compared, and each in constant time, so that the duration reveals nothing about them.
        let mut found = None;
        for (known, principal) in &self.known {
            if verify_slices_are_equal(known, &hash).is_ok() {
                found = Some(principal);
            }
        }
        found.cloned()
    }

    /// Returns whether a client that was authenticated by a key would be authenticated now, with at least the same
    /// grant.
    pub(super) fn is_valid(&self, principal: &Principal) -> bool {
        let Some(hash) = principal.credential().fingerprint else { return false };
        self.known.iter().any(|(known, now)| {
            *known == hash && now.name() == principal.name() && now.grant().covers(principal.grant())
        })
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
    fn client_key_grants_only_the_sources_of_its_client() {
        let clients =
            ClientKeys::new(&[client("a", &["jg_a", "jg_old"], "audit"), client("b", &["jg_b"], "sales")]);
        let [audit, sales] = ["audit", "sales"].map(|name| SourceName::parse(name).unwrap());
        for (key, name, audit_too) in [("jg_a", "a", true), ("jg_old", "a", true), ("jg_b", "b", false)] {
            let principal = clients.authenticate(&key.into()).unwrap();
            assert_eq!(principal.name(), name);
            assert_eq!((principal.may_read(&audit), principal.may_read(&sales)), (audit_too, !audit_too));
        }
        for wrong in ["", "jg_", "jg_A", "jg_a ", &ClientConfig::hex(&keys::hash("jg_a"))] {
            assert_eq!(clients.authenticate(&wrong.into()), None, "{wrong:?}");
        }
    }

    #[test]
    fn principal_is_valid_while_its_key_and_grant_exist() {
        let before = ClientKeys::new(&[client("a", &["jg_a", "jg_old"], "audit")]);
        let [kept, old] = ["jg_a", "jg_old"].map(|key| before.authenticate(&key.into()).unwrap());
        let mut more = client("a", &["jg_a", "jg_old"], "audit");
        more.sources.insert(SourceName::parse("sales").unwrap(), Scope::default());
        for (clients, kept_is_valid, old_is_valid) in [
            (vec![client("a", &["jg_a", "jg_old"], "audit")], true, true),
            (vec![client("a", &["jg_a"], "audit")], true, false),
            (vec![client("a", &["jg_a", "jg_old"], "sales")], false, false),
            (vec![client("b", &["jg_a", "jg_old"], "audit")], false, false),
            (vec![more], true, true),
            (vec![], false, false),
        ] {
            let now = ClientKeys::new(&clients);
            assert_eq!(
                (now.is_valid(&kept), now.is_valid(&old)),
                (kept_is_valid, old_is_valid),
                "{clients:?}"
            );
        }
    }
}
