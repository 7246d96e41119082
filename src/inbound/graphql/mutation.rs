//! The root of all changes: what the gateway follows on its own.

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};

use crate::domain::error::ProblemCode;
use crate::jobs::Jobs;
use crate::jobs::access;
use crate::jobs::track::Labels;

use super::job::JobResult;
use super::problem::{as_error, bad_input};
use super::query::{JobRef, check_count};

/// A word on a tracked job, by name.
#[derive(Clone, Debug, InputObject, SimpleObject)]
#[graphql(input_name = "LabelInput")]
pub struct Label {
    /// Its name, 1 to 63 bytes.
    pub(super) name: String,
    /// Its value, 1 to 63 bytes.
    pub(super) value: String,
}

/// Which jobs to track.
#[derive(Clone, Debug, InputObject)]
pub struct TrackJobsInput {
    /// Which jobs, 1 to 200.
    refs: Vec<JobRef>,
    /// Words to find them by, at most 16. They replace those that a job had.
    #[graphql(default)]
    labels: Vec<Label>,
}

/// What came of tracking.
#[derive(Clone, Debug, SimpleObject)]
pub struct TrackJobsPayload {
    /// Each job as it stands: same order, same length. What cannot be read is not tracked.
    results: Vec<JobResult>,
}

/// Which jobs to track no longer.
#[derive(Clone, Debug, InputObject)]
pub struct UntrackJobsInput {
    /// Which jobs, 1 to 200.
    refs: Vec<JobRef>,
}

/// What came of untracking.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct UntrackJobsPayload {
    /// How many of them had been tracked.
    untracked: i32,
}

/// Changes to what the gateway follows. None of them changes anything upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutation;

#[Object]
/// Changes to what the gateway follows. None of them changes anything upstream.
impl Mutation {
    /// Follows jobs to their ends though nobody watches, so that their results are held when someone asks. A job is
    /// tracked once: its labels are seen, replaced and removed by every client that may read its source.
    async fn track_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, and words to find them by.")] input: TrackJobsInput,
    ) -> Result<TrackJobsPayload> {
        check_count("refs", input.refs.len())?;
        let refs: Vec<access::JobRef> = input.refs.into_iter().map(Into::into).collect();
        let labels: Labels = input.labels.into_iter().map(|label| (label.name, label.value)).collect();
        let answers = ctx.data::<Jobs>()?.track(ctx.data()?, &refs, &labels).await;
        let answers = answers.map_err(|problem| {
            let labels_are_bad = problem.code == ProblemCode::InvalidRef;
            if labels_are_bad { bad_input(problem.message) } else { as_error(&problem) }
        })?;
        let results =
            refs.into_iter().zip(answers).map(|(reference, answer)| JobResult::new(reference, answer));
        Ok(TrackJobsPayload { results: results.collect() })
    }

    /// Stops following jobs for their own sake. Whoever watches them still does, and what is held of them stays.
    async fn untrack_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs.")] input: UntrackJobsInput,
    ) -> Result<UntrackJobsPayload> {
        check_count("refs", input.refs.len())?;
        let refs: Vec<access::JobRef> = input.refs.into_iter().map(Into::into).collect();
        let untracked = ctx.data::<Jobs>()?.untrack(ctx.data()?, &refs).await;
        Ok(UntrackJobsPayload { untracked: i32::try_from(untracked).unwrap_or(i32::MAX) })
    }
}
