//! The wire format of Supermetrics ("Reading one job", "Errors"), without interpretation.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::domain::json_text::JsonText;
use crate::outbound::upstreams::reason::is_code;
use crate::outbound::upstreams::wire::{
    flag, id, is_empty_value, number, object, tolerant, tolerant_object, tolerant_objects, values, whole,
};

/// Any response: a status, envelope 1, or problem details (RFC 9457). Every field is optional; `data` is not read here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AnswerDto {
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) meta: Option<MetaDto>,
    #[serde(deserialize_with = "reason")]
    pub(super) error: Option<ErrorBody>,
    /// Another member that may contain a reason.
    #[serde(deserialize_with = "reason")]
    pub(super) error_info: Option<ErrorBody>,
    /// Of problem details: the HTTP status again.
    #[serde(deserialize_with = "whole")]
    pub(super) status: Option<u16>,
    /// Of problem details.
    #[serde(deserialize_with = "tolerant")]
    pub(super) title: Option<String>,
}

/// A reason, in any of its shapes. An empty value is none, see `is_empty_value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) description: Option<String>,
}

/// The members of a reason that is an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReasonDto {
    #[serde(deserialize_with = "id")]
    code: Option<String>,
    #[serde(deserialize_with = "id")]
    error_code: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    message: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    error_message: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    description: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    detail: Option<String>,
}

/// The metadata of the query in a status response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MetaDto {
    #[serde(deserialize_with = "id")]
    pub(super) request_id: Option<String>,
    #[serde(deserialize_with = "id")]
    pub(super) schedule_id: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) status_code: Option<String>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) progress: Option<ProgressDto>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) workflow: Option<WorkflowDto>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) query: Option<QueryMetaDto>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) result: Option<ResultMetaDto>,
    /// Why the query failed: one of two members beside `error` that may contain a reason.
    #[serde(deserialize_with = "reason")]
    pub(super) error: Option<ErrorBody>,
    /// The other one.
    #[serde(deserialize_with = "reason")]
    pub(super) error_info: Option<ErrorBody>,
    // `paginate` is left out on purpose: its links may contain an api key
}

/// Sub-queries done and scheduled.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProgressDto {
    #[serde(deserialize_with = "whole")]
    pub(super) queries_ready: Option<u64>,
    #[serde(deserialize_with = "whole")]
    pub(super) queries_total: Option<u64>,
}

/// The licence queue.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkflowDto {
    #[serde(deserialize_with = "whole")]
    pub(super) tasks_scheduled: Option<i64>,
    #[serde(deserialize_with = "whole")]
    pub(super) tasks_running: Option<i64>,
}

/// The request of the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QueryMetaDto {
    #[serde(deserialize_with = "tolerant")]
    pub(super) start_date: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) end_date: Option<String>,
    #[serde(deserialize_with = "values")]
    pub(super) ds_accounts: Vec<JsonText>,
    #[serde(deserialize_with = "tolerant_objects")]
    pub(super) fields: Vec<FieldDto>,
    #[serde(deserialize_with = "tolerant_object")]
    pub(super) settings: Option<QuerySettings>,
}

/// The settings of the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct QuerySettings {
    /// The rows have no header row.
    #[serde(deserialize_with = "flag")]
    pub(super) no_headers: Option<bool>,
}

/// One column.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FieldDto {
    #[serde(rename = "field_id", deserialize_with = "id")]
    pub(super) id: Option<String>,
    #[serde(rename = "field_name", deserialize_with = "tolerant")]
    pub(super) name: Option<String>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) data_type: Option<String>,
    #[serde(deserialize_with = "whole")]
    pub(super) data_column: Option<i64>,
}

/// The result of the query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResultMetaDto {
    #[serde(deserialize_with = "whole")]
    pub(super) total_rows: Option<i64>,
    #[serde(deserialize_with = "whole")]
    pub(super) total_columns: Option<i64>,
    #[serde(deserialize_with = "number")]
    pub(super) run_seconds: Option<f64>,
    #[serde(deserialize_with = "flag")]
    pub(super) data_sampled: Option<bool>,
    #[serde(deserialize_with = "flag")]
    pub(super) cache_used: Option<bool>,
    #[serde(deserialize_with = "tolerant")]
    pub(super) cache_time: Option<String>,
}

/// The rows of a response, header first, each cell in the upstream's own bytes. Strict: an invalid row makes all of
/// them invalid.
#[derive(Debug, Deserialize)]
pub(super) struct RowsDto {
    #[serde(default)]
    pub(super) data: Option<Vec<Vec<Box<RawValue>>>>,
}

/// Parses a reason: an object with a code, a message, a description; a text; or a list of such.
fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ErrorBody>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(read_reason(raw.get()))
}

/// A value that is not empty and has an unknown shape is a reason without text.
fn read_reason(raw: &str) -> Option<ErrorBody> {
    if is_empty_value(raw) {
        return None;
    }
    let read = match raw.bytes().next() {
        Some(b'{') => object(raw.as_bytes()).map(of_object),
        Some(b'"') => serde_json::from_str(raw).ok().map(of_text),
        Some(b'[') => {
            let items: Option<Vec<&RawValue>> = serde_json::from_str(raw).ok();
            let first =
                items.unwrap_or_default().into_iter().map(RawValue::get).find(|item| !is_empty_value(item));
            // a list in a list is an unknown shape
            first.filter(|item| !item.starts_with('[')).and_then(read_reason)
        }
        _ => None,
    };
    Some(read.unwrap_or_default())
}

fn of_object(reason: ReasonDto) -> ErrorBody {
    let ReasonDto { code, error_code, message, error_message, description, detail } = reason;
    ErrorBody {
        code: code.or(error_code),
        message: message.or(error_message),
        description: description.or(detail),
    }
}

fn of_text(text: String) -> ErrorBody {
    ErrorBody {
        code: Some(text.clone()).filter(|text| is_code(text)),
        message: Some(text),
        description: None,
    }
}
