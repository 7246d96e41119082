//! Layer 4, the inbound adapters. Each calls a use case of `jobs`; none imports `outbound` or `ports`.

pub mod admin;
pub mod answer_limits;
pub mod auth;
pub mod client_limits;
pub mod graphiql;
pub mod graphql;
pub mod http;
pub mod page;
pub mod rest;
pub mod router;
pub mod streams;
