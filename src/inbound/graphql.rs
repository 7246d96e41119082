//! The GraphQL adapter: the schema, and the way of a request through it. Not here: use cases, which are in `jobs`.

pub mod document;
pub mod execution;
mod plan;
mod recent_slots;
pub mod schema;
#[cfg(test)]
mod testing;
pub mod transport;
