//! The GraphQL adapter: the schema as thin views over `domain` and `jobs`, and its transports.

pub mod coerce;
pub mod connection;
pub mod documents;
mod events;
pub mod http;
pub mod job;
pub mod limits;
pub mod mindbridge;
mod multipart;
pub mod mutation;
pub mod operation;
pub mod persisted;
mod plan;
pub mod problem;
pub mod query;
pub mod rows;
pub mod scalars;
pub mod schema;
pub mod source;
mod sse;
mod stream_capture;
pub mod subscription;
pub mod supermetrics;
#[cfg(test)]
mod testing;
pub mod update;
mod ws;
