//! Decides whether the reason of a lasting problem is logged: each new one at once, an unchanged one again after a while.

use std::time::Duration;

use tokio::time::Instant;

/// The reason that was logged last, and when.
#[derive(Clone, Debug)]
pub struct LastReason<T>(Option<(T, Instant)>);

impl<T: PartialEq> LastReason<T> {
    /// Returns whether a reason is not due: it was the last one, less than `again` ago.
    pub fn is_repeated(&self, reason: &T, again: Duration) -> bool {
        self.0.as_ref().is_some_and(|(last, at)| last == reason && at.elapsed() < again)
    }

    /// Records that a reason is logged now.
    pub fn logged(&mut self, reason: T) {
        self.0 = Some((reason, Instant::now()));
    }
}

impl<T> Default for LastReason<T> {
    fn default() -> Self {
        Self(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGAIN: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn reason_is_logged_when_it_changes() {
        let mut last = LastReason::default();
        assert!(!last.is_repeated(&"one", AGAIN));
        last.logged("one");
        assert!(last.is_repeated(&"one", AGAIN));
        assert!(!last.is_repeated(&"two", AGAIN));
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_reason_is_logged_again_after_a_while() {
        let mut last = LastReason::default();
        last.logged("one");
        assert!(last.is_repeated(&"one", AGAIN));
        tokio::time::advance(AGAIN).await;
        assert!(!last.is_repeated(&"one", AGAIN));
    }
}
