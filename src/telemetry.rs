//! Layer 2: observability. Logs, traces and metrics.

pub mod log;
pub mod meters;
pub mod throttle;
pub mod trace;
