//! Layer 2: observability. Logs, traces and metrics.

pub mod log;
pub mod meters;
pub mod trace;
pub mod warning_throttle;
