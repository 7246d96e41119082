//! The parts of the benchmark: the requests, the servers, the client and the report.

pub(crate) mod bare;
mod cases;
mod client;
pub(crate) mod plan;
mod report;
mod servers;
