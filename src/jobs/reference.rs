//! References to jobs, as clients write them, and the answer for one that leads to no job.

use crate::domain::error::{Problem, ProblemCode, Retry};
use crate::domain::id::{ExternalId, IdError, JobKey, SourceName};

/// A reference to a job, as a client wrote it, and the key that it names. It was not checked whether there is such a job.
///
/// It is parsed once: a known request has the same references each time it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestedRef {
    written: WrittenRef,
    key: Result<JobKey, InvalidRef>,
}

/// A reference as a client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WrittenRef {
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

/// The field of a reference that is not valid, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InvalidRef {
    field: &'static str,
    error: IdError,
}

impl RequestedRef {
    /// By the opaque id that this gateway issued.
    pub fn id(text: String) -> Self {
        let key = JobKey::from_node_id(&text).map_err(|error| InvalidRef { field: "id", error });
        Self { written: WrittenRef::Id(text), key }
    }

    /// By the name of a source and the upstream's own id.
    pub fn external(source: String, external_id: String) -> Self {
        let invalid = |field| move |error| InvalidRef { field, error };
        let key = SourceName::parse(&source).map_err(invalid("source")).and_then(|source| {
            let external_id = ExternalId::parse(&external_id).map_err(invalid("externalId"))?;
            Ok(JobKey { source, external_id })
        });
        Self { written: WrittenRef::External { source, external_id }, key }
    }

    /// As the client wrote it.
    pub const fn written(&self) -> &WrittenRef {
        &self.written
    }

    /// The same.
    pub fn into_written(self) -> WrittenRef {
        self.written
    }

    /// The key that the reference names, whether or not the job exists.
    pub(super) fn key(&self) -> Result<&JobKey, Problem> {
        self.key.as_ref().map_err(|InvalidRef { field, error }| invalid(field, *error))
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
