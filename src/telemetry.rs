//! Floor 2: what is seen from outside. Logs, traces and metrics.

pub mod log;
pub mod meters;
pub mod trace;
pub mod warning_throttle;
