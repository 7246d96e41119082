//! The authenticated caller, its grant, and the expiry of its credential. Formats and verification of tokens are
//! elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::id::{JobKey, SourceName};

/// An authenticated client: a name for the logs, its grant, and its credential. A clone is cheap: each request has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(Arc<PrincipalState>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct PrincipalState {
    name: Arc<str>,
    grant: Grant,
    credential: CredentialInfo,
}

/// The grant: what a client may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every job of every source: the local principal of a gateway without configured clients.
    All,
    /// The jobs of these sources, each within its scope.
    Sources(Arc<BTreeMap<SourceName, Scope>>),
}

/// Which jobs of a source a client may read. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The upstream's own kinds of job; empty for every kind, including jobs without one.
    pub kinds: BTreeSet<String>,
    /// Labels that a tracked job must have, all of them; empty for every job.
    pub labels: BTreeMap<String, String>,
}

/// What a client may read of one source.
#[derive(Clone, Copy, Debug)]
pub struct SourceGrant<'a> {
    scope: Option<&'a Scope>,
    /// The jobs of a watch token.
    jobs: Option<&'a BTreeSet<JobKey>>,
}

/// What a client is authenticated by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialKind {
    /// Nothing, because no credential is required.
    #[default]
    None,
    /// A client key.
    ClientKey,
    /// A token of an issuer.
    Jwt,
    /// A watch token.
    WatchToken,
}

/// The credential of a client: its kind, its fingerprint and its expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialInfo {
    /// What it is.
    pub kind: CredentialKind,
    /// The SHA-256 of the credential; `None` if none is required.
    pub fingerprint: Option<[u8; 32]>,
    /// The credential is not valid from this time on; `None` if it is valid until it is revoked.
    pub expires: Option<Timestamp>,
    /// The jobs that it can read and watch, for a watch token; `None` if only the grant decides.
    pub jobs: Option<Arc<BTreeSet<JobKey>>>,
    /// Whether the credential itself contains the grant, so that its client is not listed anywhere.
    pub carries_grant: bool,
}

impl Grant {
    /// Returns whether it allows everything that another grant allows.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Sources(_), Self::All) => false,
            (Self::Sources(these), Self::Sources(those)) => {
                those.iter().all(|(source, scope)| these.get(source).is_some_and(|these| these.covers(scope)))
            }
        }
    }
}

impl Scope {
    /// Returns whether it contains all jobs of another scope.
    pub fn covers(&self, other: &Self) -> bool {
        let kinds = self.kinds.is_empty() || (!other.kinds.is_empty() && other.kinds.is_subset(&self.kinds));
        // A scope with more labels contains fewer jobs.
        kinds && self.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value))
    }

    /// Returns whether it contains all jobs of the source.
    pub fn is_whole(&self) -> bool {
        self.kinds.is_empty() && self.labels.is_empty()
    }

    /// Returns whether jobs of this kind are in it. Compared exactly, so that no name is mistaken for another.
    pub fn admits_kind(&self, kind: Option<&str>) -> bool {
        self.kinds.is_empty() || kind.is_some_and(|kind| self.kinds.contains(kind))
    }
}

impl<'a> SourceGrant<'a> {
    /// The scope that restricts the client in the source; `None` if it may read all of it.
    pub const fn scope(self) -> Option<&'a Scope> {
        self.scope
    }

    /// Returns whether the credential admits a job of the source: a watch token admits only its own. The scope is not
    /// checked.
    pub fn admits_key(self, job: &JobKey) -> bool {
        self.jobs.is_none_or(|jobs| jobs.contains(job))
    }
}

impl Principal {
    /// A client that may read all jobs of some sources, with a credential that is valid until it is revoked.
    pub fn new(name: impl Into<Arc<str>>, sources: impl IntoIterator<Item = SourceName>) -> Self {
        let sources = sources.into_iter().map(|source| (source, Scope::default())).collect();
        Self::with_grant(name, Grant::Sources(Arc::new(sources)))
    }

    /// A client with a grant.
    pub fn with_grant(name: impl Into<Arc<str>>, grant: Grant) -> Self {
        Self(Arc::new(PrincipalState { name: name.into(), grant, credential: CredentialInfo::default() }))
    }

    /// Any caller of a gateway without configured clients, which listens on loopback only.
    pub fn local() -> Self {
        Self::with_grant("local", Grant::All)
    }

    /// The same client with another credential.
    #[must_use]
    pub fn with_credential(self, credential: CredentialInfo) -> Self {
        Self(Arc::new(PrincipalState { credential, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The client's name, for logs and spans.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The client's name, shared.
    pub fn shared_name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// What the client may read.
    pub fn grant(&self) -> &Grant {
        &self.0.grant
    }

    /// Returns whether it is the caller of a gateway without configured clients, where no other client exists.
    pub fn is_local(&self) -> bool {
        matches!(self.0.grant, Grant::All)
    }

    /// The credential of the client.
    pub fn credential(&self) -> &CredentialInfo {
        &self.0.credential
    }

    /// Returns whether another principal is the same client with the same rights, with any credential.
    pub fn is_same_client(&self, other: &Self) -> bool {
        self.0.name == other.0.name
            && self.0.grant == other.0.grant
            && self.0.credential.jobs == other.0.credential.jobs
    }

    /// What the client may read of a source; `None` if the source is not in its grant.
    pub fn source_grant(&self, source: &SourceName) -> Option<SourceGrant<'_>> {
        let scope = match &self.0.grant {
            Grant::All => None,
            Grant::Sources(sources) => Some(sources.get(source)?).filter(|scope| !scope.is_whole()),
        };
        Some(SourceGrant { scope, jobs: self.0.credential.jobs.as_deref() })
    }

    /// Returns whether the client may read at least some jobs of a source.
    pub fn may_read(&self, source: &SourceName) -> bool {
        self.source_grant(source)
            .is_some_and(|grant| grant.jobs.is_none_or(|jobs| jobs.iter().any(|job| job.source == *source)))
    }

    /// The scope that restricts the client in a source; `None` if it may read all of the source, or nothing.
    pub fn scope(&self, source: &SourceName) -> Option<&Scope> {
        self.source_grant(source)?.scope
    }

    /// Returns whether the client uses a watch token, which reads and watches some jobs and changes nothing.
    pub fn only_watches(&self) -> bool {
        self.0.credential.jobs.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(kinds: &[&str], labels: &[(&str, &str)]) -> Scope {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Scope { kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(), labels: labels.collect() }
    }

    fn grant(sources: &[(&str, Scope)]) -> Grant {
        let sources = sources.iter().map(|(name, scope)| (SourceName::parse(name).unwrap(), scope.clone()));
        Grant::Sources(Arc::new(sources.collect()))
    }

    #[test]
    fn grant_covers_every_narrower_grant_and_no_wider_one() {
        let whole = Scope::default();
        let (a, b) = (scope(&["a"], &[]), scope(&["a", "b"], &[]));
        let (red, deep_red) =
            (scope(&[], &[("hue", "red")]), scope(&[], &[("hue", "red"), ("tone", "deep")]));
        let of = |scope: &Scope| grant(&[("x", scope.clone())]);
        let two = grant(&[("x", whole.clone()), ("y", whole.clone())]);
        for (wide, narrow) in [
            (Grant::All, two.clone()),
            (two.clone(), of(&whole)),
            (two, of(&deep_red)),
            (of(&whole), of(&a)),
            (of(&b), of(&a)),
            (of(&red), of(&deep_red)),
            (of(&a), grant(&[])),
        ] {
            assert!(wide.covers(&narrow) && wide.covers(&wide) && narrow.covers(&narrow));
            assert!(!narrow.covers(&wide), "{narrow:?} covers {wide:?}");
        }
        let blue = scope(&[], &[("hue", "blue")]);
        let c = scope(&["c"], &[]);
        for (one, other) in [(&red, &blue), (&a, &c), (&a, &red)] {
            assert!(!of(one).covers(&of(other)) && !of(other).covers(&of(one)), "{one:?} {other:?}");
        }
    }
}
