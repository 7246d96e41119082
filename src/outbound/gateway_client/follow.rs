//! Follows jobs of a gateway to their ends, whatever happens to the connection: opens the stream again for those that have
//! not ended, after a pause that grows, with jitter, and never shorter than the gateway asks for. After a reconnect the
//! gateway tells how things stand, so what is known already may come again: leaving that out is the reader's part.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::time::sleep;

use super::{GatewayClient, GatewayError, UpdateStream, WireRef, WireUpdate};
use crate::domain::schedule::Backoff;
use crate::ports::entropy::Entropy;

/// A person is waiting: a gateway that is back is found within the cap.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(15) };
/// Far enough that a further doubling of the pause changes nothing.
const FAILURES_MAX: u32 = 16;

/// What is heard while following.
#[derive(Debug)]
pub enum FollowEvent {
    /// Something about a job.
    Update(Box<WireUpdate>),
    /// The stream could not be opened, and will be tried again after `pause`.
    Trouble {
        /// Why.
        why: GatewayError,
        /// How long until the next try.
        pause: Duration,
    },
    /// Nothing more will be heard, though jobs have not ended.
    GaveUp(GatewayError),
}

struct FollowState {
    gateway: GatewayClient,
    /// Those that have not ended.
    refs: Vec<WireRef>,
    max_staleness: Option<Duration>,
    entropy: Arc<dyn Entropy>,
    updates: Option<UpdateStream>,
    /// Whether the stream has told anything.
    progressed: bool,
    failures: u32,
    pause: Option<Duration>,
    over: bool,
}

/// Follows 1 to [`super::REFS_MAX`] jobs. Ends when each of them has, or after [`FollowEvent::GaveUp`].
///
/// Dropping it closes the stream.
pub fn follow(
    gateway: GatewayClient,
    refs: Vec<WireRef>,
    max_staleness: Option<Duration>,
    entropy: Arc<dyn Entropy>,
) -> impl Stream<Item = FollowEvent> + Send + use<> {
    let begin = FollowState {
        gateway,
        refs,
        max_staleness,
        entropy,
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
                None => match self.gateway.updates(&self.refs, self.max_staleness).await {
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

    /// A stream that was cut after it told something is opened again without a word: old age and restarts are no trouble
    /// unless the next one cannot be opened.
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
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        self.pause = Some(pause);
        FollowEvent::Trouble { why, pause }
    }

    /// At least half of the ceiling, so that a low draw does not hammer; and never before the gateway wants to be asked.
    fn wait(&self, error: &GatewayError) -> Duration {
        let unit = self.entropy.unit();
        let wait = BACKOFF.wait(self.failures, 0.5 + unit / 2.0);
        error.retry_after().map_or(wait, |requested| wait.max(requested + BACKOFF.base.mul_f64(unit)))
    }
}
