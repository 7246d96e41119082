//! The connection to Redis: one connection at a time, a timeout for every command, and a circuit breaker, so that no
//! caller waits long for a server that is unavailable, slow or hung. It recovers automatically: from time to time the
//! breaker permits the heartbeat as a probe, and no other command.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::scripts::{RedisScript, RedisScripts};
use super::stats::{RedisStats, add};
use super::topology::{Topology, TopologyConnection};
use super::unavailable::Unavailable;
use crate::domain::schedule::{Backoff, Breaker, BreakerDecision};
use crate::ports::shared_store::SharedStoreHealth;
use crate::telemetry::meters;

/// Consecutive failures until the breaker opens, and how long it stays open: with the timeout of a command it opens
/// within a second, and is probed at least every two.
const THRESHOLD: u32 = 2;
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(250), cap: Duration::from_secs(2) };

/// A timeout that fires later than this after its deadline means that this process was stopped or starved.
const LATE: Duration = Duration::from_millis(100);

/// The result of one command: `Err` for a timeout, each with the number of the connection.
type CommandResult = Result<Result<Value, (RedisError, u64)>, u64>;

/// The connection to Redis. Shared by all parts of the shared store.
#[derive(Debug)]
pub(super) struct RedisConnection {
    pub(super) topology: Topology,
    pub(super) scripts: RedisScripts,
    pub(super) counts: RedisStats,
    timeout: Duration,
    began: Instant,
    breaker: Mutex<Breaker>,
    /// The start of the current outage, if there is one.
    away_since: Mutex<Option<Instant>>,
    /// The connection in use, if there is one.
    open: Mutex<OpenConnection>,
    /// Locked while a connection is opened: the others wait for its result, within their own timeout.
    connecting: AsyncMutex<()>,
}

#[derive(Default)]
struct OpenConnection {
    connection: Option<TopologyConnection>,
    /// Counts connections, so that an error closes only the connection on which it occurred.
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

    /// The failed commands since the start: an increase means that there was an outage, however short.
    pub(super) fn faults(&self) -> u64 {
        self.counts.faults.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Returns whether the breaker is open.
    pub(super) fn is_open(&self) -> bool {
        self.breaker().is_open()
    }

    /// The state of the connection to Redis, and the commands that were sent.
    pub(super) fn health(&self) -> SharedStoreHealth {
        let connected = self.open().connection.is_some();
        let unavailable_for = self.unavailable_since().map(|since| since.elapsed());
        let failovers = self.topology.failovers();
        SharedStoreHealth { connected, unavailable_for, failovers, ..self.counts.health() }
    }

    /// The timeout of one command.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs one command. If the future is dropped, Redis may still run it.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Unavailable> {
        let command_probe = self.enter()?;
        let value = self.within(command, command_probe).await?;
        redis::from_redis_value(value).map_err(|error| Unavailable::Failed(error.to_string()))
    }

    /// Runs a script, and sends its text if Redis does not know it yet.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &RedisScript,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, Unavailable> {
        self.run_in(self.enter()?, script, keys, arguments).await
    }

    /// Runs a script as the probe of the breaker. No other command waits for an unavailable server.
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

    /// Connects if necessary, and sends, all within the timeout. `Err` for a timeout on this connection.
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
            // So late that this process was stopped: the timeout is no evidence about Redis.
            Err(_) if command_probe.began.elapsed() > command_probe.connection.timeout * 2 + LATE => {
                command_probe.failed();
                return Err(Unavailable::Slow);
            }
            Err(_) => {
                command_probe.failed();
                Unavailable::Slow
            }
            Ok(Err((error, _))) => {
                // Only the server's error code: the text beside it may repeat what was sent.
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

    /// Closes the connection on which an error occurred, unless it has been replaced already.
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

/// Reports the outcome of one command to the breaker. A dropped command reports nothing.
struct CommandProbe<'a> {
    connection: &'a RedisConnection,
    /// It is the breaker's probe.
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
        // Commands that were running when it opened must not extend the time.
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

/// Returns whether an error means that this server, or the connection to it, is unusable now. Other errors concern one
/// command.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "another crate's enum, which grows: all other kinds are connection errors"
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
