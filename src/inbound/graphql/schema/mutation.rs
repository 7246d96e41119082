//! The root mutation type: tracked jobs and watch tokens.

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};
use secrecy::ExposeSecret as _;

use crate::domain::error::ProblemCode;
use crate::domain::principal::Principal;
use crate::inbound::http::error::{HttpRefusal, RefusalKind};
use crate::jobs::Jobs;
use crate::jobs::tracking::{Labels, TrackReport};
use crate::jobs::visibility;
use crate::jobs::visibility::WatchOnly;
use crate::jobs::watch_token::{WatchToken, WatchTokenError, WatchTokenRequestError};

use crate::inbound::graphql::document::limits::field_cost::{FieldCost, MOST_REFS};

use super::job::JobResult;
use super::label::Label;
use super::problem::{as_error, bad_input};
use super::reference::{JobRefInput, check_count};
use super::scalars::{DateTime, Duration};

/// Input for the `trackJobs` mutation.
#[derive(Clone, Debug, InputObject)]
pub struct TrackJobsInput {
    /// The jobs to track, 1 to 200.
    refs: Vec<JobRefInput>,
    /// The labels to set on the jobs, at most 16. They replace all labels that a job has; an empty list removes them.
    #[graphql(default)]
    labels: Vec<Label>,
}

/// The result of the `trackJobs` mutation.
#[derive(Clone, Debug, SimpleObject)]
pub struct TrackJobsPayload {
    /// The current result for each job, with the same length and order as `refs`. A job that the source does not know yet
    /// is tracked as well, unless the client is allowed to read only some jobs of the source. A malformed reference and a
    /// reference to a source that the client is not allowed to read are not tracked.
    results: Vec<JobResult>,
    /// Whether the tracked jobs were written to the gateway's store. If false, the jobs are tracked until the gateway
    /// restarts.
    is_stored: bool,
}

/// Input for the `untrackJobs` mutation.
#[derive(Clone, Debug, InputObject)]
pub struct UntrackJobsInput {
    /// The jobs to stop tracking, 1 to 200.
    refs: Vec<JobRefInput>,
}

/// The result of the `untrackJobs` mutation.
#[derive(Clone, Copy, Debug, SimpleObject)]
pub struct UntrackJobsPayload {
    /// The number of jobs that were tracked and no longer are.
    untracked: i32,
}

/// Input for the `createWatchToken` mutation.
#[derive(Clone, Debug, InputObject)]
pub struct CreateWatchTokenInput {
    /// The jobs that the token gives access to, 1 to 50.
    refs: Vec<JobRefInput>,
    /// The lifetime of the token, `1s` to `1h`. The token does not outlive the client's own credential.
    #[graphql(default_with = "quarter_hour()")]
    ttl: Duration,
}

/// The result of the `createWatchToken` mutation.
#[derive(Clone, SimpleObject)]
pub struct CreateWatchTokenPayload {
    /// The watch token: an opaque string that starts with `jgw_`, at most 4 KiB. Secret. It is sent as a bearer token in
    /// place of a client key.
    token: String,
    /// The date and time when the token expires.
    expires_at: DateTime,
}

/// What each root field costs.
pub(super) const COSTS: [(&str, FieldCost); 3] =
    [("trackJobs", FieldCost::Most), ("untrackJobs", FieldCost::Free), ("createWatchToken", FieldCost::Free)];

/// What each field of a payload costs.
pub(super) const PAYLOAD_COSTS: [(&str, &[(&str, FieldCost)]); 3] = [
    ("TrackJobsPayload", &[("isStored", FieldCost::Free), ("results", FieldCost::List(MOST_REFS))]),
    ("UntrackJobsPayload", &[("untracked", FieldCost::Free)]),
    ("CreateWatchTokenPayload", &[("token", FieldCost::Free), ("expiresAt", FieldCost::Free)]),
];

/// The root mutation type. Mutations change the state of the gateway only, never an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct MutationRoot;

#[Object(name = "Mutation")]
/// The root mutation type. Mutations change the state of the gateway only, never an upstream.
impl MutationRoot {
    /// Tracks jobs: the gateway polls them until they are terminal, also without subscribers. Labels are shared by all
    /// clients that are allowed to read the job. A client whose grant is restricted by labels cannot change labels.
    async fn track_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The jobs to track, and their labels.")] input: TrackJobsInput,
    ) -> Result<TrackJobsPayload> {
        let principal: &Principal = ctx.data()?;
        ctx.data::<Jobs>()?.may_change(principal).map_err(not_permitted)?;
        check_count("refs", input.refs.len())?;
        let refs: Vec<visibility::RequestedRef> = input.refs.into_iter().map(Into::into).collect();
        let labels: Labels = input.labels.into_iter().map(|label| (label.name, label.value)).collect();
        let tracked = ctx.data::<Jobs>()?.track_and_report(principal, &refs, &labels).await;
        let TrackReport { answers, is_stored } = tracked.map_err(|problem| {
            let labels_are_bad = problem.code == ProblemCode::InvalidRef;
            if labels_are_bad { bad_input(problem.message) } else { as_error(&problem) }
        })?;
        let results =
            refs.into_iter().zip(answers).map(|(reference, answer)| JobResult::new(&reference, answer));
        Ok(TrackJobsPayload { results: results.collect(), is_stored })
    }

    /// Stops tracking jobs and removes their labels. Subscriptions to the jobs continue, and stored results are kept.
    async fn untrack_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The jobs to stop tracking.")] input: UntrackJobsInput,
    ) -> Result<UntrackJobsPayload> {
        let principal: &Principal = ctx.data()?;
        ctx.data::<Jobs>()?.may_change(principal).map_err(not_permitted)?;
        check_count("refs", input.refs.len())?;
        let refs: Vec<visibility::RequestedRef> = input.refs.into_iter().map(Into::into).collect();
        let untracked = ctx.data::<Jobs>()?.untrack(principal, &refs).await;
        Ok(UntrackJobsPayload { untracked: i32::try_from(untracked).unwrap_or(i32::MAX) })
    }

    /// Creates a short-lived token for a list of jobs, for use in a browser in place of a client key. The token can read and
    /// subscribe to these jobs within the client's own grant. No upstream call is made.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn create_watch_token(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The jobs and the lifetime of the token.")] input: CreateWatchTokenInput,
    ) -> Result<CreateWatchTokenPayload> {
        let refs: Vec<visibility::RequestedRef> = input.refs.into_iter().map(Into::into).collect();
        let made = ctx.data::<Jobs>()?.watch_token(ctx.data()?, &refs, input.ttl.0);
        let WatchToken { token, expires_at } = made.map_err(|error| match error {
            WatchTokenRequestError::WatchOnly(error) => not_permitted(error),
            WatchTokenRequestError::Reference(problem) => as_error(&problem),
            error @ (WatchTokenRequestError::Count(_)
            | WatchTokenRequestError::Ttl
            | WatchTokenRequestError::NoToken(WatchTokenError::TooLong(_))) => bad_input(error.to_string()),
            WatchTokenRequestError::NoToken(error @ WatchTokenError::NotMade) => {
                HttpRefusal::new(RefusalKind::NotPermitted, error.to_string()).into()
            }
        })?;
        let token = token.expose_secret().to_owned();
        Ok(CreateWatchTokenPayload { token, expires_at: DateTime(expires_at) })
    }
}

/// The default lifetime of a watch token.
const fn quarter_hour() -> Duration {
    Duration(std::time::Duration::from_mins(15))
}

fn not_permitted(error: WatchOnly) -> async_graphql::Error {
    HttpRefusal::new(RefusalKind::NotPermitted, error.to_string()).into()
}

impl std::fmt::Debug for CreateWatchTokenPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateWatchTokenPayload")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
