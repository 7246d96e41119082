//! The one place every door passes: what a client's reference means, and whether the client may read it.

use std::sync::Arc;

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{ExternalId, IdError, JobKey, SourceName};
use crate::domain::principal::Principal;
use crate::ports::upstream::JobReader;

use super::Jobs;

pub use crate::ports::identity::Refusal;

/// A reference to a job, as a client wrote it: nothing about it is checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JobRef {
    /// By the opaque id that this gateway gave out.
    Id(String),
    /// By source and the upstream's own id.
    External {
        /// The name of a source.
        source: String,
        /// The upstream's own id.
        external_id: String,
    },
}

/// A reference that was checked: a job this client may ask about, and who can be asked.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) key: JobKey,
    pub(super) reader: Arc<dyn JobReader>,
}

impl Jobs {
    /// Reads a reference and checks the grant. Makes no call.
    pub(super) fn resolve(&self, principal: &Principal, reference: &JobRef) -> Result<Target, Problem> {
        let key = read(reference)?;
        let reader = self.inner.readers.get(&key.source).filter(|_| principal.may_read(&key.source));
        let Some(reader) = reader.map(Arc::clone) else {
            return Err(not_found(&key));
        };
        reader.upstream().check_id(&key.external_id).map_err(|error| invalid("externalId", error))?;
        Ok(Target { key, reader })
    }
}

/// The one answer for a job that does not exist, a source that does not exist, and either behind a missing grant.
pub(super) fn not_found(key: &JobKey) -> Problem {
    let JobKey { source, external_id } = key;
    let message = format!("no job \"{external_id}\" in source \"{source}\" that this client may read");
    Problem::new(ProblemCode::NotFound, Retry::Never, message)
}

fn read(reference: &JobRef) -> Result<JobKey, Problem> {
    match reference {
        JobRef::Id(text) => JobKey::from_node_id(text).map_err(|error| invalid("id", error)),
        JobRef::External { source, external_id } => Ok(JobKey {
            source: SourceName::parse(source).map_err(|error| invalid("source", error))?,
            external_id: ExternalId::parse(external_id).map_err(|error| invalid("externalId", error))?,
        }),
    }
}

fn invalid(field: &str, error: IdError) -> Problem {
    Problem::new(ProblemCode::InvalidRef, Retry::Never, format!("{field} {error}"))
}
