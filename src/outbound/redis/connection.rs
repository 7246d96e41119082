//! The way to Redis: one connection at a time, a limit on every command, and a breaker, so that nobody waits long for one
//! that is gone, slow or hung. Heals by itself: from time to time the breaker lets the beat try, and nobody else.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::scripts::{RedisScript, RedisScripts};
use super::stats::{RedisStats, add};
use super::topology::{Topology, TopologyConnection};
use crate::domain::schedule::{Backoff, Breaker, BreakerDecision};
use crate::ports::shared_store::SharedStoreHealth;
use crate::telemetry::meters;

/// Failures in a row until nobody asks any more, and how long that lasts: with the limit of a command this opens within a
/// second, and is tried again at least every two.
const THRESHOLD: u32 = 2;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(2) };

/// A limit that is noticed so much later than it was reached was noticed by a process that was stopped, or had no air.
const LATE: Duration = Duration::from_millis(100);

/// Redis did not do it, for all we know. It may have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unavailable {
    /// It is left alone, because it failed a moment ago.
    #[error("redis failed a moment ago and is left alone")]
    Left,
    /// It did not answer in time.
    #[error("redis did not answer in time")]
    Slow,
    /// It cannot be reached, is not the one that takes writes, or refuses the command.
    #[error("redis: {0}")]
    Failed(String),
}

/// What came of one command: `Err` for a limit that was reached, each with the number of the connection.
type CommandResult = Result<Result<Value, (RedisError, u64)>, u64>;

/// The way to Redis. Shared by all parts of the tier.
#[derive(Debug)]
pub(super) struct RedisConnection {
    pub(super) topology: Topology,
    pub(super) scripts: RedisScripts,
    pub(super) counts: RedisStats,
    timeout: Duration,
    began: Instant,
    breaker: Mutex<Breaker>,
    /// Since when Redis is left alone, if it is.
    away_since: Mutex<Option<Instant>>,
    /// The connection in use, if there is one.
    open: Mutex<OpenConnection>,
    /// Held by whoever connects: the others wait for what comes of it, and no longer than they may.
    connecting: AsyncMutex<()>,
}

#[derive(Default)]
struct OpenConnection {
    connection: Option<TopologyConnection>,
    /// Counts connections, so that whoever met a fault closes the one it met it on.
    number: u64,
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open(number {}, {})", self.number, self.connection.is_some())
    }
}

impl RedisConnection {
    pub(super) fn new(topology: Topology, timeout: Duration) -> Self {
        Self {
            topology,
            scripts: RedisScripts::default(),
            counts: RedisStats::default(),
            timeout,
            began: Instant::now(),
            breaker: Mutex::new(Breaker::new(THRESHOLD, BACKOFF)),
            away_since: Mutex::default(),
            open: Mutex::default(),
            connecting: AsyncMutex::default(),
        }
    }

    /// How many commands have failed since the start: more than before means that there was an outage, however short.
    pub(super) fn faults(&self) -> u64 {
        self.counts.faults.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Says whether Redis is left alone just now.
    pub(super) fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// How the way to Redis is, and what was sent on it.
    pub(super) fn health(&self) -> SharedStoreHealth {
        let connected = self.open().connection.is_some();
        let unavailable_for = self.unavailable_since().map(|since| since.elapsed());
        let failovers = self.topology.failovers();
        SharedStoreHealth { connected, unavailable_for, failovers, ..self.counts.health() }
    }

    /// How long one command may take.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks one command. Dropping the future leaves it undecided whether Redis does it.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let command_probe = self.enter()?;
        let value = self.within(command, command_probe).await?;
        redis::from_redis_value(value).map_err(|error| Unavailable::Failed(error.to_string()))
    }

    /// Runs a script, sending its text where Redis does not know it yet.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &RedisScript,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, Unavailable> {
        self.run_in(self.enter()?, script, keys, arguments).await
    }

    /// Runs a script as the one command that finds out whether Redis is back. Nobody else waits for one that is not.
    pub(super) async fn probe<T: FromRedisValue>(
        &self,
        script: &RedisScript,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, Unavailable> {
        let command_probe = match self.breaker().enter(self.began.elapsed()) {
            passage @ (BreakerDecision::Open | BreakerDecision::Try) => {
                CommandProbe::new(self, passage == BreakerDecision::Try)
            }
            BreakerDecision::Refused(_) => return Err(Unavailable::Left),
        };
        self.run_in(command_probe, script, keys, arguments).await
    }

    async fn run_in<T: FromRedisValue>(
        &self,
        command_probe: CommandProbe<'_>,
        script: &RedisScript,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, Unavailable> {
        let by = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys);
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        let outcome = self.attempt(&by("EVALSHA", &script.hash)).await;
        let unknown = matches!(&outcome, Ok(Err((error, _)))
            if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript));
        let value = if unknown {
            self.within(&by("EVAL", script.code), command_probe).await?
        } else {
            Self::classify(outcome, command_probe)?
        };
        redis::from_redis_value(value).map_err(|error| Unavailable::Failed(error.to_string()))
    }

    async fn within(&self, command: &Cmd, command_probe: CommandProbe<'_>) -> Result<Value, Unavailable> {
        let outcome = self.attempt(command).await;
        Self::classify(outcome, command_probe)
    }

    /// Connects if need be, and sends, all within the limit. `Err` for a limit that was reached on this connection.
    async fn attempt(&self, command: &Cmd) -> CommandResult {
        let began = Instant::now();
        let deadline = began + self.timeout;
        let mut number = 0;
        let send = async {
            let connected = self.connected().await;
            let (mut connection, its) = connected.map_err(|error| (error, 0))?;
            number = its;
            connection.send(command).await.map_err(|error| (error, its))
        };
        let outcome = tokio::time::timeout_at(deadline, send).await;
        let outcome = outcome.map_err(|_| number);
        match &outcome {
            Err(met) => self.close(*met),
            Ok(Err((error, met))) if is_connection_failure(error) => self.close(*met),
            Ok(_) => {}
        }
        let came = match &outcome {
            Ok(Ok(_)) => "ok",
            Ok(Err((error, _))) if !is_connection_failure(error) => "rejected",
            Ok(Err(_)) => "failed",
            Err(_) => "timed_out",
        };
        meters::redis_command(came, Some(began.elapsed()));
        outcome
    }

    fn classify(outcome: CommandResult, command_probe: CommandProbe<'_>) -> Result<Value, Unavailable> {
        let away = match outcome {
            Ok(Ok(value)) => {
                command_probe.ended(None);
                return Ok(value);
            }
            // So late that it was this process which stood still: that says nothing of Redis.
            Err(_) if command_probe.began.elapsed() > command_probe.connection.timeout * 2 + LATE => {
                command_probe.failed();
                return Err(Unavailable::Slow);
            }
            Err(_) => {
                command_probe.failed();
                Unavailable::Slow
            }
            Ok(Err((error, _))) => {
                // A server's code alone: the text beside it may repeat what was sent.
                let description = if error.is_io_error() {
                    error.to_string()
                } else {
                    error.code().map_or_else(|| error.category().to_owned(), ToOwned::to_owned)
                };
                let away = Unavailable::Failed(description);
                command_probe.failed();
                if !is_connection_failure(&error) {
                    command_probe.ended(None);
                    return Err(away);
                }
                away
            }
        };
        command_probe.ended(Some(&away));
        Err(away)
    }

    async fn connected(&self) -> Result<(TopologyConnection, u64), RedisError> {
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let connecting = self.connecting.lock().await;
        if let Some(connected) = self.current() {
            return Ok(connected);
        }
        let connection = self.topology.connect().await?;
        let number = {
            let mut open = self.open();
            open.connection = Some(connection.clone());
            add(&self.counts.connections);
            open.number += 1;
            open.number
        };
        drop(connecting);
        Ok((connection, number))
    }

    fn current(&self) -> Option<(TopologyConnection, u64)> {
        let open = self.open();
        open.connection.clone().map(|connection| (connection, open.number))
    }

    /// Lets go of the connection on which a fault was met, unless it is another one by now.
    fn close(&self, number: u64) {
        let mut open = self.open();
        if open.number == number {
            open.connection = None;
        }
    }

    fn open(&self) -> MutexGuard<'_, OpenConnection> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<CommandProbe<'_>, Unavailable> {
        if self.breaker().is_open() {
            meters::redis_command("skipped", None);
            Err(Unavailable::Left)
        } else {
            Ok(CommandProbe::new(self, false))
        }
    }

    fn unavailable_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the breaker is to hear of one command. One that is dropped tells nothing.
struct CommandProbe<'a> {
    connection: &'a RedisConnection,
    /// It is the breaker's one try.
    decides: bool,
    ended: bool,
    began: Instant,
}

impl<'a> CommandProbe<'a> {
    fn new(connection: &'a RedisConnection, decides: bool) -> Self {
        Self { connection, decides, ended: false, began: Instant::now() }
    }

    fn failed(&self) {
        add(&self.connection.counts.faults);
    }

    fn ended(mut self, unavailable: Option<&Unavailable>) {
        self.ended = true;
        let mut breaker = self.connection.breaker();
        let was_open = breaker.is_open();
        let Some(reason) = unavailable else {
            breaker.succeeded();
            if was_open {
                *self.connection.unavailable_since() = None;
                tracing::info!("redis available again");
            }
            return;
        };
        // Commands that were under way when it opened must not lengthen the opening.
        if self.decides || !was_open {
            breaker.failed(self.connection.began.elapsed(), fastrand::f64());
        }
        if !was_open && breaker.is_open() {
            *self.connection.unavailable_since() = Some(Instant::now());
            tracing::warn!(%reason, "redis unavailable; running standalone");
        }
    }
}

impl Drop for CommandProbe<'_> {
    fn drop(&mut self) {
        if !self.ended && self.decides {
            self.connection.breaker().abandoned();
        }
    }
}

/// Whether an error says that this server, or the way to it, is of no use now. Other errors are about one command.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enum, which grows: all but these is about the way"
)]
fn is_connection_failure(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain
        ),
        ErrorKind::UnexpectedReturnType | ErrorKind::Extension => false,
        _ => true,
    }
}
