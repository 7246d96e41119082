//! Layer 4, the inbound adapters. Each calls a use case of `jobs`; none imports `outbound` or `ports`.

pub mod access_log;
pub mod answer_memory;
pub mod authenticator;
pub mod bad_credentials;
mod by_client;
pub mod client_limits;
mod cors;
pub mod cpu_limiter;
pub mod error;
pub mod graphql;
mod host;
pub mod layers;
mod log_level;
pub mod metrics;
pub mod min_rate_body;
pub mod page;
pub mod peer;
pub mod probes;
mod request_span;
pub mod rest;
pub mod router;
pub mod status;
pub mod streams;
