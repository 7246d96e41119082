//! jobgate: one GraphQL API for long-running jobs in MindBridge and Supermetrics.
//!
//! The folders are layers. A module imports only from layers below it:
//!
//! ```text
//! layer 6  main · cli              commands
//! layer 5  server                  composition root: build, listen, reload, drain
//! layer 4  inbound     outbound    inbound and outbound adapters; they never import each other
//! layer 3  jobs                    use cases: lookup, single flight, ingest, follow, watch, access
//! layer 2  telemetry               spans, metrics, log
//! layer 1  ports       config      traits for the outside world / validated configuration
//! layer 0  domain                  pure: job, state, id, schedule, durations, principal, error
//! ```
//!
//! `tests/architecture.rs` checks the imports; `ARCHITECTURE.md` has the details. Beside this package the workspace has
//! `crates/client`, the terminal client behind `jobgate job`, and `crates/simulator`, the stand-in for both upstreams.
//! Neither depends on this package.

pub mod cli;
pub mod config;
pub mod domain;
pub mod inbound;
pub mod jobs;
pub mod outbound;
pub mod ports;
pub mod server;
pub mod telemetry;
