//! The wire format of MindBridge ("Reading one job", "Reading many jobs"), without interpretation.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::outbound::upstreams::wire::{
    id, non_blank, text_or_json, tolerant, tolerant_object, tolerant_objects, whole,
};

/// One async result. Every field is optional; `id` has been seen as `{}` in documentation.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AsyncResult {
    #[serde(deserialize_with = "result_id")]
    pub(super) id: ResultId,
    #[serde(deserialize_with = "whole")]
    pub(super) version: Option<i64>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) creation_date: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) last_modified_date: Option<String>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) created_user_info: Option<UserInfoDto>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) last_modified_user_info: Option<UserInfoDto>,
    #[serde(rename = "type", deserialize_with = "tolerant")]
    pub(super) kind: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) status: Option<String>,
    #[serde(deserialize_with = "id")]
    pub(super) entity_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) entity_type: Option<String>,
    #[serde(deserialize_with = "text_or_json")]
    pub(super) error: Option<String>,
    #[serde(deserialize_with = "text_or_json")]
    pub(super) error_message: Option<String>,
}

impl AsyncResult {
    /// Returns whether this is an async result, and not other JSON that happens to have a `status`: it contains the
    /// status of the job and its id. A version is sufficient in place of an id that is shown as `{}`, or is absent
    /// beside another member of MindBridge. Other services have a `status` and a `version` too.
    pub(super) fn is_one(&self) -> bool {
        let versioned = self.version.is_some() && (self.id.is_object || self.has_own_member());
        non_blank(self.status.as_ref()).is_some() && (self.id.text.is_some() || versioned)
    }

    fn has_own_member(&self) -> bool {
        [&self.creation_date, &self.last_modified_date, &self.entity_id, &self.entity_type]
            .into_iter()
            .any(Option::is_some)
            || self.created_user_info.is_some()
            || self.last_modified_user_info.is_some()
    }
}

/// The id of an async result, in one of its two shapes.
#[derive(Debug, Default)]
pub(super) struct ResultId {
    pub(super) text: Option<String>,
    /// It is shown as `{}`, which does not identify the job.
    pub(super) is_object: bool,
}

fn result_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResultId, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let is_object = raw.get().starts_with('{');
    Ok(ResultId { text: id(raw).ok().flatten(), is_object })
}

/// A person.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct UserInfoDto {
    #[serde(deserialize_with = "id")]
    pub(super) user_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) user_name: Option<String>,
}

/// A page of async results.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultPage {
    /// The one required field of a page.
    #[serde(deserialize_with = "tolerant_objects")]
    pub(super) content: Vec<AsyncResult>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) total_pages: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    pub(super) total_elements: Option<u64>,
}
