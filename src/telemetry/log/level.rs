//! What is logged, and how that changes while the process runs: for good, or for a while.

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

use super::layer::REQUEST;
use crate::config::log_directives;

/// Directives that cannot be read. Says what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log level {0}")]
pub struct BadDirectives(&'static str);

/// What is logged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    /// What holds until something else is set.
    pub lasting: String,
    /// What holds for a while instead, and how much longer.
    pub for_now: Option<(String, Duration)>,
}

impl LogLevel {
    /// What is in force.
    pub fn in_force(&self) -> &str {
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

/// The filter of the log, and what changes it. The span that names a request passes whatever is logged, so that an error
/// tells which request it befell.
pub(super) fn filter(
    directives: &str,
) -> Result<(impl Filter<Registry> + use<>, Handle<EnvFilter, Registry>), BadDirectives> {
    let (filter, handle) = reload::Layer::new(log_directives(directives).map_err(BadDirectives)?);
    let request = |seen: &Metadata<'_>| seen.is_span() && seen.target() == REQUEST;
    Ok((filter.or(filter_fn(request).with_max_level_hint(LevelFilter::INFO)), handle))
}

pub(super) fn install(handle: Handle<EnvFilter, Registry>, directives: &str) {
    let mut state = lock();
    state.handle = Some(handle);
    directives.clone_into(&mut state.lasting);
}

/// Sets what is logged, in the words of `telemetry.log_level`. What was set for a while ends.
///
/// # Errors
/// When the directives cannot be read; nothing is changed then.
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

/// The same at once and for a while: then what [`set_level`] or the configuration set last is in force again.
///
/// # Errors
/// When the directives cannot be read; nothing is changed then.
pub fn set_level_for(directives: &str, time: Duration) -> Result<(), BadDirectives> {
    let filter = log_directives(directives).map_err(BadDirectives)?;
    let mut state = lock();
    state.for_now = Some((directives.to_owned(), Instant::now() + time));
    state.put(filter);
    drop(state);
    tracing::info!(log_level = directives, seconds = time.as_secs(), "log level set temporarily");
    Ok(())
}

/// What is logged now.
pub fn level() -> LogLevel {
    let state = lock();
    let left = |(directives, until): &(String, Instant)| {
        (directives.clone(), until.saturating_duration_since(Instant::now()))
    };
    LogLevel { lasting: state.lasting.clone(), for_now: state.for_now.as_ref().map(left) }
}

/// Puts what lasts back in force, once the while is over.
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
    /// Before the log is started there is no filter, and what is set is only remembered.
    fn put(&self, filter: EnvFilter) {
        if let Some(handle) = &self.handle {
            handle.reload(filter).ok();
        }
    }
}
