//! The fields that only a MindBridge job has.

use crate::domain::details::{self, MindBridgeDetails};

use crate::inbound::graphql::plan::output::{ObjectDescription, output_object};
use crate::inbound::graphql::plan::rendered::ObservedJob;

use crate::inbound::graphql::schema::job_object::job_object;
use crate::inbound::graphql::schema::scalars::{Int64, UpstreamText};

job_object! {
    /// A MindBridge async result, such as an analysis run, an ingestion or an export.
    MindBridgeJob = "MindBridgeJob" {
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
        Free stable kind: Option<UpstreamText> = |this| details(this)?.kind.clone().map(Into::into);

        /// The MindBridge object that the job processed or created. Null if not reported.
        Free stable entity: Option<GqlEntityRef> = |this| details(this)?.entity.as_ref().map(GqlEntityRef::from);

        /// The data-integrity version of the job. Increases with each save. Null if not reported.
        Free stable version: Option<Int64> = |this| details(this)?.version.map(Int64);

        /// The user who started the job. Null if not reported.
        Free stable created_by: Option<GqlUserInfo> = |this| details(this)?.created_by.as_ref().map(GqlUserInfo::from);

        /// The user who last modified the job. Null if not reported.
        Free stable last_modified_by: Option<GqlUserInfo> = |this| details(this)?.last_modified_by.as_ref().map(GqlUserInfo::from);

        /// The value of `error` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`. Null if
        /// not reported.
        Free stable error: Option<UpstreamText> = |this| details(this)?.error.clone().map(Into::into);

        /// The value of `errorMessage` in the MindBridge API, verbatim. `failure` is derived from `error` and `errorMessage`.
        /// Null if not reported.
        Free stable error_message: Option<UpstreamText> = |this| details(this)?.error_message.clone().map(Into::into);
    }
}

/// The object types of this upstream.
pub(super) fn objects() -> Vec<ObjectDescription> {
    vec![
        ObjectDescription::of::<MindBridgeJob>(),
        ObjectDescription::of::<GqlEntityRef>(),
        ObjectDescription::of::<GqlUserInfo>(),
    ]
}

fn details<'a>(this: &ObservedJob<'a>) -> Option<&'a MindBridgeDetails> {
    this.job.details.as_mindbridge()
}

output_object! {
    /// A reference to a MindBridge object.
    #[derive(Clone, Debug)]
    pub struct GqlEntityRef = "EntityRef" {
        /// The MindBridge ID of the object. Null if not reported.
        Free id: Option<UpstreamText>,
        /// The type of the object, such as `ANALYSIS_RESULT`. MindBridge can add values at any time. Null if not reported.
        Free entity_type as "type": Option<UpstreamText>,
    }
}

output_object! {
    /// A MindBridge user.
    #[derive(Clone, Debug)]
    pub struct GqlUserInfo = "UserInfo" {
        /// The MindBridge ID of the user. Null if not reported.
        Free user_id: Option<UpstreamText>,
        /// The display name of the user. Null if not reported.
        Free user_name: Option<UpstreamText>,
    }
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
