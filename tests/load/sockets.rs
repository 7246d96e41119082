//! The parts of the benchmark of streams: who is watched, who watches, and how it is told.

pub(crate) mod broadcaster;
mod message;
pub(crate) mod plan;
mod report;
#[path = "requests/servers.rs"]
mod servers;
pub(crate) mod socket;
mod watchers;
