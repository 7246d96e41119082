//! What only a Supermetrics job has.

use async_graphql::{Context, SimpleObject};

use crate::domain::details::{self, Details, SupermetricsDetails};

use super::connection::page_size;
use super::job::job_object;
use super::rows::{RowConnection, read_rows};
use super::scalars::{DateTime, Int64, Json, Text};

job_object! {
    /// A query of Supermetrics.
    SupermetricsJob {
        /// The id of the HTTP request that brought this answer; new each time. The vendor's support asks for it.
        async fn request_id(&self) -> Option<Text> {
            self.details()?.request_id.clone().map(Into::into)
        }

        /// The vendor's echo of the query's id, `schedule_id`.
        async fn schedule_id(&self) -> Option<Text> {
            self.details()?.schedule_id.clone().map(Into::into)
        }

        /// The whole licence's queue, not this query's.
        async fn queue(&self) -> Option<LicenceQueue> {
            self.details()?.queue.as_ref().map(LicenceQueue::from)
        }

        /// What the query asked for; given once it has succeeded.
        async fn query(&self) -> Option<QueryMeta> {
            self.details()?.query.as_ref().map(QueryMeta::from)
        }

        /// What came out; given once it has succeeded.
        async fn result(&self) -> Option<QueryResult> {
            self.details()?.result.as_ref().map(QueryResult::from)
        }

        /// The rows, by page; null until the query has succeeded. The upstream keeps them for about an hour.
        async fn rows(
            &self,
            ctx: &Context<'_>,
            #[graphql(desc = "How many rows, 1 to 100.")] first: i32,
            #[graphql(desc = "The `endCursor` of the page before.")] after: Option<String>,
        ) -> Option<async_graphql::Result<RowConnection>> {
            let first = match page_size(first) {
                Ok(first) => first,
                Err(error) => return Some(Err(error)),
            };
            read_rows(ctx, &self.0.observation, first, after).await.transpose()
        }
    }
}

impl SupermetricsJob {
    fn details(&self) -> Option<&SupermetricsDetails> {
        match &self.job().details {
            Details::Supermetrics(details) => Some(details),
            Details::MindBridge(_) => None,
        }
    }
}

/// Tasks of a whole licence, in number.
#[derive(Clone, Debug, SimpleObject)]
pub struct LicenceQueue {
    /// Waiting tasks.
    tasks_scheduled: Option<Int64>,
    /// Running tasks.
    tasks_running: Option<Int64>,
}

/// What a query asked for.
#[derive(Clone, Debug, SimpleObject)]
pub struct QueryMeta {
    /// First day, as the vendor writes it.
    start_date: Option<Text>,
    /// Last day, as the vendor writes it.
    end_date: Option<Text>,
    /// The data source accounts, each in the vendor's own form.
    accounts: Vec<Json>,
    /// The columns asked for.
    fields: Vec<QueryField>,
}

/// One column of a query.
#[derive(Clone, Debug, SimpleObject)]
pub struct QueryField {
    /// The vendor's id of the field.
    id: Option<Text>,
    /// Its name for people.
    name: Option<Text>,
    /// The vendor's data type.
    data_type: Option<Text>,
    /// The position of its column in the rows, from 0.
    data_column: Option<Int64>,
}

/// What came out of a query.
#[derive(Clone, Debug, SimpleObject)]
pub struct QueryResult {
    /// Rows, without the header.
    total_rows: Option<Int64>,
    /// Columns.
    total_columns: Option<Int64>,
    /// How long it ran, in seconds.
    run_seconds: Option<f64>,
    /// Whether the data source answered with a sample.
    data_sampled: Option<bool>,
    /// Whether the vendor answered from its cache.
    cache_used: Option<bool>,
    /// When the vendor's cached data was fetched.
    cache_time: Option<DateTime>,
}

impl From<&details::LicenceQueue> for LicenceQueue {
    fn from(queue: &details::LicenceQueue) -> Self {
        Self {
            tasks_scheduled: queue.tasks_scheduled.map(Int64),
            tasks_running: queue.tasks_running.map(Int64),
        }
    }
}

impl From<&details::QueryMeta> for QueryMeta {
    fn from(query: &details::QueryMeta) -> Self {
        Self {
            start_date: query.start_date.clone().map(Into::into),
            end_date: query.end_date.clone().map(Into::into),
            accounts: query.accounts.iter().filter_map(|account| Json::text(account.get())).collect(),
            fields: query.fields.iter().map(QueryField::from).collect(),
        }
    }
}

impl From<&details::QueryField> for QueryField {
    fn from(field: &details::QueryField) -> Self {
        Self {
            id: field.id.clone().map(Into::into),
            name: field.name.clone().map(Into::into),
            data_type: field.data_type.clone().map(Into::into),
            data_column: field.data_column.map(Int64),
        }
    }
}

impl From<&details::QueryResult> for QueryResult {
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
