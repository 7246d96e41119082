//! References to jobs, as clients write them, and the answer for one that leads to no job.

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{ExternalId, IdError, JobKey, SourceName};

/// A reference to a job, as a client wrote it and before any check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestedRef {
    /// By the opaque id that this gateway issued.
    Id(String),
    /// By source and the upstream's own id.
    External {
        /// The name of a source.
        source: String,
        /// The upstream's own id.
        external_id: String,
    },
}

impl RequestedRef {
    /// The key that the reference names, whether or not the job exists.
    pub(super) fn key(&self) -> Result<JobKey, Problem> {
        match self {
            Self::Id(text) => JobKey::from_node_id(text).map_err(|error| invalid("id", error)),
            Self::External { source, external_id } => Ok(JobKey {
                source: SourceName::parse(source).map_err(|error| invalid("source", error))?,
                external_id: ExternalId::parse(external_id).map_err(|error| invalid("externalId", error))?,
            }),
        }
    }
}

/// The same answer for a job that does not exist, a source that does not exist, and a missing grant for either.
pub(super) fn not_found(key: &JobKey) -> Problem {
    let JobKey { source, external_id } = key;
    let message = format!(
        "job \"{external_id}\" of source \"{source}\" does not exist, or this client is not allowed to read it"
    );
    Problem::new(ProblemCode::NotFound, Retry::Never, message)
}

/// The answer for a reference with an invalid field.
pub(super) fn invalid(field: &str, error: IdError) -> Problem {
    Problem::new(ProblemCode::InvalidRef, Retry::Never, format!("{field} {error}"))
}
