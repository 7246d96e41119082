//! The rows of a completed query as a connection.

use async_graphql::Context;

use crate::domain::error::{Problem, ProblemCode};
use crate::domain::observation::Observation;
use crate::jobs::Jobs;
use crate::jobs::rows::{Cells, RowsPage};
use crate::jobs::visibility::RequestedRef;

use crate::inbound::graphql::plan::output::output_object;

use super::page::PageInfo;
use super::problem::{JobProblem, as_error};
use super::scalars::JsonRow;

/// The usual number of columns: no more, since the bytes of an answer are counted as well.
const COLUMNS: u64 = 10;

output_object! {
    /// A page of the rows of a query result.
    #[derive(Clone, Debug)]
    pub struct RowConnection = "RowConnection" {
        /// The column names: the header row, or the field names if the query has no header row. Empty if the rows
        /// could not be read.
        List(COLUMNS) header: JsonRow,
        /// A list of edges.
        PageItems edges: Vec<RowEdge>,
        /// A list of rows.
        PageItems nodes: Vec<GqlRow>,
        /// Information to aid in pagination.
        Free page_info: PageInfo,
        /// Why rows are missing, for example `EXPIRED`, `BAD_ANSWER` (fewer rows than reported), `THROTTLED` or `TIMED_OUT`.
        /// If it is set, ignore `pageInfo.hasNextPage`; read the page again if `problem.retryable`. Null if no rows are
        /// missing.
        Free problem: Option<JobProblem>,
    }
}

output_object! {
    /// An edge in a connection.
    #[derive(Clone, Debug)]
    pub struct RowEdge = "RowEdge" {
        /// The cursor of the row: an opaque string. Pass it as `after`.
        Free cursor: String,
        /// The row at the end of the edge.
        Free node: GqlRow,
    }
}

output_object! {
    /// A row of a query result.
    #[derive(Clone, Debug)]
    pub struct GqlRow = "Row" {
        /// The cell values, in the order of `RowConnection.header`.
        List(COLUMNS) cells: JsonRow,
    }
}

/// Reads a page of rows; `None` while there are none yet.
///
/// An invalid cursor is an error of the request; a problem of the upstream is data.
pub(super) async fn read_rows(
    ctx: &Context<'_>,
    observation: &Observation,
    first: u32,
    after: Option<String>,
) -> async_graphql::Result<Option<RowConnection>> {
    let read = ctx.data::<Jobs>()?.rows(ctx.data()?, observation, first, after.as_deref()).await;
    match read {
        Ok(rows) => Ok(rows.map(|rows| RowConnection::new(observation, rows, after))),
        Err(problem) if problem.code == ProblemCode::InvalidRef => Err(as_error(&problem)),
        Err(problem) => Ok(Some(RowConnection::without_rows(observation, problem))),
    }
}

impl RowConnection {
    fn new(observation: &Observation, rows: RowsPage, after: Option<String>) -> Self {
        let edges: Vec<RowEdge> = rows
            .rows
            .into_iter()
            .map(|(cursor, cells)| RowEdge { cursor, node: GqlRow { cells: JsonRow(cells) } })
            .collect();
        let page_info = PageInfo {
            has_next_page: rows.has_next,
            has_previous_page: after.is_some(),
            start_cursor: edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: edges.last().map(|edge| edge.cursor.clone()).or(after),
        };
        let nodes = edges.iter().map(|edge| edge.node.clone()).collect();
        let problem = rows.problem.map(|problem| row_problem(observation, problem));
        Self { header: JsonRow(rows.header), edges, nodes, page_info, problem }
    }

    fn without_rows(observation: &Observation, problem: Problem) -> Self {
        let problem = Some(row_problem(observation, problem));
        let page_info = PageInfo::default();
        Self { header: JsonRow(Cells::default()), edges: Vec::new(), nodes: Vec::new(), page_info, problem }
    }
}

fn row_problem(observation: &Observation, problem: Problem) -> JobProblem {
    JobProblem::new(RequestedRef::id(observation.job.key.node_id()), problem)
}
