//! The upstreams, one folder each, and the factory that builds the reader of a configured source.
//!
//! Adding an upstream: ARCHITECTURE.md names each file. Here: an arm in [`reader_on`], and a module that reads the
//! upstream's responses (every field is optional, a value of the wrong type is `None`), maps them to the domain types
//! (total and pure, with a table test for each mapping), builds the requests and classifies the responses with
//! `outbound::upstreams::client::Source`, which adds budget, retries, circuit breaker and credential. A small adapter is
//! one file; in a folder, `wire.rs` reads and `normalize.rs` maps. Classify the body before the status, never require JSON
//! on an error, and let no upstream text but a failure's reach a client.

mod bad_answer;
pub mod client;
mod distinct_ids;
pub mod limiter;
pub mod mindbridge;
mod reason;
pub mod supermetrics;
mod unknown_states;
mod wire;

use std::sync::Arc;

use self::client::Source;
pub use self::client::{SourceDeps, SourceSettings, SourceState};
use crate::domain::upstream::Upstream;
use crate::ports::upstream::JobReader;

/// Builds the reader of a configured source. Sends nothing.
pub fn reader(upstream: Upstream, settings: SourceSettings, deps: SourceDeps) -> Arc<dyn JobReader> {
    let source_state = SourceState::new(&settings, deps.shared_store.as_ref());
    reader_on(upstream, settings, deps, source_state)
}

/// The same with the existing state of a source.
pub fn reader_on(
    upstream: Upstream,
    settings: SourceSettings,
    deps: SourceDeps,
    source_state: SourceState,
) -> Arc<dyn JobReader> {
    let source = Source::new(upstream, settings, deps, source_state);
    match upstream {
        Upstream::MindBridge => Arc::new(mindbridge::MindBridgeReader::new(source)),
        Upstream::Supermetrics => Arc::new(supermetrics::SupermetricsReader::new(source)),
    }
}
