//! The log: one line per event on standard error, as text or JSON, filtered by directives that can change at run time.
//! Writing a line never blocks on standard error, and its content never breaks the line format. `docs/logs.md` lists
//! every event.

mod counters;
mod event;
mod last_reason;
mod level;
mod line;
mod repeats;
mod request;
mod writer;

use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::counters::{LogCounters, RecentEvents, counters};
pub use self::event::ACCESS;
use self::event::EventFormat;
pub use self::last_reason::LastReason;
pub use self::level::{BadDirectives, LogLevel, level, set_level, set_level_for};
use self::line::LineFormat;
pub use self::line::LogFormatKind;
pub use self::request::RequestScope;

/// How long the process waits on exit until the last lines are written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How often a temporary level and suppressed lines are checked for.
const TICK: Duration = Duration::from_secs(1);

/// The subscriber with the log, to which the layer of the traces is added. The filter of the log applies to the log only.
pub type Base = Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// The layer of the traces, which has its own filter.
pub type TraceLayer = Box<dyn Layer<Base> + Send + Sync>;

/// The running log. Dropping it waits a moment until the last lines are written.
#[derive(Debug)]
#[must_use = "the last lines are lost when the process ends before they are written"]
pub struct LogGuard(Option<WorkerGuard>);

/// Starts the log of this process, and its traces. A second start has no effect.
///
/// # Errors
/// When the directives are not valid.
pub fn start(
    format: LogFormatKind,
    directives: &str,
    traces: Option<TraceLayer>,
) -> Result<LogGuard, BadDirectives> {
    let ansi = format == LogFormatKind::Text && io::stderr().is_terminal();
    let (filter, handle) = level::filter(directives)?;
    let (mut writer, guard) = writer::start(io::stderr());
    let (events, dropped) = (EventFormat::new(LineFormat { kind: format, ansi }), writer.error_counter());
    let log: Box<dyn Layer<Registry> + Send + Sync> =
        Box::new(events.layer(writer.clone()).with_filter(filter));
    let base = tracing_subscriber::registry().with(log);
    // An absent layer is not added: with one, each disabled event would ask the filters.
    let started = match traces {
        Some(traces) => base.with(traces).try_init(),
        None => base.try_init(),
    };
    if started.is_err() {
        return Ok(LogGuard(None));
    }
    counters::set_dropped(dropped);
    level::install(handle, directives);
    let tick = move || loop {
        thread::sleep(TICK);
        let now = Instant::now();
        level::fall_back(now);
        events.report_suppressed(&mut writer, now);
    };
    thread::Builder::new().name("log-tick".to_owned()).spawn(tick).ok();
    std::panic::set_hook(Box::new(panicked));
    Ok(LogGuard(Some(guard)))
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else { return };
        // The guard may wait longer, and then prints, which blocks if the output is not read.
        let (ended, end) = mpsc::channel::<()>();
        let write_rest = move || {
            drop(guard);
            drop(ended);
        };
        if thread::Builder::new().name("log-end".to_owned()).spawn(write_rest).is_ok() {
            end.recv_timeout(LAST_LINES).ok();
        }
    }
}

/// The message of a panic is built from data and may contain what an upstream sent: the log gets only the location.
fn panicked(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(location, "panicked");
}

#[cfg(test)]
mod tests;
