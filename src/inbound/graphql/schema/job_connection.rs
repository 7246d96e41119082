//! The connection of jobs.

use crate::jobs::list::{JobPage, ListedJob};

use crate::inbound::graphql::plan::output::output_object;

use super::filter::GqlJobOrigin;
use super::job::GqlJob;
use super::label::Label;
use super::page::PageInfo;

output_object! {
    /// A page of jobs.
    #[derive(Clone, Debug)]
    pub struct JobConnection = "JobConnection" {
        /// A list of edges.
        PageItems edges: Vec<JobEdge>,
        /// A list of jobs.
        PageItems nodes: Vec<GqlJob>,
        /// Information to aid in pagination.
        Free page_info: PageInfo,
        /// The number of jobs on all pages that the client is allowed to read, counted to 10,000.
        Free total_count: i32,
    }
}

output_object! {
    /// An edge in a connection.
    #[derive(Clone, Debug)]
    pub struct JobEdge = "JobEdge" {
        /// The cursor of the job: an opaque string. Pass it as `after`.
        Free cursor: String,
        /// The job at the end of the edge.
        Free node: GqlJob,
        /// The labels of the job. Empty if the job is not tracked.
        List(16) labels: Vec<Label>,
        /// How the gateway knows the job.
        Free origin: GqlJobOrigin,
    }
}

impl JobConnection {
    /// A page.
    pub(super) fn new(page: JobPage, after: Option<String>) -> Self {
        let JobPage { jobs, has_next, total } = page;
        let edge = |ListedJob { snapshot, origin, labels, cursor }| JobEdge {
            cursor,
            node: GqlJob::new(snapshot),
            labels: labels.into_iter().map(|(name, value)| Label { name, value }).collect(),
            origin: GqlJobOrigin::from(origin),
        };
        let edges: Vec<JobEdge> = jobs.into_iter().map(edge).collect();
        let page_info = PageInfo {
            has_next_page: has_next,
            has_previous_page: after.is_some(),
            start_cursor: edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: edges.last().map(|edge| edge.cursor.clone()).or(after),
        };
        let nodes = edges.iter().map(|edge| edge.node.clone()).collect();
        // at most TOTAL_MAX
        let total_count = i32::try_from(total).unwrap_or(i32::MAX);
        Self { edges, nodes, page_info, total_count }
    }
}
