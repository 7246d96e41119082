//! Which jobs can be read, as evidence about an error of one job: a lost permission concerns all of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::id::ExternalId;

/// How long the result of a check that found no readable job is valid.
const CHECK_HOLDS: Duration = Duration::from_secs(30);

/// The jobs that were read last. Two are sufficient: one of them differs from the job in question.
#[derive(Debug, Default)]
pub(super) struct ReadableJobs {
    state: Mutex<ReadableState>,
}

#[derive(Debug, Default)]
struct ReadableState {
    /// The newest last, with the time at which its request was sent.
    last: Vec<(ExternalId, Instant)>,
    /// When another job was read as evidence, without success so far.
    checked: Option<Instant>,
}

/// What is known about the other jobs of the source.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Another one was read by a later request.
    OthersRead,
    /// This one could be read before; a read of it decides.
    Check(ExternalId),
    /// No readable job is known, or a recent check found none.
    None,
}

impl ReadableJobs {
    /// Records that a job was read by a request that was sent at `sent`: the time when it began to wait in the queue is
    /// irrelevant.
    pub(super) fn note(&self, id: &ExternalId, sent: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.retain(|(other, _)| other != id);
        if state.last.len() > 1 {
            state.last.remove(0);
        }
        state.last.push((id.clone(), sent));
        state.checked = None;
    }

    /// Returns whether a job other than `id` was read by a request sent at `denied` or later, when the response about
    /// `id` arrived. After [`Evidence::Check`] it returns [`Evidence::None`] for a while, unless the check succeeds and
    /// is recorded.
    pub(super) fn evidence(&self, id: &ExternalId, denied: Instant) -> Evidence {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((other, at)) = state.last.iter().rev().find(|(other, _)| other != id).cloned() else {
            return Evidence::None;
        };
        if at >= denied {
            return Evidence::OthersRead;
        }
        if state.checked.is_some_and(|checked| checked.elapsed() < CHECK_HOLDS) {
            return Evidence::None;
        }
        state.checked = Some(Instant::now());
        Evidence::Check(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::testing::id;

    #[tokio::test(start_paused = true)]
    async fn only_a_later_read_of_another_job_is_evidence() {
        let readable = ReadableJobs::default();
        let (a, b) = (id("a"), id("b"));
        assert_eq!(readable.evidence(&a, Instant::now()), Evidence::None);
        readable.note(&a, Instant::now());
        assert_eq!(readable.evidence(&a, Instant::now()), Evidence::None, "its own reads prove nothing");
        readable.note(&b, Instant::now());
        assert_eq!(readable.evidence(&a, Instant::now()), Evidence::OthersRead);
        tokio::time::advance(Duration::from_secs(1)).await;
        let requested_at = Instant::now();
        assert_eq!(readable.evidence(&a, requested_at), Evidence::Check(b.clone()), "read before");
        readable.note(&b, requested_at);
        assert_eq!(readable.evidence(&a, requested_at), Evidence::OthersRead);
    }

    #[tokio::test(start_paused = true)]
    async fn another_job_is_checked_by_one_caller_at_a_time() {
        let readable = ReadableJobs::default();
        let (a, b) = (id("a"), id("b"));
        readable.note(&b, Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
        let requested_at = Instant::now();
        assert_eq!(readable.evidence(&a, requested_at), Evidence::Check(b.clone()));
        assert_eq!(readable.evidence(&a, requested_at), Evidence::None);
        tokio::time::advance(CHECK_HOLDS).await;
        assert_eq!(readable.evidence(&a, requested_at), Evidence::Check(b));
    }
}
