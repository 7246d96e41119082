//! Floor 2: what is seen from outside. Logs today; traces and metrics come with their own issue.

pub mod limited;
pub mod log;
pub mod meters;
pub mod trace;
