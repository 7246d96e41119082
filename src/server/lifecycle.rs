//! The life of the process: serve, wait for the signal, become unready, finish the running requests, and exit. Graceful
//! first, then forced.

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
    /// It was stopped by a signal.
    StopRequested,
    /// An essential task has panicked.
    Broken,
}

/// The two signals that stop a process.
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

/// Completes at the first SIGTERM or SIGINT.
///
/// # Errors
/// Returns an error if the signal handlers cannot be installed.
pub async fn stop_requested() -> io::Result<()> {
    StopSignals::listen()?.next().await;
    Ok(())
}

/// Serves until the process receives a stop signal, and shuts it down gracefully.
///
/// A SIGHUP, or a change of its file, reloads the configuration that `reread` names, as far as that is possible without
/// a restart; without `reread` there is nothing to reload and the signal has its default effect. The first SIGTERM or
/// SIGINT drains within `drain_timeout`; a second one, or the end of that time, stops at once.
///
/// # Errors
/// Returns an error if the signal handlers cannot be installed.
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
