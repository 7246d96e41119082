//! Counters of written, suppressed and dropped lines, for the metrics and for the status page.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Level;
use tracing_appender::non_blocking::ErrorCounter;

use crate::telemetry::throttle;

/// How long a warning counts as recent.
pub(super) const RECENT: Duration = Duration::from_hours(1);
/// The number of parts of the recent time; each part is forgotten as a whole.
const PARTS: usize = 60;

/// The outcome of the lines of the log since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounters {
    /// Lines that were suppressed as repeats, each counted in a later line.
    pub suppressed: u64,
    /// Lines that were dropped because standard error was not read in time.
    pub dropped: u64,
    /// The events of the last hour.
    pub recent: RecentEvents,
}

/// Events of the last hour, including suppressed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentEvents {
    /// Errors: an operator must act.
    pub errors: u64,
    /// Warnings: something is degraded.
    pub warnings: u64,
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
static PARTS_OF_HOUR: Mutex<LogCounts> =
    Mutex::new(LogCounts { begun: None, part: 0, counts: [(0, 0); PARTS] });

struct LogCounts {
    begun: Option<Instant>,
    /// The number, since the start, of the part that was counted in last.
    part: usize,
    counts: [(u64, u64); PARTS],
}

impl LogCounts {
    /// Clears the parts that are too old, and returns the index of the present one.
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

/// The outcome of the lines of the log.
pub fn counters() -> LogCounters {
    let mut parts = PARTS_OF_HOUR.lock().unwrap_or_else(PoisonError::into_inner);
    parts.advance(Instant::now());
    let (errors, warnings) = parts.counts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    drop(parts);
    LogCounters {
        suppressed: throttle::suppressed_lines(),
        dropped: dropped(),
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

/// Sets the counter of the log of this process.
pub(super) fn set_dropped(lines: ErrorCounter) {
    DROPPED.set(lines).ok();
}

/// The number of dropped lines.
pub(super) fn dropped() -> u64 {
    DROPPED.get().map_or(0, |lines| lines.dropped_lines() as u64)
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
