//! Whether the responses of a source are usable, and the last error: what its health shows beside the limiter's state.
//!
//! An unusable response is caused by one job or by the source. The source is DEGRADED after one response that does not
//! come from the API (an HTML page, a redirect), after unusable responses about two jobs with no usable one in between,
//! and after any unusable one if none has been usable for [`QUIET`]. The state ends with the next usable response, and
//! after [`HOLDS`] without another unusable one. A job whose responses stay unusable while those about another job are
//! usable is defective by itself, and is ignored until a response about it is usable.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::source::{SourceError, SourceErrorKind};
use crate::telemetry::log::LastReason;

/// For how long a usable response is evidence against one about another job that is unusable.
const QUIET: Duration = Duration::from_mins(1);
/// How long an unusable answer counts.
const HOLDS: Duration = Duration::from_mins(10);
/// How many jobs are remembered as defective; a further one counts against its source.
const ODD_JOBS: usize = 256;
/// More suspects than this change nothing.
const SUSPECTS: usize = 8;
/// After this time an error that is the same as the one before is logged again.
const LOG_AGAIN: Duration = Duration::from_mins(10);

/// The subject of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallPurpose<'a> {
    /// One job.
    Job(&'a str),
    /// Several jobs at once.
    Many,
    /// None of the source's state: a credential that is not active is verified.
    Trial,
}

/// The quality of the last responses of a source.
#[derive(Debug, Default)]
pub(super) struct AnswerQuality(Mutex<QualityState>);

#[derive(Debug, Default)]
struct QualityState {
    /// The subjects of the unusable responses since the last usable one; the empty string for several jobs at once.
    suspects: BTreeSet<String>,
    malformed_jobs: BTreeSet<String>,
    usable_at: Option<Instant>,
    unusable_at: Option<Instant>,
    degraded: bool,
    last_error: Option<SourceError>,
    logged: LastReason<(SourceErrorKind, String)>,
}

impl AnswerQuality {
    /// Records a usable response. Returns whether the source was DEGRADED until now.
    pub(super) fn usable(&self, about: CallPurpose<'_>) -> bool {
        let mut state = self.lock();
        let QualityState { suspects, malformed_jobs, .. } = &mut *state;
        let own = match about {
            CallPurpose::Job(job) => job,
            CallPurpose::Many => "",
            CallPurpose::Trial => return false,
        };
        malformed_jobs.remove(own);
        for job in std::mem::take(suspects) {
            if !job.is_empty() && job != own && malformed_jobs.len() < ODD_JOBS {
                malformed_jobs.insert(job);
            }
        }
        state.usable_at = Some(Instant::now());
        std::mem::take(&mut state.degraded)
    }

    /// Records an unusable response; `foreign` if it does not come from the API. Returns whether the source is DEGRADED
    /// from now on.
    pub(super) fn unusable(&self, about: CallPurpose<'_>, foreign: bool) -> bool {
        let mut state = self.lock();
        let job = match about {
            CallPurpose::Job(job) if state.malformed_jobs.contains(job) => return false,
            CallPurpose::Job(job) => job,
            CallPurpose::Many => "",
            CallPurpose::Trial => return false,
        };
        if state.suspects.len() < SUSPECTS {
            state.suspects.insert(job.to_owned());
        }
        let now = Instant::now();
        let was = state.is_degraded(now);
        state.unusable_at = Some(now);
        let quiet = state.usable_at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        state.degraded = was || foreign || quiet || state.suspects.len() > 1;
        state.degraded && !was
    }

    /// Returns whether the source is DEGRADED.
    pub(super) fn are_unusable(&self) -> bool {
        self.lock().is_degraded(Instant::now())
    }

    /// Records an error. Returns whether to log it: it differs from the one before, or that one was long ago.
    pub(super) fn note(&self, error: SourceError) -> bool {
        let mut state = self.lock();
        let reason = (error.kind, error.message.clone());
        let is_new = !state.logged.is_repeated(&reason, LOG_AGAIN);
        if is_new {
            state.logged.logged(reason);
        }
        state.last_error = Some(error);
        is_new
    }

    /// The last error.
    pub(super) fn last_error(&self) -> Option<SourceError> {
        self.lock().last_error.clone()
    }

    /// Resets everything, because another URL is called from now on.
    pub(super) fn forget(&self) {
        *self.lock() = QualityState::default();
    }

    /// No code that can panic runs under this lock, and each change under it is complete.
    fn lock(&self) -> MutexGuard<'_, QualityState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QualityState {
    fn is_degraded(&self, now: Instant) -> bool {
        self.degraded && self.unusable_at.is_some_and(|at| now.saturating_duration_since(at) < HOLDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CallPurpose<'_> = CallPurpose::Job("a");
    const B: CallPurpose<'_> = CallPurpose::Job("b");

    #[tokio::test(start_paused = true)]
    async fn foreign_response_degrades_the_source_at_once() {
        let answers = AnswerQuality::default();
        answers.usable(A);
        assert!(answers.unusable(B, true));
        assert!(!answers.unusable(B, true), "logged once");
        assert!(answers.are_unusable());
        assert!(answers.usable(A));
        assert!(!answers.are_unusable());
    }

    /// A source whose job B never has a usable answer, while its job A has.
    async fn with_a_defective_job() -> AnswerQuality {
        let answers = AnswerQuality::default();
        answers.usable(A);
        for _ in 0..9 {
            assert!(!answers.unusable(B, false));
            answers.usable(A);
            assert!(!answers.unusable(B, true), "not even by an HTML page: it is known to be defective");
            tokio::time::advance(QUIET * 2).await;
            assert!(!answers.unusable(B, false));
        }
        answers
    }

    #[tokio::test(start_paused = true)]
    async fn one_job_with_unusable_answers_does_not_degrade_its_source() {
        with_a_defective_job().await;
    }

    #[tokio::test(start_paused = true)]
    async fn another_job_degrades_a_source_that_was_not_usable_for_long() {
        assert!(with_a_defective_job().await.unusable(A, false));
    }

    #[tokio::test(start_paused = true)]
    async fn job_with_a_usable_answer_is_not_defective_any_more() {
        let answers = with_a_defective_job().await;
        assert!(answers.unusable(A, false));
        assert!(answers.usable(B));
        assert!(answers.unusable(B, true));
    }

    #[tokio::test(start_paused = true)]
    async fn unusable_answers_about_two_jobs_degrade_the_source() {
        let answers = AnswerQuality::default();
        answers.usable(A);
        assert!(!answers.unusable(A, false));
        assert!(!answers.unusable(A, false));
        assert!(answers.unusable(B, false));
    }

    #[tokio::test(start_paused = true)]
    async fn one_unusable_answer_degrades_a_source_without_usable_ones() {
        let answers = AnswerQuality::default();
        assert!(answers.unusable(A, false));
        let answers = AnswerQuality::default();
        assert!(answers.unusable(CallPurpose::Many, false));
    }

    #[tokio::test(start_paused = true)]
    async fn unusable_answers_are_forgotten_after_a_while() {
        let answers = AnswerQuality::default();
        assert!(answers.unusable(A, false));
        tokio::time::advance(HOLDS).await;
        assert!(!answers.are_unusable());
    }

    #[tokio::test(start_paused = true)]
    async fn unusable_answer_to_a_trial_does_not_degrade_a_source() {
        let answers = AnswerQuality::default();
        assert!(!answers.unusable(CallPurpose::Trial, true));
    }

    #[tokio::test(start_paused = true)]
    async fn forgetting_ends_the_degradation_of_a_source() {
        let answers = AnswerQuality::default();
        assert!(answers.unusable(CallPurpose::Many, false));
        answers.forget();
        assert!(!answers.are_unusable());
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_jobs_are_bounded() {
        let answers = AnswerQuality::default();
        for number in 0..10_000 {
            answers.unusable(CallPurpose::Job(&format!("job{number}")), false);
            if number % 5 == 0 {
                answers.usable(A);
            }
        }
        let state = answers.lock();
        assert!(state.malformed_jobs.len() <= ODD_JOBS && state.suspects.len() <= SUSPECTS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_logged_once_per_change() {
        let answers = AnswerQuality::default();
        let error = |message: &str| SourceError {
            at: jiff::Timestamp::UNIX_EPOCH,
            kind: SourceErrorKind::BadAnswer,
            message: message.to_owned(),
        };
        let logged = ["one", "one", "two", "two", "one"].map(|message| answers.note(error(message)));
        assert_eq!(logged, [true, false, true, false, true]);
        tokio::time::advance(LOG_AGAIN).await;
        assert!(answers.note(error("one")));
        assert_eq!(answers.last_error().unwrap().message, "one");
    }
}
