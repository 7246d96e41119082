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
    pass: Pass,
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
pub struct Pass {
    /// The SHA-256 of what was presented; none where nothing need be.
    pub fingerprint: Option<[u8; 32]>,
    /// From this time on it does not hold; none while it is not taken back.
    pub expires: Option<Timestamp>,
    /// The jobs it is for, to be read and watched and nothing else; none where the grant alone says.
    pub jobs: Option<Arc<BTreeSet<JobKey>>>,
}

impl Principal {
    /// A client that may read all jobs of some sources, whose pass holds until it is taken back.
    pub fn new(name: impl Into<Arc<str>>, sources: impl IntoIterator<Item = SourceName>) -> Self {
        let sources = sources.into_iter().map(|source| (source, Scope::default())).collect();
        Self { name: name.into(), grant: Grant::Sources(Arc::new(sources)), pass: Pass::default() }
    }

    /// A client with a grant.
    pub fn with_grant(name: impl Into<Arc<str>>, grant: Grant) -> Self {
        Self { name: name.into(), grant, pass: Pass::default() }
    }

    /// Whoever reaches a gateway that has no clients configured, which listens on loopback alone.
    pub fn local() -> Self {
        Self::with_grant("local", Grant::All)
    }

    /// The same client, come in with a pass.
    #[must_use]
    pub fn holding(self, pass: Pass) -> Self {
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

    /// What the client came in with.
    pub const fn pass(&self) -> &Pass {
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
}
