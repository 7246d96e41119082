//! How much was logged, and how much was not: numbers for the metrics and for the status page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::meters;

use tokio::time::Instant;
use tracing::Level;

/// For so long a warning counts as recent.
pub(super) const RECENT: Duration = Duration::from_hours(1);
/// The recent time in parts, each of which is forgotten at once.
const PARTS: usize = 60;

/// What became of the lines of the log since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Lines that were held back because they repeat, each counted in a later line.
    pub suppressed: u64,
    /// Lines that were lost because nobody read standard error in time.
    pub dropped: u64,
    /// What came in the last hour.
    pub recent: RecentEvents,
}

/// Events of the last hour, those that were held back included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentEvents {
    /// A person must act.
    pub errors: u64,
    /// Something is degraded.
    pub warnings: u64,
}

static HELD_BACK: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static PARTS_OF_HOUR: Mutex<LogCounts> =
    Mutex::new(LogCounts { begun: None, part: 0, counts: [(0, 0); PARTS] });

struct LogCounts {
    begun: Option<Instant>,
    /// The number of the part since the beginning that was counted in last.
    part: usize,
    counts: [(u64, u64); PARTS],
}

impl LogCounts {
    /// Forgets what is too old, and gives the place of now.
    fn advance(&mut self, now: Instant) -> usize {
        let begun = *self.begun.get_or_insert(now);
        let seconds = now.saturating_duration_since(begun).as_secs();
        let length = RECENT.as_secs() / PARTS as u64;
        let part = usize::try_from(seconds / length).unwrap_or(usize::MAX).max(self.part);
        for passed in self.part.saturating_add(1).max(part.saturating_sub(PARTS))..=part {
            if let Some(count) = self.counts.get_mut(passed % PARTS) {
                *count = (0, 0);
            }
        }
        self.part = part;
        part % PARTS
    }
}

/// What became of the lines of the log.
pub fn counters() -> LogCounters {
    let mut parts = PARTS_OF_HOUR.lock().unwrap_or_else(PoisonError::into_inner);
    parts.advance(Instant::now());
    let (errors, warnings) = parts.counts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    drop(parts);
    LogCounters {
        suppressed: HELD_BACK.load(Ordering::Relaxed),
        dropped: DROPPED.load(Ordering::Relaxed),
        recent: RecentEvents { errors, warnings },
    }
}

pub(super) fn count(level: Level) {
    if level > Level::WARN {
        return;
    }
    let mut parts = PARTS_OF_HOUR.lock().unwrap_or_else(PoisonError::into_inner);
    let index = parts.advance(Instant::now());
    if let Some((errors, warnings)) = parts.counts.get_mut(index) {
        *if level == Level::ERROR { errors } else { warnings } += 1;
    }
}

pub(super) fn suppressed() {
    HELD_BACK.fetch_add(1, Ordering::Relaxed);
    meters::log_suppressed(1);
}

pub(super) fn dropped() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_counts_cover_only_the_last_hour() {
        let begun = Instant::now();
        let mut parts = LogCounts { begun: Some(begun), part: 0, counts: [(0, 0); PARTS] };
        let held = |parts: &LogCounts| parts.counts.iter().map(|count| count.0).sum::<u64>();
        for minute in 0..200_u64 {
            let index = parts.advance(begun + Duration::from_secs(60 * minute));
            parts.counts[index].0 += 1;
            assert_eq!(held(&parts), (minute + 1).min(PARTS as u64), "{minute}");
        }
        parts.advance(begun + RECENT * 5);
        assert_eq!(held(&parts), 0);
    }
}
