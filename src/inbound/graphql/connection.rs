//! Pages: what all connections share, and the connection of jobs.

use async_graphql::SimpleObject;

use crate::domain::id::JobKey;
use crate::jobs::answer::Seen;
use crate::jobs::list::JobPage;
use crate::jobs::track::Labels;

use super::job::Job;
use super::mutation::Label;
use super::problem::bad_input;

/// The most entries of one page.
pub const PAGE_MAX: u32 = 100;

/// Where a page stands among the others.
#[derive(Clone, Debug, Default, SimpleObject)]
pub struct PageInfo {
    /// Whether more follow.
    pub(super) has_next_page: bool,
    /// Whether this page was asked for behind another one.
    pub(super) has_previous_page: bool,
    /// The cursor of the first entry.
    pub(super) start_cursor: Option<String>,
    /// The cursor of the last entry: pass it as `after` to go on.
    pub(super) end_cursor: Option<String>,
}

/// A page of jobs, in the order of source and external id.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobConnection {
    /// The jobs with their cursors.
    edges: Vec<JobEdge>,
    /// The jobs alone.
    nodes: Vec<Job>,
    /// Where this page stands among the others.
    page_info: PageInfo,
}

/// A job and the cursor behind it.
#[derive(Clone, Debug, SimpleObject)]
pub struct JobEdge {
    /// Goes on behind this job.
    cursor: String,
    /// The job.
    node: Job,
    /// The labels of the job, if it is tracked.
    labels: Vec<Label>,
}

impl JobConnection {
    /// A page, with what `labels` says of each job.
    pub(super) fn new(
        page: JobPage,
        after: Option<String>,
        labels: impl Fn(&JobKey) -> Option<Labels>,
    ) -> Self {
        let edge = |seen: Seen| {
            let key = &seen.observation.job.key;
            let labels =
                labels(key).unwrap_or_default().into_iter().map(|(name, value)| Label { name, value });
            JobEdge { cursor: key.node_id(), labels: labels.collect(), node: Job::new(seen) }
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

/// Reads the argument `first`.
pub(super) fn page_size(first: i32) -> async_graphql::Result<u32> {
    u32::try_from(first)
        .ok()
        .filter(|first| (1..=PAGE_MAX).contains(first))
        .ok_or_else(|| bad_input(format!("first must be 1 to {PAGE_MAX}; page on with after")))
}
