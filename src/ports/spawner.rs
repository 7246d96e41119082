//! The only way to start a task: named, with the request of its log lines, and with a policy for a panic.

use std::fmt::Debug;

use super::BoxFuture;

/// A kind of task. A new member needs its row in [`TaskKind::on_panic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// One shared fetch. Ends by itself; if it panics, the fetch is lost, and its joiners are notified.
    Fetch,
    /// One list that reads the whole store. Ends by itself; if it panics, its caller receives an error.
    List,
    /// One poll of followed jobs. Ends by itself; if it panics, its jobs are polled again later.
    Poll,
    /// The loop that polls followed jobs. Runs until the process drains.
    Poller,
    /// The loop that lists what changed at the sources. Runs until the process drains.
    Sweeper,
    /// Reloads the credential of one source. Runs until the process drains.
    Rotation,
    /// Resumes the jobs that were followed before a restart. Ends when all of them are terminal; after a panic they are
    /// followed again only on request.
    Resume,
    /// Receives changes of other replicas and renews what they share. Runs until the process drains.
    Replicas,
    /// One client connection. Ends with the connection.
    Connection,
    /// One WebSocket. Ends with the socket.
    Stream,
    /// The loop that refreshes an issuer's public keys. Runs until the issuer is removed, or the process drains.
    Keys,
    /// A listener. Runs until the process drains.
    Listener,
    /// The loop that reloads the certificate's files. Runs until the process drains.
    Certificate,
    /// The loop that exports to a collector. Runs until the process exits; a panic loses the spans that follow.
    Telemetry,
}

/// What a panic of a task means for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPanic {
    /// One piece of work is lost, and its waiters receive an error.
    Contained,
    /// The process cannot work any more and exits with an error.
    Fatal,
}

impl TaskKind {
    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::List => "list",
            Self::Poll => "poll",
            Self::Poller => "poller",
            Self::Sweeper => "sweeper",
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

    /// What a panic of such a task means.
    pub const fn on_panic(self) -> OnPanic {
        match self {
            Self::Fetch
            | Self::List
            | Self::Poll
            | Self::Resume
            | Self::Connection
            | Self::Stream
            | Self::Telemetry => OnPanic::Contained,
            Self::Poller
            | Self::Sweeper
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
    /// Starts a task. It runs to completion even if no caller waits for it any more. It continues the trace of the context
    /// that it holds, and no other.
    fn spawn(&self, kind: TaskKind, task: BoxFuture<'static, ()>);
}
