//! The fields that only a MindBridge job has.

use async_graphql::SimpleObject;

use crate::domain::details::{self, Details, MindBridgeDetails};

use crate::inbound::graphql::document::limits::field_cost::TypeCosts;

use super::job_object::{FREE_FIELDS, job_object};
use super::scalars::{Int64, UpstreamText};

/// What each field costs.
pub(super) const COSTS: [TypeCosts; 3] = [
    TypeCosts::free(
        "MindBridgeJob",
        &["kind", "entity", "version", "createdBy", "lastModifiedBy", "error", "errorMessage"],
    )
    .sharing(&FREE_FIELDS),
    TypeCosts::free("EntityRef", &["id", "type"]),
    TypeCosts::free("UserInfo", &["userId", "userName"]),
];

job_object! {
    /// A MindBridge async result, such as an analysis run, an ingestion or an export.
    MindBridgeJob {
        /// The `asyncResultId` of the job.
        external_id;
        /// The date and time when the job was created, by the upstream's clock. Null if MindBridge does not report it.
        created_at;
        /// The date and time when the job was last updated, by the upstream's clock. Null if MindBridge does not report
        /// it.
        updated_at;
        /// The date and time when the job finished. Always null: MindBridge does not report it.
        finished_at;
        /// The progress of the job. Always null: MindBridge does not report it.
        progress;

        /// The kind of job (`type` in the MindBridge API). MindBridge can add values at any time. Null if not reported. Known
        /// values: `ANALYSIS_RUN`, `ANALYSIS_SOURCE_INGESTION`, `ADMIN_REPORT`, `DATA_TABLE_EXPORT`,
        /// `ANALYSIS_ROLL_FORWARD`, `GDPDU_UNPACK_JOB`, `ACCOUNT_GROUPING_EXPORT`, `ACCOUNT_MAPPING_EXPORT`,
        /// `DATA_TRANSFORMATION_JOB`.
        async fn kind(&self) -> Option<UpstreamText> {
            self.details()?.kind.clone().map(Into::into)
        }

        /// The MindBridge object that the job processed or created. Null if not reported.
        async fn entity(&self) -> Option<GqlEntityRef> {
            self.details()?.entity.as_ref().map(GqlEntityRef::from)
        }

        /// The data-integrity version of the job. Increases with each save. Null if not reported.
        async fn version(&self) -> Option<Int64> {
            self.details()?.version.map(Int64)
        }

        /// The user who started the job. Null if not reported.
        async fn created_by(&self) -> Option<GqlUserInfo> {
            self.details()?.created_by.as_ref().map(GqlUserInfo::from)
        }

        /// The user who last modified the job. Null if not reported.
        async fn last_modified_by(&self) -> Option<GqlUserInfo> {
            self.details()?.last_modified_by.as_ref().map(GqlUserInfo::from)
        }

        /// The value of `error` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`. Null if
        /// not reported.
        async fn error(&self) -> Option<UpstreamText> {
            self.details()?.error.clone().map(Into::into)
        }

        /// The value of `errorMessage` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`.
        /// Null if not reported.
        async fn error_message(&self) -> Option<UpstreamText> {
            self.details()?.error_message.clone().map(Into::into)
        }
    }
}

impl MindBridgeJob {
    fn details(&self) -> Option<&MindBridgeDetails> {
        match &self.job().details {
            Details::MindBridge(details) => Some(details),
            Details::Supermetrics(_) => None,
        }
    }
}

/// A reference to a MindBridge object.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "EntityRef")]
pub struct GqlEntityRef {
    /// The MindBridge ID of the object. Null if not reported.
    id: Option<UpstreamText>,
    /// The type of the object, such as `ANALYSIS_RESULT`. MindBridge can add values at any time. Null if not reported.
    #[graphql(name = "type")]
    entity_type: Option<UpstreamText>,
}

/// A MindBridge user.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "UserInfo")]
pub struct GqlUserInfo {
    /// The MindBridge ID of the user. Null if not reported.
    user_id: Option<UpstreamText>,
    /// The display name of the user. Null if not reported.
    user_name: Option<UpstreamText>,
}

impl From<&details::EntityRef> for GqlEntityRef {
    fn from(entity: &details::EntityRef) -> Self {
        Self {
            id: entity.id.clone().map(Into::into),
            entity_type: entity.entity_type.clone().map(Into::into),
        }
    }
}

impl From<&details::UserInfo> for GqlUserInfo {
    fn from(user: &details::UserInfo) -> Self {
        Self {
            user_id: user.user_id.clone().map(Into::into),
            user_name: user.user_name.clone().map(Into::into),
        }
    }
}
