//! One source: the road, the gate and the credential together, and the loop that tries again.
//!
//! The adapters say what to ask and judge what came back; everything that is the same for all upstreams is here.

mod answers;
mod conclude;
mod reason;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::answers::{About, Answers};
use self::conclude::Concluded;
use super::gate::{Gate, Limits, Permit, Refusal};
use super::http::{BaseUrl, Call, HttpRoad, Mask, Reply, SendError};
use super::redis::Tier;
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::schedule::Backoff;
use crate::domain::source::{CredentialState, CredentialStatus, SourceHealth, SourceStatus, Upstream};
use crate::ports::clock::Clock;
use crate::ports::credentials::{Credential, Credentials};
use crate::ports::entropy::Entropy;
use crate::ports::upstream::{Asker, Detail, LookError, PollDemand, PollPacing};
use crate::telemetry::meters;
use crate::telemetry::trace;

/// Further tries after the first.
pub(super) const RETRIES: u32 = 2;
/// The pause between tries, with full jitter: a status call has seconds, not minutes.
const BETWEEN_TRIES: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// A try with less time than this is not made: it would look like a fault of the upstream.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// What the operator says about one source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name.
    pub name: SourceName,
    /// Where it lives.
    pub base_url: BaseUrl,
    /// Calls in any second.
    pub per_second: u32,
    /// Calls in any hour.
    pub per_hour: u32,
    /// The part of the hour's calls that is kept for callers, in percent.
    pub caller_share: u32,
    /// Calls at the same time.
    pub concurrency: u32,
    /// How long a call may wait for its turn.
    pub max_wait: Duration,
    /// How long a status call may take in all: waiting for its turn, every try and the pauses between them.
    pub status_timeout: Duration,
    /// The same for a page of rows.
    pub rows_timeout: Duration,
    /// The largest decoded body of a status call, in bytes.
    pub max_status_body: usize,
    /// The largest decoded body of a page of rows, in bytes.
    pub max_rows_body: usize,
    /// Whether it is told which trace a call belongs to.
    pub propagate_trace: bool,
}

impl SourceSettings {
    const fn limits(&self) -> Limits {
        Limits {
            per_second: self.per_second,
            per_hour: self.per_hour,
            caller_share: self.caller_share,
            concurrency: self.concurrency,
            max_wait: self.max_wait,
        }
    }
}

/// What the world lends to every source.
#[derive(Clone, Debug)]
pub struct Means {
    /// The client; a source whose calls leave another way has its own.
    pub road: Arc<HttpRoad>,
    /// The secrets.
    pub credentials: Arc<dyn Credentials>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Chance, for jitter.
    pub entropy: Arc<dyn Entropy>,
    /// What replicas share, where there are several.
    pub tier: Option<Tier>,
}

/// What an adapter makes of a reply.
#[derive(Debug)]
pub(super) enum Verdict<T> {
    /// The upstream spoke, and this is what it said; asking again would bring the same.
    Spoke(Result<T, LookError>),
    /// It refuses our credential, for every call.
    Rejected,
    /// It asks for a pause, for every call.
    Throttled(Duration),
    /// It is not well; asking again may help.
    Sick(Detail),
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// The answer was larger than the call's cap. Holds its head, which may say enough.
    TooLarge {
        /// The cap.
        cap: usize,
        /// The answer with the head of its body.
        head: Box<Reply>,
    },
    /// Any other reason.
    Look(LookError),
}

impl From<AskError> for LookError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::TooLarge { cap, head: _ } => {
                Self::BadAnswer(Detail::new(format!("the response exceeds {cap} bytes")))
            }
            AskError::Look(error) => error,
        }
    }
}

impl From<Refusal> for LookError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Throttled(retry_after) => Self::Throttled { retry_after },
            Refusal::Rejected => Self::CredentialRejected,
            Refusal::Broken(wait) => Self::Unavailable(Detail::new(format!(
                "circuit breaker open; no calls for {} ms",
                wait.as_millis()
            ))),
        }
    }
}

/// An answer, or the lack of one, and the times it lies between.
#[derive(Debug)]
pub(super) struct Told<T> {
    /// When the last try left us; when it was given up, if none did.
    pub(super) asked_at: Timestamp,
    /// The same for comparisons within this process.
    pub(super) sent: Instant,
    /// When the answer was complete, or given up on.
    pub(super) observed_at: Timestamp,
    /// What was learned.
    pub(super) outcome: Result<T, AskError>,
}

/// What was used up of a source, and how it did: outlives its settings, which can change while it is asked.
#[derive(Clone, Debug)]
pub struct Account {
    gate: Arc<Gate>,
    /// The credential that was refused last, to notice that it has been changed, and since when it is.
    refused: Arc<Mutex<Option<(Credential, Timestamp)>>>,
    answers: Arc<Answers>,
}

impl Account {
    /// One of which nothing was used up, shared with other replicas where there is a tier.
    pub fn new(settings: &SourceSettings, tier: Option<&Tier>) -> Self {
        let shared = tier.map(|tier| tier.budget(&settings.name));
        Self {
            gate: Gate::new(settings.name.clone(), settings.limits(), shared),
            refused: Arc::default(),
            answers: Arc::default(),
        }
    }

    /// Holds to these limits from now on. What was used up stays used up.
    pub fn hold_to(&self, settings: &SourceSettings) {
        self.gate.set_limits(settings.limits());
    }

    /// Forgets failures and refusals, because another place is asked, or with another credential.
    pub fn forget_the_place(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.gate.forget_the_place();
        self.answers.forget();
    }
}

/// One source, ready to be asked.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    upstream: Upstream,
    gate: Arc<Gate>,
    means: Means,
    refused: Arc<Mutex<Option<(Credential, Timestamp)>>>,
    answers: Arc<Answers>,
}

impl Source {
    pub(super) fn new(upstream: Upstream, settings: SourceSettings, means: Means, account: Account) -> Self {
        let Account { gate, refused, answers } = account;
        let source = Self { settings, upstream, gate, means, refused, answers };
        source.note_egress_fault();
        source
    }

    pub(super) fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// The time of day: for what an upstream dates, and for what people read.
    pub(super) fn now(&self) -> Timestamp {
        self.means.clock.time_of_day()
    }

    /// Process time: for the times of an observation.
    fn moment(&self) -> Timestamp {
        self.means.clock.now()
    }

    /// Makes no call for a while.
    pub(super) fn pause(&self, pause: Duration) {
        self.gate.pause(pause);
    }

    /// Asks once, and up to twice more where that may help and the retry budget allows; never beyond the deadline.
    ///
    /// Every try passes the gate. Tried again: no connection, a broken answer, [`Verdict::Sick`]. Dropping the future
    /// ends the call and frees its slot.
    pub(super) async fn ask<T>(
        &self,
        asker: &Asker,
        call: &Call,
        deadline: Instant,
        judge: impl Fn(&Reply) -> Verdict<T> + Send + Sync,
    ) -> Told<T>
    where
        T: Send,
    {
        self.ask_with_retries(asker, call, deadline, RETRIES, judge).await
    }

    /// Asks as [`Source::ask`] does, with at most so many further tries.
    pub(super) async fn ask_with_retries<T>(
        &self,
        asker: &Asker,
        call: &Call,
        deadline: Instant,
        retries: u32,
        judge: impl Fn(&Reply) -> Verdict<T> + Send + Sync,
    ) -> Told<T>
    where
        T: Send,
    {
        let (mut asked_at, mut sent_at) = (self.moment(), Instant::now());
        let mut last = None;
        let mut renewed = false;
        let mut attempt = 0;
        while attempt <= retries {
            if attempt > 0 {
                let pause = BETWEEN_TRIES.wait(attempt - 1, self.means.entropy.unit());
                if Instant::now() + pause >= deadline || !self.gate.spend_retry() {
                    break;
                }
                tokio::time::sleep(pause).await;
                meters::upstream_retry(&self.settings.name);
            }
            if left(deadline) <= LEAST_TIME {
                break;
            }
            let (permit, credential) = match self.enter(asker, deadline).await {
                Ok(entered) => entered,
                // what went wrong with the try before says more than that there is no other
                Err(refused) => {
                    last.get_or_insert(AskError::Look(refused));
                    break;
                }
            };
            if attempt == 0 {
                self.gate.earn_retry();
            }
            (asked_at, sent_at) = (self.moment(), Instant::now());
            let span = tracing::info_span!("upstream.call", source = %self.settings.name, attempt);
            let mask = self.mask(&credential);
            let road = self.means.road.as_ref();
            let traced = self.span(call, attempt);
            let trace = traced.traceparent().filter(|_| self.settings.propagate_trace);
            let send = road.send_in_trace(call, left(deadline), &credential, &mask, trace);
            let sent = traced.place().hold(send).instrument(span).await;
            end(traced, &sent);
            let about = call.about.as_deref().map_or(About::Many, About::Job);
            match self.conclude(permit, credential, about, sent, &judge) {
                Concluded::Final(outcome) => {
                    return Told { asked_at, sent: sent_at, observed_at: self.moment(), outcome };
                }
                Concluded::Again(error) => {
                    last = Some(error);
                    attempt += 1;
                }
                // the next one is shown at once, and only once: it is no repetition
                Concluded::Renewed if !renewed => renewed = true,
                Concluded::Renewed => {
                    last = Some(AskError::Look(LookError::CredentialRejected));
                    attempt += 1;
                }
            }
        }
        let error = last.unwrap_or_else(|| AskError::Look(LookError::TimedOut));
        Told { asked_at, sent: sent_at, observed_at: self.moment(), outcome: Err(error) }
    }

    /// Asks one harmless question for the operator: with the credential in force as [`Source::ask`] does, with another
    /// one once, and without any consequence for the one in force.
    pub(super) async fn probe(
        &self,
        other: Option<&Credential>,
        call: &Call,
        deadline: Instant,
        judge: impl Fn(&Reply) -> Verdict<()> + Send + Sync,
    ) -> Result<(), LookError> {
        let Some(other) = other else {
            return self.ask(&Asker::Operator, call, deadline, judge).await.outcome.map_err(Into::into);
        };
        let patience = left(deadline).saturating_sub(LEAST_TIME);
        let permit = self.gate.enter_with_another(&Asker::Operator, patience).await?;
        let span = tracing::info_span!("upstream.probe", source = %self.settings.name);
        let mask = self.mask(other);
        let traced = self.span(call, 0);
        let sent = self.means.road.send(call, left(deadline), other, &mask).instrument(span).await;
        end(traced, &sent);
        // to the gate, "no" to another credential is an answer like any other
        let judge = |reply: &Reply| match judge(reply) {
            Verdict::Rejected => Verdict::Spoke(Err(LookError::CredentialRejected)),
            verdict @ (Verdict::Spoke(_) | Verdict::Throttled(_) | Verdict::Sick(_)) => verdict,
        };
        match self.conclude(permit, other.clone(), About::Trial, sent, judge) {
            Concluded::Final(outcome) => outcome.map_err(Into::into),
            Concluded::Again(error) => Err(error.into()),
            Concluded::Renewed => Err(LookError::CredentialRejected),
        }
    }

    /// Takes in that an answer about a job could be used, though it could not be read to its end.
    pub(super) fn read_after_all(&self, id: &ExternalId) {
        self.usable(About::Job(id.as_str()));
    }

    /// What polls have to keep to now, given what they need.
    pub(super) fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.gate.pace_polls(demand)
    }

    /// Takes the place of one background call that is no poll, if there may be one now.
    pub(super) fn take_recheck(&self) -> bool {
        self.gate.take_recheck()
    }

    /// How the source is doing now.
    pub(super) fn status(&self) -> SourceStatus {
        // first: a credential that has been replaced is not held against the source any more
        let current = self.credential();
        let snapshot = self.gate.snapshot();
        let health = if current.is_none() {
            SourceHealth::Unconfigured
        } else if self.means.road.fault().is_some() {
            SourceHealth::Unavailable
        } else if snapshot.health == SourceHealth::Healthy && self.answers.are_unusable() {
            SourceHealth::Degraded
        } else {
            snapshot.health
        };
        SourceStatus {
            name: self.settings.name.clone(),
            upstream: self.upstream,
            health,
            credential: self.credential_status(health),
            budget: snapshot.budget,
            throttled_until: snapshot.closed_for.and_then(|wait| self.now().checked_add(wait).ok()),
            breaker_open: snapshot.breaker_open,
            last_error: self.answers.last_error(),
        }
    }

    /// Waits for the turn of one call, and then takes the credential in force: not before, or it could be an old one.
    async fn enter(&self, asker: &Asker, deadline: Instant) -> Result<(Permit, Credential), LookError> {
        loop {
            let before = self.credential().ok_or(LookError::Unconfigured)?;
            match self.gate.enter(asker, left(deadline).saturating_sub(LEAST_TIME)).await {
                Ok(permit) => return Ok((permit, self.credential().ok_or(LookError::Unconfigured)?)),
                // what was refused while this call waited is not what it would show
                Err(Refusal::Rejected) if self.current().is_some_and(|current| !current.is(&before)) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// The span of one call.
    fn span(&self, call: &Call, tries: u32) -> trace::Active {
        if !trace::is_on() {
            return trace::Active::default();
        }
        let (host, port) = call.base.place();
        trace::upstream(trace::Upstream {
            method: &call.method,
            template: &call.template(),
            host,
            port,
            source: self.settings.name.as_str(),
            upstream: self.upstream.name(),
            tries,
        })
    }

    fn current(&self) -> Option<Credential> {
        self.means.credentials.current(&self.settings.name)
    }

    /// The credential in force. One that has changed since it was refused may be tried at once.
    fn credential(&self) -> Option<Credential> {
        let credential = self.current()?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref().is_some_and(|(refused, _)| !refused.is(&credential)) {
            *refused = None;
            self.gate.forgive();
        }
        Some(credential)
    }

    /// Notes that the credential in force was refused. As long as it is refused again and again, that is since the
    /// first time.
    fn refuse(&self, credential: Credential) {
        let again = self.gate.snapshot().health == SourceHealth::CredentialRejected;
        let now = self.now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refused.as_ref().filter(|(held, _)| again && held.is(&credential));
        let since = since.map_or(now, |(_, since)| *since);
        *refused = Some((credential, since));
    }

    fn credential_status(&self, health: SourceHealth) -> CredentialStatus {
        let status = self.means.credentials.status(&self.settings.name);
        if health != SourceHealth::CredentialRejected {
            return status;
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refused.as_ref().map(|(_, since)| *since);
        CredentialStatus { state: CredentialState::Refused, since, ..status }
    }

    /// What is masked in an answer to this credential: it, and every other that the source could repeat.
    fn mask(&self, credential: &Credential) -> Mask {
        let shown = self.means.credentials.shown(&self.settings.name);
        Mask::new(shown.iter().chain([credential]))
    }
}

/// Ends the span of a call with what came of it.
fn end(span: trace::Active, sent: &Result<Reply, SendError>) {
    match sent {
        Ok(reply) => span.replied(reply.status, reply.request_id()),
        Err(error) => span.unanswered(error.word()),
    }
    drop(span);
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
