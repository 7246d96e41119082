//! The connection of jobs.

use crate::domain::id::JobKey;
use crate::jobs::answer::JobSnapshot;
use crate::jobs::list::JobPage;
use crate::jobs::tracking::Labels;

use crate::inbound::graphql::plan::output::output_object;

use super::job::GqlJob;
use super::label::Label;
use super::page::PageInfo;

output_object! {
    /// A page of jobs, ordered by source and external ID.
    #[derive(Clone, Debug)]
    pub struct JobConnection = "JobConnection" {
        /// A list of edges.
        PageItems edges: Vec<JobEdge>,
        /// A list of jobs.
        PageItems nodes: Vec<GqlJob>,
        /// Information to aid in pagination.
        Free page_info: PageInfo,
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
    }
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
