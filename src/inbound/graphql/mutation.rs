//! The root of all changes: what the gateway follows on its own.

use async_graphql::{Context, InputObject, Object, Result, SimpleObject};
use secrecy::ExposeSecret as _;

use crate::domain::error::ProblemCode;
use crate::domain::principal::Principal;
use crate::inbound::error::{Kind, Refusal};
use crate::jobs::Jobs;
use crate::jobs::access::{self, WatchOnly};
use crate::jobs::pass::{NoToken, PassError, WatchToken};
use crate::jobs::track::{Labels, TrackReport};

use super::job::JobResult;
use super::problem::{as_error, bad_input};
use super::query::{JobRef, check_count};
use super::scalars::{DateTime, Duration};

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
    /// Each job as it stands: same order, same length. A job that its source does not know yet is tracked too, unless you
    /// may read only some jobs of the source. A malformed reference is not tracked, nor is one to a source that you may
    /// not read.
    results: Vec<JobResult>,
    /// Whether the gateway's store has taken this. False when the write failed: the jobs are tracked until a restart.
    is_stored: bool,
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

/// For which jobs a watch token is, and for how long.
#[derive(Clone, Debug, InputObject)]
pub struct CreateWatchTokenInput {
    /// Which jobs, 1 to 50.
    refs: Vec<JobRef>,
    /// How long it holds, 1s to 1h; not beyond your own credential.
    #[graphql(default_with = "quarter_hour()")]
    ttl: Duration,
}

/// A watch token.
#[derive(Clone, SimpleObject)]
pub struct CreateWatchTokenPayload {
    /// The token: a secret, to be presented as a client's key is. It reads and watches these jobs and does nothing else.
    token: String,
    /// From this moment on it does not hold.
    expires_at: DateTime,
}

/// Changes to what the gateway follows, and passes for others. None of them changes anything upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutation;

#[Object]
/// Changes to what the gateway follows, and passes for others. None of them changes anything upstream.
impl Mutation {
    /// Follows jobs to their ends though nobody watches, so that their results are held when someone asks. A job is
    /// tracked once: its labels are seen, replaced and removed by every client that may read it, but for those clients
    /// that are held to labels, which change none.
    async fn track_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs, and words to find them by.")] input: TrackJobsInput,
    ) -> Result<TrackJobsPayload> {
        let principal: &Principal = ctx.data()?;
        ctx.data::<Jobs>()?.may_change(principal).map_err(not_permitted)?;
        check_count("refs", input.refs.len())?;
        let refs: Vec<access::JobRef> = input.refs.into_iter().map(Into::into).collect();
        let labels: Labels = input.labels.into_iter().map(|label| (label.name, label.value)).collect();
        let tracked = ctx.data::<Jobs>()?.track_and_report(principal, &refs, &labels).await;
        let TrackReport { answers, is_stored } = tracked.map_err(|problem| {
            let labels_are_bad = problem.code == ProblemCode::InvalidRef;
            if labels_are_bad { bad_input(problem.message) } else { as_error(&problem) }
        })?;
        let results =
            refs.into_iter().zip(answers).map(|(reference, answer)| JobResult::new(reference, answer));
        Ok(TrackJobsPayload { results: results.collect(), is_stored })
    }

    /// Stops following jobs for their own sake. Whoever watches them still does, and what is held of them stays.
    async fn untrack_jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which jobs.")] input: UntrackJobsInput,
    ) -> Result<UntrackJobsPayload> {
        let principal: &Principal = ctx.data()?;
        ctx.data::<Jobs>()?.may_change(principal).map_err(not_permitted)?;
        check_count("refs", input.refs.len())?;
        let refs: Vec<access::JobRef> = input.refs.into_iter().map(Into::into).collect();
        let untracked = ctx.data::<Jobs>()?.untrack(principal, &refs).await;
        Ok(UntrackJobsPayload { untracked: i32::try_from(untracked).unwrap_or(i32::MAX) })
    }

    /// Makes a short-lived token for some jobs, which a browser can hold instead of your key: it reads and watches those
    /// jobs, as far as you may, and does nothing else. Nothing is asked upstream.
    #[expect(clippy::unused_async, reason = "the engine's resolvers are asynchronous")]
    async fn create_watch_token(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "For which jobs, and for how long.")] input: CreateWatchTokenInput,
    ) -> Result<CreateWatchTokenPayload> {
        let refs: Vec<access::JobRef> = input.refs.into_iter().map(Into::into).collect();
        let made = ctx.data::<Jobs>()?.watch_token(ctx.data()?, &refs, input.ttl.0);
        let WatchToken { token, expires_at } = made.map_err(|error| match error {
            PassError::WatchOnly(error) => not_permitted(error),
            PassError::Reference(problem) => as_error(&problem),
            error @ (PassError::Count(_) | PassError::Ttl | PassError::NoToken(NoToken::TooLong(_))) => {
                bad_input(error.to_string())
            }
            PassError::NoToken(error @ NoToken::NotMade) => {
                Refusal::new(Kind::NotPermitted, error.to_string()).into()
            }
        })?;
        let token = token.expose_secret().to_owned();
        Ok(CreateWatchTokenPayload { token, expires_at: DateTime(expires_at) })
    }
}

/// How long a watch token holds unless told.
const fn quarter_hour() -> Duration {
    Duration(std::time::Duration::from_mins(15))
}

fn not_permitted(error: WatchOnly) -> async_graphql::Error {
    Refusal::new(Kind::NotPermitted, error.to_string()).into()
}

impl std::fmt::Debug for CreateWatchTokenPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateWatchTokenPayload")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
