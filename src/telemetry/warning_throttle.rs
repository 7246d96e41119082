//! Rate limit of a repeated warning: it is logged at most once per interval, with the number of suppressed repeats.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::meters;

/// The interval: at most one line in this time.
const QUIET: Duration = Duration::from_secs(30);

/// Decides whether a repeating warning is due.
#[derive(Debug, Default)]
pub struct LimitedWarning {
    state: Mutex<(Option<Instant>, u64)>,
}

impl LimitedWarning {
    /// Returns whether to write the line now: the number of lines that were suppressed since the last one.
    pub fn due(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, suppressed) = &mut *state;
        let now = Instant::now();
        if last.is_some_and(|last| now.duration_since(last) < QUIET) {
            *suppressed += 1;
            meters::log_suppressed(1);
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeated_warnings_are_counted_and_reported_later() {
        let warning = LimitedWarning::default();
        assert_eq!(warning.due(), Some(0));
        assert_eq!((warning.due(), warning.due()), (None, None));
        tokio::time::advance(QUIET).await;
        assert_eq!(warning.due(), Some(2));
    }
}
