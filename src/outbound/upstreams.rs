//! The upstreams, one folder each, and the factory that makes a configured source ready.
//!
//! Adding an upstream: (1) a variant in `domain::source::Upstream` and one in `domain::details::Details`; the compiler
//! then lists every table that needs a row. (2) A folder here: `wire.rs` reads their words (strings at the border,
//! every field optional, a wrong type is `None`), `normalize.rs` turns them into ours (total, pure, a table test a
//! line), and the file beside it asks the questions and judges the replies through `outbound::source::Source`, which
//! brings budget, retries, breaker and credential. (3) A row in [`reader`]. Judge the body before the status, never
//! require JSON on an error, and let no upstream text but a failure's reach a client.

mod distinct;
pub mod mindbridge;
pub mod supermetrics;
mod wire;
mod words;

use std::sync::Arc;

use super::source::Source;
pub use super::source::{Means, SourceSettings};
use crate::domain::source::Upstream;
use crate::ports::upstream::JobReader;

/// Makes a configured source ready to be asked. Nothing is sent yet.
pub fn reader(upstream: Upstream, settings: SourceSettings, means: Means) -> Arc<dyn JobReader> {
    let source = Source::new(upstream, settings, means);
    match upstream {
        Upstream::MindBridge => Arc::new(mindbridge::MindBridge::new(source)),
        Upstream::Supermetrics => Arc::new(supermetrics::Supermetrics::new(source)),
    }
}
