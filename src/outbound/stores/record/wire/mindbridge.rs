//! MindBridge's part of a record.

use serde::{Deserialize, Serialize};

use crate::domain::details::{EntityRef, MindBridgeDetails, UserInfo};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MindBridgeRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creator: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modifier: Option<IdNameRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

/// An id and a name.
type IdNameRecord = (Option<String>, Option<String>);

impl From<&MindBridgeDetails> for MindBridgeRecord {
    fn from(details: &MindBridgeDetails) -> Self {
        let MindBridgeDetails { version, kind, entity, created_by, last_modified_by, error, error_message } =
            details;
        let person = |UserInfo { user_id, user_name }: &UserInfo| (user_id.clone(), user_name.clone());
        let thing = |EntityRef { id, entity_type }: &EntityRef| (id.clone(), entity_type.clone());
        Self {
            version: *version,
            kind: kind.clone(),
            entity: entity.as_ref().map(thing),
            creator: created_by.as_ref().map(person),
            modifier: last_modified_by.as_ref().map(person),
            error: error.clone(),
            error_message: error_message.clone(),
        }
    }
}

impl From<MindBridgeRecord> for MindBridgeDetails {
    fn from(mind: MindBridgeRecord) -> Self {
        let MindBridgeRecord { version, kind, entity, creator, modifier, error, error_message } = mind;
        let person = |(user_id, user_name): IdNameRecord| UserInfo { user_id, user_name };
        Self {
            version,
            kind,
            entity: entity.map(|(id, entity_type)| EntityRef { id, entity_type }),
            created_by: creator.map(person),
            last_modified_by: modifier.map(person),
            error,
            error_message,
        }
    }
}
