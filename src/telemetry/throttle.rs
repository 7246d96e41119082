//! Rate limit of a repeated log line: at most some of them per window are written, with the number of those suppressed
//! before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Decides whether a repeated line is written. By default: one in 30 seconds.
#[derive(Debug)]
pub struct Throttle {
    lines: u32,
    window: Duration,
    state: Mutex<ThrottleState>,
}

#[derive(Debug, Default)]
struct ThrottleState {
    /// The start of the window: its first line.
    begun: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl Throttle {
    /// A limit of so many lines in each window.
    pub fn new(lines: u32, window: Duration) -> Self {
        Self { lines, window, state: Mutex::default() }
    }

    /// Returns whether to write the line now: the number of lines that were suppressed since the last written one.
    pub fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.lock();
        if state.is_over(now, self.window) {
            *state = ThrottleState { begun: Some(now), written: 0, suppressed: state.suppressed };
        }
        if state.written >= self.lines {
            state.suppressed += 1;
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.suppressed))
    }

    /// Returns the number of suppressed lines if the window has ended.
    pub fn ended(&self, now: Instant) -> Option<u64> {
        let state = self.lock();
        state.is_over(now, self.window).then_some(state.suppressed)
    }

    fn lock(&self) -> MutexGuard<'_, ThrottleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThrottleState {
    fn is_over(&self, now: Instant, window: Duration) -> bool {
        self.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= window)
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(1, Duration::from_secs(30))
    }
}

/// The number of lines that were suppressed since the start of the process.
pub fn suppressed_lines() -> u64 {
    SUPPRESSED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn suppressed_lines_are_counted() {
        let throttle = Throttle::new(2, WINDOW);
        let before = suppressed_lines();
        assert_eq!([0; 4].map(|_| throttle.admit()), [Some(0), Some(0), None, None]);
        assert!(suppressed_lines() >= before + 2, "other tests run in parallel");
    }

    #[tokio::test(start_paused = true)]
    async fn suppressed_lines_are_reported_after_the_window() {
        let throttle = Throttle::new(2, WINDOW);
        assert_eq!([0; 4].map(|_| throttle.admit()), [Some(0), Some(0), None, None]);
        assert_eq!(throttle.ended(Instant::now()), None);
        tokio::time::advance(WINDOW).await;
        assert_eq!(throttle.ended(Instant::now()), Some(2));
        assert_eq!([0; 3].map(|_| throttle.admit()), [Some(2), Some(0), None]);
    }
}
