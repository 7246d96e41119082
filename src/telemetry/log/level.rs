//! The log level, and its changes at run time: permanent or temporary.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};

use crate::config::log_directives;
use crate::telemetry::trace::TARGET;

/// Directives that are not valid. The message contains valid ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log level {0}")]
pub struct BadDirectives(&'static str);

/// The present log level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    /// The permanent directives.
    pub lasting: String,
    /// The temporary directives that replace them, and their remaining time.
    pub for_now: Option<(String, Duration)>,
}

impl LogLevel {
    /// The active directives.
    pub fn active(&self) -> &str {
        self.for_now.as_ref().map_or(&self.lasting, |(directives, _)| directives)
    }
}

#[derive(Default)]
struct LevelState {
    handle: Option<Handle<EnvFilter, Registry>>,
    lasting: String,
    for_now: Option<(String, Instant)>,
}

static STATE: LazyLock<Mutex<LevelState>> = LazyLock::new(Mutex::default);

fn lock() -> MutexGuard<'static, LevelState> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The filter of the log, and the handle that changes it. The spans of the traces are not the log's: without a collector
/// none is created, whatever the level.
pub(super) fn filter(
    directives: &str,
) -> Result<(impl Filter<Registry> + use<>, Handle<EnvFilter, Registry>), BadDirectives> {
    let (filter, handle) = reload::Layer::new(log_directives(directives).map_err(BadDirectives)?);
    let of_log = |seen: &Metadata<'_>| !(seen.is_span() && seen.target() == TARGET);
    Ok((filter.and(filter_fn(of_log).with_max_level_hint(LevelFilter::TRACE)), handle))
}

pub(super) fn install(handle: Handle<EnvFilter, Registry>, directives: &str) {
    let mut state = lock();
    state.handle = Some(handle);
    directives.clone_into(&mut state.lasting);
}

/// Sets the log level, in the notation of `telemetry.log_level`. A temporary level ends.
///
/// # Errors
/// When the directives are not valid; nothing is changed then.
pub fn set_level(directives: &str) -> Result<(), BadDirectives> {
    let filter = log_directives(directives).map_err(BadDirectives)?;
    let mut state = lock();
    directives.clone_into(&mut state.lasting);
    state.for_now = None;
    state.put(filter);
    drop(state);
    tracing::info!(log_level = directives, "log level set");
    Ok(())
}

/// The same for a limited time: afterwards the level last set by [`set_level`] or the configuration is active again.
///
/// # Errors
/// When the directives are not valid; nothing is changed then.
pub fn set_level_for(directives: &str, time: Duration) -> Result<(), BadDirectives> {
    let filter = log_directives(directives).map_err(BadDirectives)?;
    let mut state = lock();
    state.for_now = Some((directives.to_owned(), Instant::now() + time));
    state.put(filter);
    drop(state);
    tracing::info!(log_level = directives, seconds = time.as_secs(), "log level set temporarily");
    Ok(())
}

/// The present log level.
pub fn level() -> LogLevel {
    let state = lock();
    let left = |(directives, until): &(String, Instant)| {
        (directives.clone(), until.saturating_duration_since(Instant::now()))
    };
    LogLevel { lasting: state.lasting.clone(), for_now: state.for_now.as_ref().map(left) }
}

/// Restores the permanent level after the temporary one has ended.
pub(super) fn fall_back(now: Instant) {
    let mut state = lock();
    if state.for_now.as_ref().is_none_or(|(_, until)| *until > now) {
        return;
    }
    state.for_now = None;
    let lasting = state.lasting.clone();
    if let Ok(filter) = log_directives(&lasting) {
        state.put(filter);
    }
    drop(state);
    tracing::info!(log_level = lasting, "log level restored");
}

impl LevelState {
    /// Before the log is started there is no filter, and the level is only stored.
    fn put(&self, filter: EnvFilter) {
        if let Some(handle) = &self.handle {
            handle.reload(filter).ok();
        }
    }
}
