//! The log: one line per event on standard error, as text or JSON, filtered by directives that can change at run time.
//! Writing a line never blocks on standard error, and its content never breaks the line format. `docs/logs.md` lists
//! every event.

mod counters;
mod last_reason;
mod layer;
mod level;
mod line;
mod request;
mod throttle;
mod writer;

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing_subscriber::layer::{Layer, Layered, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::counters::{LogCounters, RecentEvents, counters};
pub use self::last_reason::LastReason;
pub use self::layer::ACCESS;
use self::layer::LogLayer;
pub use self::level::{BadDirectives, LogLevel, level, set_level, set_level_for};
pub use self::line::LogFormatKind;
pub use self::request::RequestScope;
use self::writer::LogWriter;

/// How long the process waits on exit until the last lines are written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The subscriber with the log, to which the layer of the traces is added. The filter of the log applies to the log only.
pub type Base = Layered<Box<dyn Layer<Registry> + Send + Sync>, Registry>;

/// The layer of the traces, which has its own filter.
pub type TraceLayer = Box<dyn Layer<Base> + Send + Sync>;

/// The running log. Dropping it waits a moment until the last lines are written.
#[derive(Debug)]
#[must_use = "the last lines are lost when the process ends before they are written"]
pub struct LogGuard(Option<LogWriter>);

/// Starts the log of this process, and its traces. A second start has no effect.
///
/// # Errors
/// When the directives are not valid.
pub fn start(
    format: LogFormatKind,
    directives: &str,
    traces: Option<TraceLayer>,
) -> Result<LogGuard, BadDirectives> {
    let ansi = format == LogFormatKind::Text && std::io::stderr().is_terminal();
    let (filter, handle) = level::filter(directives)?;
    let Ok(writer) = LogWriter::start(std::io::stderr()) else { return Ok(LogGuard(None)) };
    let log = LogLayer::new(format, ansi, writer.clone());
    let suppressed = log.repeats();
    let log: Box<dyn Layer<Registry> + Send + Sync> = Box::new(log.with_filter(filter));
    let base = tracing_subscriber::registry().with(log);
    // An absent layer is not added: with one, each disabled event would ask the filters.
    let started = match traces {
        Some(traces) => base.with(traces).try_init(),
        None => base.try_init(),
    };
    if started.is_err() {
        writer.end(Duration::ZERO);
        return Ok(LogGuard(None));
    }
    level::install(handle, directives);
    writer.each_second(move |now| {
        level::fall_back(now);
        suppressed.say(now);
    });
    std::panic::set_hook(Box::new(panicked));
    Ok(LogGuard(Some(writer)))
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if let Some(writer) = &self.0 {
            writer.end(LAST_LINES);
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
