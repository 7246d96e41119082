//! The GraphQL door: transport, parsing and limits here; what a query means is the schema's business.

pub mod documents;
pub mod http;
pub mod limits;
pub mod operation;
