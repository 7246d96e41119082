//! Who asks, what they may read, and for how long. What a token looks like and who checks it is not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::id::{JobKey, SourceName};

/// An authenticated client: a name for the logs, what it may read, and the pass it came in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: Arc<str>,
    grant: Grant,
    pass: CredentialInfo,
}

/// What a client may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every job of every source: the local principal of a gateway without clients.
    All,
    /// The jobs of these sources, each as far as its scope reaches.
    Sources(Arc<BTreeMap<SourceName, Scope>>),
}

/// Which jobs of a source a client may read. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The upstream's own kinds of job; empty for every kind, and for jobs without one.
    pub kinds: BTreeSet<String>,
    /// Labels that a tracked job must carry, all of them; empty for every job.
    pub labels: BTreeMap<String, String>,
}

/// What a client presented: by which it is told from others, and until when it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialInfo {
    /// The SHA-256 of what was presented; none where nothing need be.
    pub fingerprint: Option<[u8; 32]>,
    /// From this time on it does not hold; none while it is not taken back.
    pub expires: Option<Timestamp>,
    /// The jobs it is for, to be read and watched and nothing else; none where the grant alone says.
    pub jobs: Option<Arc<BTreeSet<JobKey>>>,
    /// Whether the grant came written in the pass, and holds without its client being listed anywhere.
    pub carries_grant: bool,
}

impl Grant {
    /// Says whether it allows all that another one does.
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
    /// Says whether all jobs of another scope are in it.
    pub fn covers(&self, other: &Self) -> bool {
        let kinds = self.kinds.is_empty() || (!other.kinds.is_empty() && other.kinds.is_subset(&self.kinds));
        // whoever asks for more labels reaches fewer jobs
        kinds && self.labels.iter().all(|(name, value)| other.labels.get(name) == Some(value))
    }

    /// Says whether it is all jobs of the source.
    pub fn is_whole(&self) -> bool {
        self.kinds.is_empty() && self.labels.is_empty()
    }

    /// Says whether jobs of this kind are in it. Compared letter by letter, so that a word is never read as another.
    pub fn admits_kind(&self, kind: Option<&str>) -> bool {
        self.kinds.is_empty() || kind.is_some_and(|kind| self.kinds.contains(kind))
    }
}

impl Principal {
    /// A client that may read all jobs of some sources, whose pass holds until it is taken back.
    pub fn new(name: impl Into<Arc<str>>, sources: impl IntoIterator<Item = SourceName>) -> Self {
        let sources = sources.into_iter().map(|source| (source, Scope::default())).collect();
        Self { name: name.into(), grant: Grant::Sources(Arc::new(sources)), pass: CredentialInfo::default() }
    }

    /// A client with a grant.
    pub fn with_grant(name: impl Into<Arc<str>>, grant: Grant) -> Self {
        Self { name: name.into(), grant, pass: CredentialInfo::default() }
    }

    /// Whoever reaches a gateway that has no clients configured, which listens on loopback alone.
    pub fn local() -> Self {
        Self::with_grant("local", Grant::All)
    }

    /// The same client, come in with a pass.
    #[must_use]
    pub fn holding(self, pass: CredentialInfo) -> Self {
        Self { pass, ..self }
    }

    /// The client's name, for logs and spans.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client's name, shared.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// What the client may read.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Says whether it is the caller of a gateway without clients, which has no other client to take anything from.
    pub const fn is_local(&self) -> bool {
        matches!(self.grant, Grant::All)
    }

    /// What the client came in with.
    pub const fn pass(&self) -> &CredentialInfo {
        &self.pass
    }

    /// Says whether another principal is the same client with the same rights, whatever pass it came in with.
    pub fn is_same_client(&self, other: &Self) -> bool {
        self.name == other.name && self.grant == other.grant && self.pass.jobs == other.pass.jobs
    }

    /// Says whether the client may read something of a source.
    pub fn may_read(&self, source: &SourceName) -> bool {
        let granted = match &self.grant {
            Grant::All => true,
            Grant::Sources(sources) => sources.contains_key(source),
        };
        granted && self.pass.jobs.as_ref().is_none_or(|jobs| jobs.iter().any(|job| job.source == *source))
    }

    /// Says whether the client may ask about a job, of which nothing is known yet.
    pub fn may_read_job(&self, job: &JobKey) -> bool {
        let granted = match &self.grant {
            Grant::All => true,
            Grant::Sources(sources) => sources.contains_key(&job.source),
        };
        granted && self.pass.jobs.as_ref().is_none_or(|jobs| jobs.contains(job))
    }

    /// What the client's view of a source is narrowed to; none where it may read all of it, or nothing.
    pub fn scope(&self, source: &SourceName) -> Option<&Scope> {
        match &self.grant {
            Grant::All => None,
            Grant::Sources(sources) => sources.get(source).filter(|scope| !scope.is_whole()),
        }
    }

    /// Says whether the client came in with a pass that reads and watches some jobs and changes nothing.
    pub const fn only_watches(&self) -> bool {
        self.pass.jobs.is_some()
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
