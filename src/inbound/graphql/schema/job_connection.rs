//! Pagination: the types that all connections share, and the connection of jobs.

use async_graphql::SimpleObject;

use crate::domain::id::JobKey;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::list::JobPage;
use crate::jobs::tracking::Labels;

use super::job::GqlJob;
use super::mutation::Label;
use super::problem::bad_input;

/// The maximum number of entries of a page.
pub const PAGE_MAX: u32 = 100;

/// Information about pagination in a connection.
#[derive(Clone, Debug, Default, SimpleObject)]
pub struct PageInfo {
    /// Whether there are more items after this page.
    pub(super) has_next_page: bool,
    /// Whether there are items before this page. True if `after` was given, except if rows could not be read.
    pub(super) has_previous_page: bool,
    /// The cursor of the first item of this page. Null if the page is empty.
    pub(super) start_cursor: Option<String>,
    /// The cursor of the last item of this page: an opaque string. Pass it as `after` to read the next page. If the page
    /// is empty, the `after` of the request, which can be null. Null if rows could not be read.
    pub(super) end_cursor: Option<String>,
}

/// A page of jobs, ordered by source and external ID.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobConnection {
    /// A list of edges.
    edges: Vec<JobEdge>,
    /// A list of jobs.
    nodes: Vec<GqlJob>,
    /// Information to aid in pagination.
    page_info: PageInfo,
}

/// An edge in a connection.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobEdge {
    /// The cursor of the job: an opaque string. Pass it as `after`.
    cursor: String,
    /// The job at the end of the edge.
    node: GqlJob,
    /// The labels of the job. Empty if the job is not tracked.
    labels: Vec<Label>,
}

impl JobConnection {
    /// A page, with the labels of each job.
    pub(super) fn new(
        page: JobPage,
        after: Option<String>,
        labels: impl Fn(&JobKey) -> Option<Labels>,
    ) -> Self {
        let edge = |seen: JobSnapshot| {
            let key = &seen.observation.job.key;
            let labels =
                labels(key).unwrap_or_default().into_iter().map(|(name, value)| Label { name, value });
            JobEdge { cursor: key.node_id(), labels: labels.collect(), node: GqlJob::new(seen) }
        };
        let edges: Vec<JobEdge> = page.jobs.into_iter().map(edge).collect();
        let page_info = PageInfo {
            has_next_page: page.has_next,
            has_previous_page: after.is_some(),
            start_cursor: edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: edges.last().map(|edge| edge.cursor.clone()).or(after),
        };
        let nodes = edges.iter().map(|edge| edge.node.clone()).collect();
        Self { edges, nodes, page_info }
    }
}

/// Validates the argument `first`.
pub(super) fn page_size(first: i32) -> async_graphql::Result<u32> {
    u32::try_from(first)
        .ok()
        .filter(|first| (1..=PAGE_MAX).contains(first))
        .ok_or_else(|| bad_input(format!("first must be 1 to {PAGE_MAX}; use after to read more pages")))
}
