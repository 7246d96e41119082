//! Follows jobs of a gateway to their ends, whatever happens to the connection: opens the stream again for those that have
//! not ended, after a pause that grows, with jitter, and never shorter than the gateway asks for. After a reconnect the
//! gateway tells how things stand, so what is known already may come again: leaving that out is the reader's part.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use tokio::time::sleep;

use super::{Gateway, Ref, Trouble, Update, Updates};
use crate::domain::schedule::Backoff;
use crate::ports::entropy::Entropy;

/// A person is waiting: a gateway that is back is found within the cap.
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(15) };
/// Far enough that a further doubling of the pause changes nothing.
const FAILURES_MAX: u32 = 16;

/// What is heard while following.
#[derive(Debug)]
pub enum News {
    /// Something about a job.
    Told(Box<Update>),
    /// The stream could not be opened, and will be tried again after `pause`.
    Trouble {
        /// Why.
        why: Trouble,
        /// How long until the next try.
        pause: Duration,
    },
    /// Nothing more will be heard, though jobs have not ended.
    GaveUp(Trouble),
}

struct Follow {
    gateway: Gateway,
    /// Those that have not ended.
    refs: Vec<Ref>,
    max_staleness: Option<Duration>,
    entropy: Arc<dyn Entropy>,
    updates: Option<Updates>,
    /// Whether the stream has told anything.
    fruitful: bool,
    failures: u32,
    pause: Option<Duration>,
    over: bool,
}

/// Follows 1 to [`super::REFS_MAX`] jobs. Ends when each of them has, or after [`News::GaveUp`].
///
/// Dropping it closes the stream.
pub fn follow(
    gateway: Gateway,
    refs: Vec<Ref>,
    max_staleness: Option<Duration>,
    entropy: Arc<dyn Entropy>,
) -> impl Stream<Item = News> + Send + use<> {
    let begin = Follow {
        gateway,
        refs,
        max_staleness,
        entropy,
        updates: None,
        fruitful: false,
        failures: 0,
        pause: None,
        over: false,
    };
    stream::unfold(begin, Follow::next)
}

impl Follow {
    async fn next(mut self) -> Option<(News, Self)> {
        while !self.refs.is_empty() && !self.over {
            if let Some(pause) = self.pause.take() {
                sleep(pause).await;
            }
            let news = match &mut self.updates {
                None => match self.gateway.updates(&self.refs, self.max_staleness).await {
                    Ok(updates) => {
                        self.updates = Some(updates);
                        self.fruitful = false;
                        None
                    }
                    Err(trouble) => Some(self.failed(trouble)),
                },
                Some(updates) => match updates.next().await {
                    Ok(Some(update)) => Some(self.told(update)),
                    Ok(None) => self.cut(Trouble::passing("the stream ended before all jobs were terminal")),
                    Err(trouble) => self.cut(trouble),
                },
            };
            if let Some(news) = news {
                return Some((news, self));
            }
        }
        None
    }

    fn told(&mut self, update: Update) -> News {
        self.fruitful = true;
        self.failures = 0;
        if update.is_final {
            self.refs.retain(|reference| !update.answer.concerns(reference));
        }
        News::Told(Box::new(update))
    }

    /// A stream that was cut after it told something is opened again without a word: old age and restarts are no trouble
    /// unless the next one cannot be opened.
    fn cut(&mut self, trouble: Trouble) -> Option<News> {
        self.updates = None;
        if self.fruitful && trouble.heals() {
            self.pause = Some(self.wait(&trouble));
            return None;
        }
        Some(self.failed(trouble))
    }

    fn failed(&mut self, why: Trouble) -> News {
        self.updates = None;
        if !why.heals() {
            self.over = true;
            return News::GaveUp(why);
        }
        let pause = self.wait(&why);
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        self.pause = Some(pause);
        News::Trouble { why, pause }
    }

    /// At least half of the ceiling, so that a low draw does not hammer; and never before the gateway wants to be asked.
    fn wait(&self, trouble: &Trouble) -> Duration {
        let unit = self.entropy.unit();
        let wait = BACKOFF.wait(self.failures, 0.5 + unit / 2.0);
        trouble.retry_after().map_or(wait, |asked| wait.max(asked + BACKOFF.base.mul_f64(unit)))
    }
}
