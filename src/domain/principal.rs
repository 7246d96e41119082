//! Who asks, and which sources they may read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::id::SourceName;

/// An authenticated client: a name for the logs, and the sources it may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: Arc<str>,
    grant: Grant,
}

/// The sources a client may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Every source: the local principal of a gateway without clients.
    All,
    /// These and no others.
    Sources(Arc<BTreeSet<SourceName>>),
}

impl Principal {
    /// A client with a grant.
    pub fn new(name: impl Into<Arc<str>>, sources: impl IntoIterator<Item = SourceName>) -> Self {
        Self { name: name.into(), grant: Grant::Sources(Arc::new(sources.into_iter().collect())) }
    }

    /// Whoever reaches a gateway that has no clients configured, which listens on loopback alone.
    pub fn local() -> Self {
        Self { name: "local".into(), grant: Grant::All }
    }

    /// The client's name, for logs and spans.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client's name, shared.
    pub fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Says whether the client may read a source.
    pub fn may_read(&self, source: &SourceName) -> bool {
        match &self.grant {
            Grant::All => true,
            Grant::Sources(sources) => sources.contains(source),
        }
    }
}
