//! The runtime of a command that serves or sends requests.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Starts a runtime with a thread for each core.
pub(super) fn start() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build()
}
