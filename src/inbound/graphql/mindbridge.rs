//! What only a MindBridge job has.

use async_graphql::SimpleObject;

use crate::domain::details::{self, Details, MindBridgeDetails};

use super::job::job_object;
use super::scalars::{Int64, Text};

job_object! {
    /// An async result of MindBridge: an analysis, an ingestion, an export.
    MindBridgeJob {
        /// The vendor's word for the kind of job; a list that grows. Known today: `ANALYSIS_RUN`,
        /// `ANALYSIS_SOURCE_INGESTION`, `ADMIN_REPORT`, `DATA_TABLE_EXPORT`, `ANALYSIS_ROLL_FORWARD`, `GDPDU_UNPACK_JOB`,
        /// `ACCOUNT_GROUPING_EXPORT`, `ACCOUNT_MAPPING_EXPORT`, `DATA_TRANSFORMATION_JOB`.
        async fn kind(&self) -> Option<Text> {
            self.details()?.kind.clone().map(Into::into)
        }

        /// What the job worked on or produced; its meaning depends on its type.
        async fn entity(&self) -> Option<EntityRef> {
            self.details()?.entity.as_ref().map(EntityRef::from)
        }

        /// The data-integrity version: grows with each save.
        async fn version(&self) -> Option<Int64> {
            self.details()?.version.map(Int64)
        }

        /// Who started it.
        async fn created_by(&self) -> Option<UserInfo> {
            self.details()?.created_by.as_ref().map(UserInfo::from)
        }

        /// Who changed it last.
        async fn last_modified_by(&self) -> Option<UserInfo> {
            self.details()?.last_modified_by.as_ref().map(UserInfo::from)
        }

        /// The vendor's `error`, verbatim. `failure` holds both: what looks like a code as `code`, the other as `message`.
        async fn error(&self) -> Option<Text> {
            self.details()?.error.clone().map(Into::into)
        }

        /// The vendor's `errorMessage`, verbatim. `failure` holds both: what looks like a code as `code`, the other as `message`.
        async fn error_message(&self) -> Option<Text> {
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

/// A thing in MindBridge, by id and type.
#[derive(Clone, Debug, SimpleObject)]
pub struct EntityRef {
    /// The vendor's id of it.
    id: Option<Text>,
    /// The vendor's word for its type, such as `ANALYSIS_RESULT`; a list that grows.
    #[graphql(name = "type")]
    entity_type: Option<Text>,
}

/// A person in MindBridge.
#[derive(Clone, Debug, SimpleObject)]
pub struct UserInfo {
    /// The vendor's id of the person.
    user_id: Option<Text>,
    /// The name shown to people.
    user_name: Option<Text>,
}

impl From<&details::EntityRef> for EntityRef {
    fn from(entity: &details::EntityRef) -> Self {
        Self {
            id: entity.id.clone().map(Into::into),
            entity_type: entity.entity_type.clone().map(Into::into),
        }
    }
}

impl From<&details::UserInfo> for UserInfo {
    fn from(user: &details::UserInfo) -> Self {
        Self {
            user_id: user.user_id.clone().map(Into::into),
            user_name: user.user_name.clone().map(Into::into),
        }
    }
}
