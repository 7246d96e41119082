//! The GraphQL door: the schema as thin views over `domain` and `jobs`, and the transports that carry it.

pub mod connection;
pub mod job;
pub mod mindbridge;
pub mod problem;
pub mod query;
pub mod rows;
pub mod scalars;
pub mod schema;
pub mod source;
pub mod supermetrics;
