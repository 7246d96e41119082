//! The parts of the benchmark: what is asked, who is asked, who asks, and how it is told.

pub(crate) mod bare;
mod cases;
mod client;
pub(crate) mod plan;
mod report;
mod servers;
