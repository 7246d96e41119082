//! What distinguishes one upstream API from another.

use super::id::{ExternalId, IdError};

/// A form in which an upstream accepts a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// `Authorization: Bearer …`.
    Bearer,
    /// The query parameter `api_key`.
    ApiKey,
}

/// What distinguishes one upstream API from another.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the properties are independent of each other")]
pub struct Profile {
    /// The name in configuration and logs; in upper case, its value in the schema.
    pub name: &'static str,
    /// The API, as one sentence: the description of its value in the schema.
    pub api: &'static str,
    /// The forms of credential that it accepts.
    pub credential_forms: &'static [CredentialForm],
    /// Whether its jobs have kinds, by which a grant can be restricted.
    pub has_kinds: bool,
    /// Whether an id can start a second run after a terminal state.
    pub runs_again: bool,
    /// Whether it documents that it deletes jobs, with an error code of its own for it. If it does not, "not found" gives
    /// no information about the job's state.
    pub documents_expiry: bool,
    /// Whether a list of its jobs requires the data sources to list.
    pub lists_by_data_source: bool,
    /// The maximum number of jobs in one request.
    pub ids_a_request: usize,
    /// Checks that an id can be one of this upstream's, so that an id that cannot exist is rejected before any call.
    pub check_id: fn(&ExternalId) -> Result<(), IdError>,
}
