//! The system clock. Only this file reads it; waiting uses the timers of the runtime, which tests can pause.

use jiff::Timestamp;

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "independent of the gateway: it has no clock port")]
pub(crate) fn time_of_day() -> Timestamp {
    Timestamp::now()
}
