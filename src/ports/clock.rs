//! The time of day. Waiting is the runtime's business: its timers stand still in tests.

use std::fmt::Debug;

use jiff::Timestamp;

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync {
    /// The time now, by this machine.
    fn now(&self) -> Timestamp;
}
