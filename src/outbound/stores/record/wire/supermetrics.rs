//! Supermetrics' part of a record.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::details::{LicenceQueue, QueryField, QueryMeta, QueryResult, SupermetricsDetails};
use crate::domain::json_text::JsonText;

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SupermetricsRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<(Option<i64>, Option<i64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<QueryRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<OutcomeRecord>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct QueryRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<Value>,
    /// The accounts as texts, if one of them would not be read back unchanged from `accounts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exact: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldRecord>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct FieldRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    data_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<i64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct OutcomeRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<i64>,
    /// Text: JSON numbers are not read back exactly (`docs/adr/0007-upstream-bytes-are-kept.md`).
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_at: Option<Timestamp>,
}

impl From<&SupermetricsDetails> for SupermetricsRecord {
    fn from(details: &SupermetricsDetails) -> Self {
        let SupermetricsDetails { request_id, schedule_id, queue, query, result } = details;
        let counts = |LicenceQueue { tasks_scheduled, tasks_running }: &LicenceQueue| {
            (*tasks_scheduled, *tasks_running)
        };
        Self {
            request: request_id.clone(),
            schedule: schedule_id.clone(),
            queue: queue.as_ref().map(counts),
            query: query.as_ref().map(|query| {
                let QueryMeta { start_date, end_date, accounts, fields } = query.clone();
                let field = |QueryField { id, name, data_type, data_column }| FieldRecord {
                    id,
                    name,
                    data_type,
                    column: data_column,
                };
                let (accounts, exact) = write_accounts(accounts);
                QueryRecord {
                    start: start_date,
                    end: end_date,
                    accounts,
                    exact,
                    fields: fields.into_iter().map(field).collect(),
                }
            }),
            result: result.as_ref().map(|result| {
                let QueryResult {
                    total_rows,
                    total_columns,
                    run_seconds,
                    data_sampled,
                    cache_used,
                    cache_time,
                } = result;
                OutcomeRecord {
                    rows: *total_rows,
                    columns: *total_columns,
                    seconds: run_seconds.map(|seconds| seconds.to_string()),
                    sampled: *data_sampled,
                    cached: *cache_used,
                    cached_at: *cache_time,
                }
            }),
        }
    }
}

impl From<SupermetricsRecord> for SupermetricsDetails {
    fn from(metrics: SupermetricsRecord) -> Self {
        let SupermetricsRecord { request, schedule, queue, query, result } = metrics;
        let field = |FieldRecord { id, name, data_type, column }| QueryField {
            id,
            name,
            data_type,
            data_column: column,
        };
        Self {
            request_id: request,
            schedule_id: schedule,
            queue: queue
                .map(|(tasks_scheduled, tasks_running)| LicenceQueue { tasks_scheduled, tasks_running }),
            query: query.map(|QueryRecord { start, end, accounts, exact, fields }| QueryMeta {
                start_date: start,
                end_date: end,
                accounts: read_accounts(&accounts, &exact),
                fields: fields.into_iter().map(field).collect(),
            }),
            result: result.map(|OutcomeRecord { rows, columns, seconds, sampled, cached, cached_at }| {
                QueryResult {
                    total_rows: rows,
                    total_columns: columns,
                    run_seconds: seconds.and_then(|seconds| seconds.parse().ok()),
                    data_sampled: sampled,
                    cache_used: cached,
                    cache_time: cached_at,
                }
            }),
        }
    }
}

/// Accounts as values, which every version reads, and as texts if a value would not preserve them.
fn write_accounts(accounts: Vec<JsonText>) -> (Vec<Value>, Vec<String>) {
    let values: Vec<Value> =
        accounts.iter().filter_map(|account| serde_json::from_str(account.get()).ok()).collect();
    let is_exact = values.len() == accounts.len()
        && values
            .iter()
            .zip(&accounts)
            .all(|(value, account)| serde_json::to_string(value).is_ok_and(|text| text == account.get()));
    let exact = if is_exact { Vec::new() } else { accounts.into_iter().map(JsonText::into_text).collect() };
    (values, exact)
}

fn read_accounts(values: &[Value], exact: &[String]) -> Vec<JsonText> {
    if exact.is_empty() {
        values.iter().filter_map(|value| JsonText::parse(&value.to_string())).collect()
    } else {
        exact.iter().filter_map(|text| JsonText::parse(text)).collect()
    }
}
