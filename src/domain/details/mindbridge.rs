//! MindBridge: its profile, and what it reports about a job beyond the common fields.

use serde::Serialize;

use super::common::{UpstreamDetails, text_len};
use crate::domain::id::{ExternalId, IdError};
use crate::domain::profile::{CredentialForm, Profile};

/// MindBridge async results.
pub(in crate::domain) const PROFILE: Profile = Profile {
    name: "mindbridge",
    api: "The MindBridge async results API.",
    credential_forms: &[CredentialForm::Bearer],
    has_kinds: true,
    runs_again: false,
    documents_expiry: false,
    lists_by_data_source: false,
    // "Reading many jobs in one request"
    ids_a_request: 100,
    check_id,
};

/// `MindBridge` publishes no rule for its ids, so every [`ExternalId`] is accepted except `query`: that is an endpoint of
/// the collection itself. Case-insensitive: whether its paths ignore case is not published.
fn check_id(id: &ExternalId) -> Result<(), IdError> {
    if id.as_str().eq_ignore_ascii_case("query") { Err(IdError::Reserved("query")) } else { Ok(()) }
}

/// What MindBridge reports beyond the common fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MindBridgeDetails {
    /// The data-integrity version: grows with each save.
    pub version: Option<i64>,
    /// The vendor's name for the kind of job, such as `ANALYSIS_RUN`.
    pub kind: Option<String>,
    /// What the job worked on or produced.
    pub entity: Option<EntityRef>,
    /// The user that started it.
    pub created_by: Option<UserInfo>,
    /// The user that changed it last.
    pub last_modified_by: Option<UserInfo>,
    /// The vendor's `error`, verbatim.
    pub error: Option<String>,
    /// The vendor's `errorMessage`, verbatim.
    pub error_message: Option<String>,
}

/// An entity in MindBridge, by id and type; either may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityRef {
    /// The vendor's id of the entity.
    pub id: Option<String>,
    /// The vendor's name for its type, such as `ANALYSIS_RESULT`.
    #[serde(rename = "type")]
    pub entity_type: Option<String>,
}

/// A user in MindBridge; either field may be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The vendor's id of the user.
    pub user_id: Option<String>,
    /// The display name.
    pub user_name: Option<String>,
}

impl MindBridgeDetails {
    /// Whether two responses report the same: all of it belongs to the job.
    pub(super) fn same_report(&self, other: &Self) -> bool {
        self == other
    }
}

impl UpstreamDetails for MindBridgeDetails {
    fn counter(&self) -> Option<i64> {
        self.version
    }

    fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    fn clear_volatile(&mut self) {}

    fn total_rows(&self) -> Option<u32> {
        None
    }

    fn weight(&self) -> usize {
        let Self { version: _, kind, entity, created_by, last_modified_by, error, error_message } = self;
        let entity = entity
            .as_ref()
            .map_or(0, |entity| text_len(entity.id.as_ref()) + text_len(entity.entity_type.as_ref()));
        let users = [created_by, last_modified_by].into_iter().flatten();
        let users: usize =
            users.map(|user| text_len(user.user_id.as_ref()) + text_len(user.user_name.as_ref())).sum();
        size_of_val(self)
            + text_len(kind.as_ref())
            + text_len(error.as_ref())
            + text_len(error_message.as_ref())
            + entity
            + users
    }
}

#[cfg(test)]
mod arbitrary {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = ".{0,8}";

    impl MindBridgeDetails {
        /// Arbitrary details, for the round trip of records.
        pub(in crate::domain::details) fn arbitrary() -> impl Strategy<Value = Self> {
            let pair = || of((of(TEXT), of(TEXT)));
            (of(0_i64..3), of(TEXT), pair(), pair(), pair(), of(TEXT), of(TEXT)).prop_map(
                |(version, kind, entity, created_by, last_modified_by, error, error_message)| {
                    let person = |(user_id, user_name)| UserInfo { user_id, user_name };
                    Self {
                        version,
                        kind,
                        entity: entity.map(|(id, entity_type)| EntityRef { id, entity_type }),
                        created_by: created_by.map(person),
                        last_modified_by: last_modified_by.map(person),
                        error,
                        error_message,
                    }
                },
            )
        }
    }
}
