//! References to jobs as clients send them, and how many one field accepts.

use async_graphql::{ID, InputObject, OneofObject, Result};

use crate::jobs::visibility;

use super::problem::bad_input;

/// The maximum number of entries of one `jobs` or `nodes` field.
pub const REFS_MAX: usize = 200;

/// Identifies a job. Exactly one field must be set.
#[derive(Clone, Debug, OneofObject)]
#[graphql(name = "JobRef")]
pub enum JobRefInput {
    /// The global node ID of the job, as returned in `Job.id`.
    Id(ID),
    /// The source of the job and its ID in the upstream's API.
    External(ExternalJobRef),
}

/// Identifies a job by its source and its ID in the upstream's API.
#[derive(Clone, Debug, InputObject)]
pub struct ExternalJobRef {
    /// The name of the source, as returned in `Source.name`: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter
    /// or a digit.
    source: String,
    /// The ID in the upstream's API: `asyncResultId` for MindBridge, `schedule_id` for Supermetrics. Case-sensitive. 1
    /// to 200 of `A-Z`, `a-z`, `0-9`, `-`, `_`, `.`, `~` and `:`, but not only dots; for Supermetrics, without `.`, `~`
    /// and `:`.
    external_id: String,
}

impl From<JobRefInput> for visibility::RequestedRef {
    fn from(reference: JobRefInput) -> Self {
        match reference {
            JobRefInput::Id(id) => Self::id(id.0),
            JobRefInput::External(ExternalJobRef { source, external_id }) => {
                Self::external(source, external_id)
            }
        }
    }
}

/// Whether a list of references can have this length.
pub(in crate::inbound::graphql) fn is_count(count: usize) -> bool {
    (1..=REFS_MAX).contains(&count)
}

/// Validates the length of a list of references.
pub(super) fn check_count(field: &str, count: usize) -> Result<()> {
    if is_count(count) {
        Ok(())
    } else if count == 0 {
        Err(bad_input(format!(
            "{field} must have 1 to {REFS_MAX} entries, not 0; add entries, or omit the field"
        )))
    } else {
        Err(bad_input(format!("{field} must have 1 to {REFS_MAX} entries, not {count}; split the list")))
    }
}
