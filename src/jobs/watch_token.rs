//! Creates watch tokens: credentials that let a browser read and watch some jobs without a client key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::reference::RequestedRef;
use super::visibility::{Visibility, WatchOnly, may_change};
use crate::domain::error::Problem;
use crate::domain::principal::Principal;
use crate::ports::identity::Identity;
pub use crate::ports::identity::{WatchToken, WatchTokenError};

/// The maximum number of jobs of one token.
pub const TOKEN_JOBS_MAX: usize = 50;
/// The maximum lifetime of a token.
pub const TOKEN_TTL_MAX: Duration = Duration::from_hours(1);
/// The minimum lifetime: expiries are whole seconds.
const TOKEN_TTL_MIN: Duration = Duration::from_secs(1);

/// Why a watch token cannot be created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchTokenRequestError {
    /// The request itself uses a watch token.
    #[error(transparent)]
    WatchOnly(#[from] WatchOnly),
    /// A reference is invalid, or the client may not read the job.
    #[error(transparent)]
    Reference(#[from] Problem),
    /// Too many jobs, or none.
    #[error("refs must have 1 to {TOKEN_JOBS_MAX} entries, not {0}; create several tokens")]
    Count(usize),
    /// The lifetime is too long, or zero.
    #[error("ttl must be from 1s to 1h")]
    Ttl,
    /// The token cannot be created.
    #[error(transparent)]
    NoToken(#[from] WatchTokenError),
}

/// Creates watch tokens.
#[derive(Debug)]
pub(super) struct WatchTokenIssuer {
    identity: Arc<dyn Identity>,
    visibility: Arc<Visibility>,
}

impl WatchTokenIssuer {
    pub(super) const fn new(identity: Arc<dyn Identity>, visibility: Arc<Visibility>) -> Self {
        Self { identity, visibility }
    }

    /// Creates a token for jobs that the client may request. Makes no call: whether they exist, and have a kind that
    /// the client may see, is checked when the token is used.
    ///
    /// # Errors
    /// See [`WatchTokenRequestError`]; the first invalid reference fails the request.
    pub(super) fn create(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenRequestError> {
        may_change(principal)?;
        if !(1..=TOKEN_JOBS_MAX).contains(&refs.len()) {
            return Err(WatchTokenRequestError::Count(refs.len()));
        }
        if !(TOKEN_TTL_MIN..=TOKEN_TTL_MAX).contains(&ttl) {
            return Err(WatchTokenRequestError::Ttl);
        }
        let jobs: Result<BTreeSet<_>, Problem> =
            refs.iter().map(|one| Ok(self.visibility.resolve(principal, one)?.key)).collect();
        Ok(self.identity.watch_token(principal, &jobs?, ttl)?)
    }
}
