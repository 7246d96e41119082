//! The fields that only a Supermetrics job has.

use async_graphql::Context;

use crate::domain::details::{self, SupermetricsDetails};

use crate::inbound::graphql::plan::output::{ObjectDescription, output_object};
use crate::inbound::graphql::plan::rendered::ObservedJob;

use crate::inbound::graphql::schema::job_object::job_object;
use crate::inbound::graphql::schema::page::page_size;
use crate::inbound::graphql::schema::rows::{RowConnection, read_rows};
use crate::inbound::graphql::schema::scalars::{DateTime, Int64, Json, UpstreamText};

job_object! {
    /// A Supermetrics query.
    SupermetricsJob = "SupermetricsJob" {
        /// The `schedule_id` of the query.
        external_id;
        /// The date and time when the job was created. Always null: Supermetrics does not report it.
        created_at;
        /// The date and time when the job was last updated. Always null: Supermetrics does not report it.
        updated_at;
        /// The date and time when the job finished. Always null: Supermetrics does not report it.
        finished_at;
        /// The progress of the job. Null if Supermetrics does not report it.
        progress;

        /// The ID of the Supermetrics API request that this result was read with. Different for each request; include it in
        /// reports to Supermetrics support. Null if not reported.
        Free stable request_id: Option<UpstreamText> = |this| details(this)?.request_id.clone().map(Into::into);

        /// The `schedule_id` of the query, as Supermetrics reports it. Null if not reported.
        Free stable schedule_id: Option<UpstreamText> = |this| details(this)?.schedule_id.clone().map(Into::into);

        /// The task queue of the whole Supermetrics licence, not of this query. Null if not reported.
        Free stable queue: Option<GqlLicenceQueue> = |this| details(this)?.queue.as_ref().map(GqlLicenceQueue::from);

        /// The parameters of the query. Null if not reported; Supermetrics reports them when the query has succeeded.
        Free stable query: Option<GqlQueryMeta> = |this| details(this)?.query.as_ref().map(GqlQueryMeta::from);

        /// Statistics of the result of the query. Null if not reported; Supermetrics reports them when the query has
        /// succeeded.
        Free stable result: Option<GqlQueryResult> = |this| details(this)?.result.as_ref().map(GqlQueryResult::from);

        @engine EachJob rows {
        /// A page of the rows of the result. Null until the query has succeeded. Supermetrics keeps the rows for about an
        /// hour.
        async fn rows(
            &self,
            ctx: &Context<'_>,
            #[graphql(desc = "The number of rows to return, 1 to 100.")] first: i32,
            #[graphql(
                desc = "Returns the items after this cursor, a `cursor` or the `endCursor` of the same connection. If\n\
                        null, the first page."
            )]
            after: Option<String>,
        ) -> Option<async_graphql::Result<RowConnection>> {
            let first = match page_size(first) {
                Ok(first) => first,
                Err(error) => return Some(Err(error)),
            };
            read_rows(ctx, &self.0.observation, first, after).await.transpose()
        }
        }
    }
}

/// The object types of this upstream.
pub(super) fn objects() -> Vec<ObjectDescription> {
    vec![
        ObjectDescription::of::<SupermetricsJob>(),
        ObjectDescription::of::<GqlLicenceQueue>(),
        ObjectDescription::of::<GqlQueryMeta>(),
        ObjectDescription::of::<GqlQueryField>(),
        ObjectDescription::of::<GqlQueryResult>(),
    ]
}

fn details<'a>(this: &ObservedJob<'a>) -> Option<&'a SupermetricsDetails> {
    this.job.details.as_supermetrics()
}

output_object! {
    /// The task queue of a Supermetrics licence.
    #[derive(Clone, Debug)]
    pub struct GqlLicenceQueue = "LicenceQueue" {
        /// The number of waiting tasks. Null if not reported.
        Free tasks_scheduled: Option<Int64>,
        /// The number of running tasks. Null if not reported.
        Free tasks_running: Option<Int64>,
    }
}

output_object! {
    /// The parameters of a Supermetrics query.
    #[derive(Clone, Debug)]
    pub struct GqlQueryMeta = "QueryMeta" {
        /// The first day of the date range, verbatim, as Supermetrics reports it. Null if not reported.
        Free start_date: Option<UpstreamText>,
        /// The last day of the date range, verbatim, as Supermetrics reports it. Null if not reported.
        Free end_date: Option<UpstreamText>,
        /// The data source accounts, each as Supermetrics reports it. Empty if not reported.
        List(10) accounts: Vec<Json>,
        /// The requested fields. Empty if not reported.
        List(20) fields: Vec<GqlQueryField>,
    }
}

output_object! {
    /// A field of a Supermetrics query.
    #[derive(Clone, Debug)]
    pub struct GqlQueryField = "QueryField" {
        /// The Supermetrics ID of the field. Null if not reported.
        Free id: Option<UpstreamText>,
        /// The display name of the field. Null if not reported.
        Free name: Option<UpstreamText>,
        /// The Supermetrics data type of the field. Null if not reported.
        Free data_type: Option<UpstreamText>,
        /// The index of the field's column in the rows, starting at 0. Null if not reported.
        Free data_column: Option<Int64>,
    }
}

output_object! {
    /// Statistics of the result of a Supermetrics query. The rows are in `SupermetricsJob.rows`.
    #[derive(Clone, Debug)]
    pub struct GqlQueryResult = "QueryResult" {
        /// The number of rows, without the header row. Null if not reported.
        Free total_rows: Option<Int64>,
        /// The number of columns. Null if not reported.
        Free total_columns: Option<Int64>,
        /// The run time of the query, in seconds. Null if not reported.
        Free run_seconds: Option<f64>,
        /// Whether the data source returned sampled data. Null if not reported.
        Free data_sampled: Option<bool>,
        /// Whether Supermetrics returned the data from its cache. Null if not reported.
        Free cache_used: Option<bool>,
        /// The date and time when the cached data was fetched. Null if not reported.
        Free cache_time: Option<DateTime>,
    }
}

impl From<&details::LicenceQueue> for GqlLicenceQueue {
    fn from(queue: &details::LicenceQueue) -> Self {
        Self {
            tasks_scheduled: queue.tasks_scheduled.map(Int64),
            tasks_running: queue.tasks_running.map(Int64),
        }
    }
}

impl From<&details::QueryMeta> for GqlQueryMeta {
    fn from(query: &details::QueryMeta) -> Self {
        Self {
            start_date: query.start_date.clone().map(Into::into),
            end_date: query.end_date.clone().map(Into::into),
            accounts: query.accounts.iter().filter_map(|account| Json::text(account.get())).collect(),
            fields: query.fields.iter().map(GqlQueryField::from).collect(),
        }
    }
}

impl From<&details::QueryField> for GqlQueryField {
    fn from(field: &details::QueryField) -> Self {
        Self {
            id: field.id.clone().map(Into::into),
            name: field.name.clone().map(Into::into),
            data_type: field.data_type.clone().map(Into::into),
            data_column: field.data_column.map(Int64),
        }
    }
}

impl From<&details::QueryResult> for GqlQueryResult {
    fn from(result: &details::QueryResult) -> Self {
        Self {
            total_rows: result.total_rows.map(Int64),
            total_columns: result.total_columns.map(Int64),
            run_seconds: result.run_seconds,
            data_sampled: result.data_sampled,
            cache_used: result.cache_used,
            cache_time: result.cache_time.map(DateTime),
        }
    }
}
