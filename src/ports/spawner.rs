//! The one way to start a task: named, traced, and with a word on what its end means.

use std::fmt::Debug;

use super::BoxFuture;

/// A kind of task. A new member needs its row in [`TaskKind::on_panic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// One shared fetch. Ends by itself; its joiners see a lost flight if it panics.
    Fetch,
    /// One look at followed jobs. Ends by itself; its jobs are looked at again later if it panics.
    Poll,
    /// The loop that looks at followed jobs. Runs until the process drains.
    Poller,
    /// Follows the secret of one source. Runs until the process drains.
    Rotation,
    /// Following on what was followed before a restart. Ends when all of it has; a panic leaves it to who asks.
    Resume,
    /// Hearing what other replicas have learned, and keeping what they share alive. Runs until the process drains.
    Replicas,
    /// One client connection. Ends with the connection.
    Connection,
    /// One WebSocket. Ends with the socket.
    Stream,
    /// The loop that keeps an issuer's public keys fresh. Runs until the issuer is taken out, or the process drains.
    Keys,
    /// A listener. Runs until the process drains.
    Listener,
    /// The loop that looks at the certificate's files. Runs until the process drains.
    Certificate,
    /// The loop that tells a collector. Runs to the end of the process; a panic costs the spans that follow.
    Telemetry,
}

/// What the death of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// One piece of work is lost, and whoever waits for it is told.
    Contained,
    /// The process cannot do its job any more and ends, loudly.
    Fatal,
}

impl TaskKind {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Poll => "poll",
            Self::Poller => "poller",
            Self::Rotation => "rotation",
            Self::Resume => "resume",
            Self::Replicas => "replicas",
            Self::Connection => "connection",
            Self::Stream => "stream",
            Self::Keys => "keys",
            Self::Listener => "listener",
            Self::Certificate => "certificate",
            Self::Telemetry => "telemetry",
        }
    }

    /// What the death of such a task means.
    pub const fn on_panic(self) -> OnPanic {
        match self {
            Self::Fetch | Self::Poll | Self::Resume | Self::Connection | Self::Stream | Self::Telemetry => {
                OnPanic::Contained
            }
            Self::Poller
            | Self::Replicas
            | Self::Keys
            | Self::Rotation
            | Self::Listener
            | Self::Certificate => OnPanic::Fatal,
        }
    }
}

/// Starts tasks.
pub trait Spawner: Debug + Send + Sync {
    /// Starts a task. It runs to its end whoever stops waiting for it.
    fn spawn(&self, kind: TaskKind, task: BoxFuture<'static, ()>);
}
