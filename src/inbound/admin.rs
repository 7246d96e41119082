//! The admin listener: probes, metrics, status and log level, for operators and their tools. Not here: anything that a
//! client may call.

mod log_level;
pub mod metrics;
pub mod probes;
pub mod status;
