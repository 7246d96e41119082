//! From start to end: serve, hear the signal, stop being ready, finish what is held, and go. Soft, then hard.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::build::Gateway;
pub use super::reload::watch::ConfigWatch;
use super::reload::watch::ReloadTriggers;

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeOutcome {
    /// It was told to stop, and did.
    StopRequested,
    /// A part died without which the process cannot do its job.
    Broken,
}

/// The two signals that tell a process to stop.
#[derive(Debug)]
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn stop_requested() -> io::Result<()> {
    StopSignals::listen()?.next().await;
    Ok(())
}

/// Serves until the process is told to stop, and ends it in order.
///
/// A SIGHUP, or a change of its file, puts what `reread` names in force, as far as that goes without a restart; without
/// `reread` there is nothing to read and the signal does what it always did. The first SIGTERM or SIGINT drains within `drain_timeout`; a second
/// one, or the end of that time, ends at once.
///
/// # Errors
/// When the signals cannot be listened for.
pub async fn run(
    gateway: Gateway,
    drain_timeout: Duration,
    reread: Option<ConfigWatch>,
) -> io::Result<ServeOutcome> {
    let mut signals = StopSignals::listen()?;
    let triggers = reread.map(ReloadTriggers::listen).transpose()?;
    let serving = gateway.serve();
    let reloading = async {
        match triggers {
            Some(triggers) => triggers.run(Arc::clone(serving.reload())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = serving.broken() => return Ok(ServeOutcome::Broken),
        () = reloading => {}
    }
    tracing::info!("shutting down; draining connections");
    tokio::select! {
        () = serving.drain() => tracing::info!("stopped"),
        () = tokio::time::sleep(drain_timeout) => tracing::warn!("stopped before the drain completed"),
        () = signals.next() => tracing::warn!("stopped by a second signal"),
    }
    Ok(ServeOutcome::StopRequested)
}
