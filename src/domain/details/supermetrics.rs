//! Supermetrics: its profile, and what it reports about a query beyond the common fields.

use jiff::Timestamp;
use serde::Serialize;

use super::common::{UpstreamDetails, text_len};
use crate::domain::id::{ExternalId, IdError};
use crate::domain::json_text::JsonText;
use crate::domain::profile::{CredentialForm, Profile};

/// Supermetrics query status.
pub(in crate::domain) const PROFILE: Profile = Profile {
    name: "supermetrics",
    api: "The Supermetrics query API.",
    credential_forms: &[CredentialForm::Bearer, CredentialForm::ApiKey],
    has_kinds: false,
    // "Expiry"
    runs_again: true,
    documents_expiry: true,
    // "Listing queries"
    lists_by_data_source: true,
    ids_a_request: 1,
    check_id,
};

fn check_id(id: &ExternalId) -> Result<(), IdError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if id.as_str().bytes().all(fits) { Ok(()) } else { Err(IdError::Charset("letters, digits, - and _")) }
}

/// What Supermetrics reports beyond the common fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupermetricsDetails {
    /// The id of the HTTP request that returned this response; new each time.
    pub request_id: Option<String>,
    /// The vendor's echo of the query's id.
    pub schedule_id: Option<String>,
    /// The queue of the whole licence, not that of this query.
    pub queue: Option<LicenceQueue>,
    /// The parameters of the query; present after it succeeded.
    pub query: Option<QueryMeta>,
    /// The result; present after it succeeded.
    pub result: Option<QueryResult>,
}

impl SupermetricsDetails {
    /// Whether two responses report the same: without the id of the response, and the queue of the whole licence.
    pub(super) fn same_report(&self, other: &Self) -> bool {
        let Self { request_id: _, queue: _, schedule_id, query, result } = self;
        (schedule_id, query, result) == (&other.schedule_id, &other.query, &other.result)
    }
}

impl UpstreamDetails for SupermetricsDetails {
    fn counter(&self) -> Option<i64> {
        None
    }

    fn kind(&self) -> Option<&str> {
        None
    }

    fn clear_volatile(&mut self) {
        (self.request_id, self.queue) = (None, None);
    }

    fn total_rows(&self) -> Option<u32> {
        u32::try_from(self.result.as_ref()?.total_rows?).ok()
    }

    fn weight(&self) -> usize {
        let Self { request_id, schedule_id, queue: _, query, result: _ } = self;
        let query = query.as_ref().map_or(0, |query| {
            let fields = query.fields.iter().map(|field| {
                size_of_val(field)
                    + text_len(field.id.as_ref())
                    + text_len(field.name.as_ref())
                    + text_len(field.data_type.as_ref())
            });
            let accounts = query.accounts.iter().map(|account| 32 + account.get().len());
            fields.chain(accounts).sum::<usize>()
                + text_len(query.start_date.as_ref())
                + text_len(query.end_date.as_ref())
        });
        size_of_val(self) + text_len(request_id.as_ref()) + text_len(schedule_id.as_ref()) + query
    }
}

/// Numbers of tasks of the whole licence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LicenceQueue {
    /// Waiting tasks.
    pub tasks_scheduled: Option<i64>,
    /// Running tasks.
    pub tasks_running: Option<i64>,
}

/// The parameters of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMeta {
    /// First day, as the vendor writes it.
    pub start_date: Option<String>,
    /// Last day, as the vendor writes it.
    pub end_date: Option<String>,
    /// The data source accounts, each in the vendor's own form.
    pub accounts: Vec<JsonText>,
    /// The requested columns.
    pub fields: Vec<QueryField>,
}

/// One column of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryField {
    /// The vendor's id of the field.
    pub id: Option<String>,
    /// The display name.
    pub name: Option<String>,
    /// The vendor's data type, such as `string.text.value`.
    pub data_type: Option<String>,
    /// The position of its column in the rows, from 0.
    pub data_column: Option<i64>,
}

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryResult {
    /// Rows without the header.
    pub total_rows: Option<i64>,
    /// Columns.
    pub total_columns: Option<i64>,
    /// How long it ran, in seconds.
    pub run_seconds: Option<f64>,
    /// Whether the data source returned a sample.
    pub data_sampled: Option<bool>,
    /// Whether the vendor used its cache.
    pub cache_used: Option<bool>,
    /// When the vendor's cached data was fetched, if it is in RFC 3339.
    pub cache_time: Option<Timestamp>,
}

#[cfg(test)]
mod arbitrary {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = ".{0,8}";

    impl SupermetricsDetails {
        /// Arbitrary details, for the round trip of records.
        pub(in crate::domain::details) fn arbitrary() -> impl Strategy<Value = Self> {
            let field = (of(TEXT), of(TEXT), of(TEXT), of(any::<i64>())).prop_map(
                |(id, name, data_type, data_column)| QueryField { id, name, data_type, data_column },
            );
            let account = prop_oneof![
                TEXT.prop_map(|text| serde_json::Value::from(text).to_string()),
                Just("18446744073709551616".to_owned()),
                Just(r#"{"id":"\u0041"}"#.to_owned()),
            ]
            .prop_map(|text| JsonText::parse(&text).unwrap());
            let accounts = prop::collection::vec(account, 0..3);
            let query = (of(TEXT), of(TEXT), accounts, prop::collection::vec(field, 0..3)).prop_map(
                |(start_date, end_date, accounts, fields)| QueryMeta {
                    start_date,
                    end_date,
                    accounts,
                    fields,
                },
            );
            let seconds =
                of(any::<f64>().prop_filter("JSON has no such numbers", |number| number.is_finite()));
            let result = (of(any::<i64>()), of(any::<i64>()), seconds, of(any::<bool>()), of(any::<bool>()))
                .prop_map(|(total_rows, total_columns, run_seconds, data_sampled, cache_used)| QueryResult {
                    total_rows,
                    total_columns,
                    run_seconds,
                    data_sampled,
                    cache_used,
                    cache_time: Timestamp::from_millisecond(1_700_000_000_001).ok(),
                });
            let queue = (of(any::<i64>()), of(any::<i64>()))
                .prop_map(|(tasks_scheduled, tasks_running)| LicenceQueue { tasks_scheduled, tasks_running });
            (of(TEXT), of(TEXT), of(queue), of(query), of(result)).prop_map(
                |(request_id, schedule_id, queue, query, result)| Self {
                    request_id,
                    schedule_id,
                    queue,
                    query,
                    result,
                },
            )
        }
    }
}
