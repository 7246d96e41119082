//! Floor 2: what is seen from outside. Spans and what carries them away, and the log.

pub mod limited;
pub mod log;
pub mod trace;
