//! The parts of the benchmark of streams: the servers, the watchers and the report.

pub(crate) mod broadcaster;
mod message;
pub(crate) mod plan;
mod report;
#[path = "requests/servers.rs"]
mod servers;
pub(crate) mod socket;
mod watchers;
