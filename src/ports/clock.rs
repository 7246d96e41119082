//! The clocks. Waiting uses the timers of the runtime, which tests can pause.
//!
//! There are two times, because the system clock can be wrong and is corrected in steps:
//!
//! * [`Clock::now`] is *process time*: the system clock as it was at the start, plus the monotonic time since. It never
//!   goes back and never jumps. Every observation is stamped with it and every age is measured by it.
//! * [`Clock::time_of_day`] is the system clock as it is now. It is for times from outside: expiries of tokens and
//!   credentials, `Retry-After`, times of an upstream, and what people read.
//!
//! [`ClockReading::date`] converts the first into the second. Times that leave the process (in a record, an answer) are
//! converted this way, so they are right also after a correction of the system clock. Times that enter are clamped,
//! because the clock of the writer may have been wrong (`Observation::clamped`).

use std::fmt::Debug;

use jiff::{SignedDuration, Timestamp};

/// Reads the clocks.
pub trait Clock: Debug + Send + Sync {
    /// Process time: see the head of this file.
    fn now(&self) -> Timestamp;

    /// The time of day by the system clock, which can step in either direction.
    fn time_of_day(&self) -> Timestamp {
        self.now()
    }

    /// What to add to process time to get the time of day, in whole milliseconds. Changes when the system clock steps.
    fn correction(&self) -> SignedDuration {
        whole_millis(self.time_of_day().duration_since(self.now()))
    }

    /// Process time with its correction.
    fn reading(&self) -> ClockReading {
        ClockReading { now: self.now(), correction: self.correction() }
    }
}

/// Process time, and its offset to the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Process time.
    pub now: Timestamp,
    /// What to add to process time to get the time of day.
    pub correction: SignedDuration,
}

impl ClockReading {
    /// The time of day at a moment of process time.
    pub fn date(&self, at: Timestamp) -> Timestamp {
        to_time_of_day(at, self.correction)
    }

    /// The moment of process time at a time of day.
    pub fn undate(&self, at: Timestamp) -> Timestamp {
        at.checked_sub(self.correction).unwrap_or(at)
    }
}

/// Converts process time to the time of day by a [`Clock::correction`]. Returns `at` if the sum is out of range.
pub fn to_time_of_day(at: Timestamp, correction: SignedDuration) -> Timestamp {
    if correction.is_zero() {
        return at;
    }
    at.checked_add(correction).unwrap_or(at)
}

/// A span rounded to whole milliseconds, so that two measurements of the same step are equal.
pub fn whole_millis(span: SignedDuration) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(span.as_millis()).unwrap_or(0))
}
