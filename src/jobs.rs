//! Floor 3: the use cases. Every door opens on [`Jobs`], and there is no second way round the access check, the
//! cache or the one write path.

pub mod access;
pub mod answer;
mod flight;
mod ingest;
mod judge;
pub mod list;
pub mod lookup;
pub mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::domain::id::{JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::domain::source::SourceStatus;
use crate::ports::clock::Clock;
use crate::ports::identity::Identity;
use crate::ports::rows::{RowCache, RowKey};
use crate::ports::spawner::Spawner;
use crate::ports::store::JobStore;
use crate::ports::upstream::JobReader;

use access::Refusal;
use flight::Flights;
use ingest::Ingest;

/// What the use cases ask of the world.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Recognises clients.
    pub identity: Arc<dyn Identity>,
    /// The sources, each ready to be asked.
    pub readers: Vec<Arc<dyn JobReader>>,
    /// Keeps jobs.
    pub store: Arc<dyn JobStore>,
    /// Keeps rows for a while.
    pub rows: Arc<dyn RowCache>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Starts tasks.
    pub spawner: Arc<dyn Spawner>,
}

/// How fresh an answer is, and how long a caller waits for one.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// An unfinished job is answered from what is held up to this age, unless the caller says otherwise.
    pub fresh_for: Duration,
    /// "No such job" is believed for this long, unless the caller says otherwise.
    pub missing_for: Duration,
    /// A finished job whose id may run again is looked at behind the answer when it was last seen this long ago.
    pub rerun_check: Duration,
    /// A caller gets an answer within this time, whatever the upstream does.
    pub answer_within: Duration,
}

/// The use cases. A cheap clone.
#[derive(Clone, Debug)]
pub struct Jobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    identity: Arc<dyn Identity>,
    readers: BTreeMap<SourceName, Arc<dyn JobReader>>,
    store: Arc<dyn JobStore>,
    row_cache: Arc<dyn RowCache>,
    clock: Arc<dyn Clock>,
    spawner: Arc<dyn Spawner>,
    freshness: Freshness,
    ingest: Ingest,
    looks: Flights<JobKey, ingest::Landing>,
    row_reads: Flights<RowKey, rows::Landing>,
}

impl Jobs {
    /// Builds the use cases on their ports.
    pub fn new(ports: Ports, freshness: Freshness) -> Self {
        let readers = ports.readers.into_iter().map(|reader| (reader.name().clone(), reader)).collect();
        Self {
            inner: Arc::new(Inner {
                identity: ports.identity,
                readers,
                ingest: Ingest::new(Arc::clone(&ports.store)),
                store: ports.store,
                row_cache: ports.rows,
                clock: ports.clock,
                spawner: ports.spawner,
                freshness,
                looks: Flights::default(),
                row_reads: Flights::default(),
            }),
        }
    }

    /// Recognises a client by what it presents.
    ///
    /// # Errors
    /// When the client is not to be let in.
    pub fn authenticate(&self, presented: Option<&SecretString>) -> Result<Principal, Refusal> {
        self.inner.identity.recognise(presented)
    }

    /// The sources a client may read, by name.
    pub fn sources(&self, principal: &Principal) -> Vec<SourceStatus> {
        let readable = self.inner.readers.iter().filter(|(name, _)| principal.may_read(name));
        readable.map(|(_, reader)| reader.status()).collect()
    }

    /// One source that a client may read.
    pub fn source(&self, principal: &Principal, name: &SourceName) -> Option<SourceStatus> {
        let reader = self.inner.readers.get(name).filter(|_| principal.may_read(name))?;
        Some(reader.status())
    }
}
