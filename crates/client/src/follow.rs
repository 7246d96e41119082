//! Follows jobs of a gateway until they are terminal, across disconnects: reopens the stream for the jobs that are not
//! terminal, after a backoff with jitter that is never shorter than the pause that the gateway requests. After a
//! reconnect the gateway sends the current state, so a known state may be repeated: the reader removes duplicates.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::time::sleep;

use super::gateway::{FieldSet, GatewayClient, GatewayError, UpdateStream, WireRef, WireUpdate};

/// The ceiling of the first pause; each failure doubles it.
const BASE: Duration = Duration::from_secs(1);
/// The largest ceiling. A person is waiting: a gateway that recovers is found within it.
const CAP: Duration = Duration::from_secs(15);

/// An event while jobs are followed.
#[derive(Debug)]
pub(crate) enum FollowEvent {
    /// An update of a job.
    Update(Box<WireUpdate>),
    /// The stream could not be opened; the next attempt is after `pause`.
    Failed {
        /// The error.
        why: GatewayError,
        /// The time until the next attempt.
        pause: Duration,
    },
    /// No more events follow, though some jobs are not terminal.
    GaveUp(GatewayError),
}

struct FollowState {
    gateway: GatewayClient,
    /// The jobs that are not terminal.
    refs: Vec<WireRef>,
    max_staleness: Option<Duration>,
    set: FieldSet,
    jitter: fn() -> f64,
    updates: Option<UpdateStream>,
    /// Whether the stream has delivered an update.
    progressed: bool,
    failures: u32,
    pause: Option<Duration>,
    over: bool,
}

/// Follows 1 to `REFS_MAX` jobs. Ends when all of them are terminal, or after [`FollowEvent::GaveUp`]. `jitter` returns
/// a random number from 0 (included) to 1 (excluded).
///
/// Dropping it closes the stream.
pub(crate) fn follow(
    gateway: GatewayClient,
    refs: Vec<WireRef>,
    max_staleness: Option<Duration>,
    set: FieldSet,
    jitter: fn() -> f64,
) -> impl Stream<Item = FollowEvent> + Send + use<> {
    let begin = FollowState {
        gateway,
        refs,
        max_staleness,
        set,
        jitter,
        updates: None,
        progressed: false,
        failures: 0,
        pause: None,
        over: false,
    };
    stream::unfold(begin, FollowState::next)
}

impl FollowState {
    async fn next(mut self) -> Option<(FollowEvent, Self)> {
        while !self.refs.is_empty() && !self.over {
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            let event = match &mut self.updates {
                None => match self.gateway.updates(&self.refs, self.max_staleness, self.set).await {
                    Ok(updates) => {
                        self.updates = Some(updates);
                        self.progressed = false;
                        None
                    }
                    Err(error) => Some(self.failed(error)),
                },
                Some(updates) => match updates.next().await {
                    Ok(Some(update)) => Some(self.event_of(update)),
                    Ok(None) => {
                        self.cut(GatewayError::passing("the stream ended before all jobs were terminal"))
                    }
                    Err(error) => self.cut(error),
                },
            };
            if let Some(event) = event {
                return Some((event, self));
            }
        }
        None
    }

    fn event_of(&mut self, update: WireUpdate) -> FollowEvent {
        self.progressed = true;
        self.failures = 0;
        if update.is_final {
            self.refs.retain(|reference| !update.answer.concerns(reference));
        }
        FollowEvent::Update(Box::new(update))
    }

    /// A stream that was cut after it delivered an update is reopened without an event: the maximum age and restarts
    /// are not an error unless the next attempt to open a stream fails.
    fn cut(&mut self, error: GatewayError) -> Option<FollowEvent> {
        self.updates = None;
        if self.progressed && error.is_retryable() {
            self.pause = Some(self.wait(&error));
            return None;
        }
        Some(self.failed(error))
    }

    fn failed(&mut self, why: GatewayError) -> FollowEvent {
        self.updates = None;
        if !why.is_retryable() {
            self.over = true;
            return FollowEvent::GaveUp(why);
        }
        let pause = self.wait(&why);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(pause);
        FollowEvent::Failed { why, pause }
    }

    /// At least half of the ceiling, so that a low random value does not cause rapid retries; and never shorter than
    /// the gateway requests.
    fn wait(&self, error: &GatewayError) -> Duration {
        let unit = (self.jitter)();
        let ceiling = BASE.saturating_mul(2_u32.saturating_pow(self.failures)).min(CAP);
        let wait = ceiling.mul_f64(0.5 + unit / 2.0);
        error.retry_after().map_or(wait, |requested| wait.max(requested + BASE.mul_f64(unit)))
    }
}
