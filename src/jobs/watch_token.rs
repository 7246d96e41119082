//! Makes watch tokens: passes by which a browser reads and watches some jobs without holding a client's key.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::error::Problem;
use crate::domain::principal::Principal;

use super::Jobs;
use super::visibility::{RequestedRef, WatchOnly};

pub use crate::ports::identity::{WatchToken, WatchTokenError};

/// The most jobs of one token.
pub const TOKEN_JOBS_MAX: usize = 50;
/// The longest life of a token.
pub const TOKEN_TTL_MAX: Duration = Duration::from_hours(1);
/// The shortest: expiries are whole seconds.
const TOKEN_TTL_MIN: Duration = Duration::from_secs(1);

/// Why a watch token is not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchTokenRequestError {
    /// Whoever asks came in with one.
    #[error(transparent)]
    WatchOnly(#[from] WatchOnly),
    /// A reference cannot be read, or is to nothing that the client may ask about.
    #[error(transparent)]
    Reference(#[from] Problem),
    /// Too many jobs, or none.
    #[error("refs must have 1 to {TOKEN_JOBS_MAX} entries, not {0}; create several tokens")]
    Count(usize),
    /// Too long a life, or none.
    #[error("ttl must be from 1s to 1h")]
    Ttl,
    /// There is no such token.
    #[error(transparent)]
    NoToken(#[from] WatchTokenError),
}

impl Jobs {
    /// Makes a token for jobs that the client may ask about. Makes no call: whether they exist, and are of a kind that the
    /// client may see, shows when the token is used.
    ///
    /// # Errors
    /// See [`WatchTokenRequestError`]; the first reference that is refused speaks for all.
    pub fn watch_token(
        &self,
        principal: &Principal,
        refs: &[RequestedRef],
        ttl: Duration,
    ) -> Result<WatchToken, WatchTokenRequestError> {
        self.may_change(principal)?;
        if !(1..=TOKEN_JOBS_MAX).contains(&refs.len()) {
            return Err(WatchTokenRequestError::Count(refs.len()));
        }
        if !(TOKEN_TTL_MIN..=TOKEN_TTL_MAX).contains(&ttl) {
            return Err(WatchTokenRequestError::Ttl);
        }
        let jobs: Result<BTreeSet<_>, Problem> =
            refs.iter().map(|one| Ok(self.resolve(principal, one)?.key)).collect();
        Ok(self.inner.identity.watch_token(principal, &jobs?, ttl)?)
    }
}
