//! jobgate: one GraphQL gateway in front of job-status APIs.
//!
//! The folders are the architecture. A module may import only what stands below it:
//!
//! ```text
//! floor 6  main · cli              what a person starts
//! floor 5  server                  composition root: build, listen, live, drain
//! floor 4  inbound     outbound    doors in / roads out; they never see each other
//! floor 3  jobs                    the use cases: lookup, flight, ingest, access
//! floor 2  telemetry               log set-up, redaction
//! floor 1  ports       config      what we ask of the world / what the operator told us
//! floor 0  domain                  job, state, id, schedule, principal, error: pure
//! ```
//!
//! Beside the house stands `simulator`, the stand-in for both upstreams: it imports nothing of
//! the house, so that a shared misunderstanding cannot hide. `tests/architecture.rs` holds all of this up.

pub mod domain;

pub mod outbound;

pub mod ports;
