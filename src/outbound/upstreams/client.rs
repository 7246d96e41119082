//! One source: HTTP client, limiter and credential together, and the retry loop.
//!
//! The adapters build the requests and classify the responses; everything that is the same for all upstreams is here.

mod answers;
mod conclude;
mod reason;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::answers::{AnswerQuality, CallPurpose};
use self::conclude::TryOutcome;
use super::limiter::{CallPermit, LimiterRefusal, LimiterSettings, UpstreamLimiter};
use crate::domain::id::{ExternalId, SourceName};
use crate::domain::schedule::Backoff;
use crate::domain::source::{CredentialState, CredentialStatus, SourceHealth, SourceStatus, Upstream};
use crate::outbound::http::{
    BaseUrl, SecretMask, SendError, UpstreamCall, UpstreamHttpClient, UpstreamReply,
};
use crate::outbound::redis::SharedStore;
use crate::ports::clock::Clock;
use crate::ports::credentials::{Credential, Credentials};
use crate::ports::entropy::Entropy;
use crate::ports::upstream::{Detail, FetchError, FetchTrigger, PollDemand, PollPacing};
use crate::telemetry::meters;
use crate::telemetry::trace;

/// Retries after the first try.
pub(super) const RETRIES: u32 = 2;
/// The backoff between tries, with full jitter: a status call has seconds, not minutes.
const BETWEEN_TRIES: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// A try with less remaining time than this is not made: it would look like an error of the upstream.
const LEAST_TIME: Duration = Duration::from_millis(50);

/// The configuration of one source.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Its name.
    pub name: SourceName,
    /// Its base URL.
    pub base_url: BaseUrl,
    /// Calls per second.
    pub per_second: u32,
    /// Calls per hour.
    pub per_hour: u32,
    /// The part of the hourly calls that is reserved for callers, in percent.
    pub caller_share: u32,
    /// Concurrent calls.
    pub concurrency: u32,
    /// How long a call may wait in the queue.
    pub max_wait: Duration,
    /// The timeout of a status call in all: the wait in the queue, every try and the backoff between them.
    pub status_timeout: Duration,
    /// The same for a page of rows.
    pub rows_timeout: Duration,
    /// The largest decoded body of a status call, in bytes.
    pub max_status_body: usize,
    /// The largest decoded body of a page of rows, in bytes.
    pub max_rows_body: usize,
    /// Whether calls carry a `traceparent` header.
    pub propagate_trace: bool,
}

impl SourceSettings {
    const fn limits(&self) -> LimiterSettings {
        LimiterSettings {
            per_second: self.per_second,
            per_hour: self.per_hour,
            caller_share: self.caller_share,
            concurrency: self.concurrency,
            max_wait: self.max_wait,
        }
    }
}

/// The dependencies that all sources share.
#[derive(Clone, Debug)]
pub struct SourceDeps {
    /// The client; a source with another proxy or TLS configuration has its own.
    pub http_client: Arc<UpstreamHttpClient>,
    /// The credentials.
    pub credentials: Arc<dyn Credentials>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for jitter.
    pub entropy: Arc<dyn Entropy>,
    /// The shared store, if there are several replicas.
    pub shared_store: Option<SharedStore>,
}

/// How an adapter classifies a reply.
#[derive(Debug)]
pub(super) enum ReplyVerdict<T> {
    /// The upstream gave a definite answer; a retry would return the same.
    Spoke(Result<T, FetchError>),
    /// It rejects the credential, for every call.
    Rejected,
    /// It requests a pause, for every call.
    Throttled(Duration),
    /// It reports an error of its own; a retry may help.
    Sick(Detail),
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// The response was larger than the call's cap. Contains its head, which may be sufficient.
    TooLarge {
        /// The cap.
        cap: usize,
        /// The response with the head of its body.
        head: Box<UpstreamReply>,
    },
    /// Any other reason.
    Fetch(FetchError),
}

impl From<CallError> for FetchError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::TooLarge { cap, head: _ } => {
                Self::BadAnswer(Detail::new(format!("the response exceeds {cap} bytes")))
            }
            CallError::Fetch(error) => error,
        }
    }
}

impl From<LimiterRefusal> for FetchError {
    fn from(refusal: LimiterRefusal) -> Self {
        match refusal {
            LimiterRefusal::Throttled(retry_after) => Self::Throttled { retry_after },
            LimiterRefusal::Rejected => Self::CredentialRejected,
            LimiterRefusal::Broken(wait) => Self::Unavailable(Detail::new(format!(
                "circuit breaker open; no calls for {} ms",
                wait.as_millis()
            ))),
        }
    }
}

/// The outcome of a call, and the times before and after it.
#[derive(Debug)]
pub(super) struct Response<T> {
    /// When the last try was sent; if none was, when the call was abandoned.
    pub(super) requested_at: Timestamp,
    /// The same for comparisons within this process.
    pub(super) sent: Instant,
    /// When the response was complete, or the call was abandoned.
    pub(super) observed_at: Timestamp,
    /// The outcome.
    pub(super) outcome: Result<T, CallError>,
}

/// The used budget and the health of a source: outlives its settings, which can change during a call.
#[derive(Clone, Debug)]
pub struct SourceState {
    limiter: Arc<UpstreamLimiter>,
    /// The credential that was rejected last, to detect that it has been changed, and since when.
    refused: Arc<Mutex<Option<(Credential, Timestamp)>>>,
    answers: Arc<AnswerQuality>,
}

impl SourceState {
    /// An unused one, shared with other replicas if there is a shared store.
    pub fn new(settings: &SourceSettings, shared_store: Option<&SharedStore>) -> Self {
        let shared = shared_store.map(|shared_store| shared_store.budget(&settings.name));
        Self {
            limiter: UpstreamLimiter::new(settings.name.clone(), settings.limits(), shared),
            refused: Arc::default(),
            answers: Arc::default(),
        }
    }

    /// Applies these limits from now on. The used budget stays used.
    pub fn set_limits(&self, settings: &SourceSettings) {
        self.limiter.set_limits(settings.limits());
    }

    /// Resets failures and rejections, because the URL or the credential has changed.
    pub fn reset_endpoint_state(&self) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.limiter.reset_endpoint_state();
        self.answers.forget();
    }
}

/// One source, ready for calls.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) settings: SourceSettings,
    upstream: Upstream,
    limiter: Arc<UpstreamLimiter>,
    deps: SourceDeps,
    refused: Arc<Mutex<Option<(Credential, Timestamp)>>>,
    answers: Arc<AnswerQuality>,
}

impl Source {
    pub(super) fn new(
        upstream: Upstream,
        settings: SourceSettings,
        deps: SourceDeps,
        source_state: SourceState,
    ) -> Self {
        let SourceState { limiter, refused, answers } = source_state;
        let source = Self { settings, upstream, limiter, deps, refused, answers };
        source.note_egress_fault();
        source
    }

    pub(super) fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// The time of day: for times of an upstream, and for times that people read.
    pub(super) fn now(&self) -> Timestamp {
        self.deps.clock.time_of_day()
    }

    /// Process time: for the times of an observation.
    fn moment(&self) -> Timestamp {
        self.deps.clock.now()
    }

    /// Makes no call for a while.
    pub(super) fn pause(&self, pause: Duration) {
        self.limiter.pause(pause);
    }

    /// Calls once, and retries up to twice where that may help and the retry budget allows it; never beyond the
    /// deadline.
    ///
    /// Every try acquires a permit of the limiter. Retried: no connection, an incomplete response,
    /// [`ReplyVerdict::Sick`]. Dropping the future ends the call and frees its slot.
    pub(super) async fn call<T>(
        &self,
        trigger: &FetchTrigger,
        call: &UpstreamCall,
        deadline: Instant,
        classify: impl Fn(&UpstreamReply) -> ReplyVerdict<T> + Send + Sync,
    ) -> Response<T>
    where
        T: Send,
    {
        self.call_with_retries(trigger, call, deadline, RETRIES, classify).await
    }

    /// Calls like [`Source::call`], with at most this many retries.
    pub(super) async fn call_with_retries<T>(
        &self,
        trigger: &FetchTrigger,
        call: &UpstreamCall,
        deadline: Instant,
        retries: u32,
        classify: impl Fn(&UpstreamReply) -> ReplyVerdict<T> + Send + Sync,
    ) -> Response<T>
    where
        T: Send,
    {
        let (mut requested_at, mut sent_at) = (self.moment(), Instant::now());
        let mut last = None;
        let mut renewed = false;
        let mut attempt = 0;
        while attempt <= retries {
            if attempt > 0 {
                let pause = BETWEEN_TRIES.wait(attempt - 1, self.deps.entropy.unit());
                if Instant::now() + pause >= deadline || !self.limiter.spend_retry() {
                    break;
                }
                tokio::time::sleep(pause).await;
                meters::upstream_retry(&self.settings.name);
            }
            if left(deadline) <= LEAST_TIME {
                break;
            }
            let (permit, credential) = match self.enter(trigger, deadline).await {
                Ok(entered) => entered,
                // the error of the previous try is more useful than the rejection of a further one
                Err(refused) => {
                    last.get_or_insert(CallError::Fetch(refused));
                    break;
                }
            };
            if attempt == 0 {
                self.limiter.earn_retry();
            }
            (requested_at, sent_at) = (self.moment(), Instant::now());
            let span = tracing::info_span!("upstream.call", source = %self.settings.name, attempt);
            let mask = self.mask(&credential);
            let http_client = self.deps.http_client.as_ref();
            let traced = self.span(call, attempt);
            let trace = traced.traceparent().filter(|_| self.settings.propagate_trace);
            let send = http_client.send_in_trace(call, left(deadline), &credential, &mask, trace);
            let sent = traced.context().hold(send).instrument(span).await;
            end(traced, &sent);
            let about = call.about.as_deref().map_or(CallPurpose::Many, CallPurpose::Job);
            match self.conclude(permit, credential, about, sent, &classify) {
                TryOutcome::Final(outcome) => {
                    return Response { requested_at, sent: sent_at, observed_at: self.moment(), outcome };
                }
                TryOutcome::Again(error) => {
                    last = Some(error);
                    attempt += 1;
                }
                // the new credential is used at once, and only once: this is not a retry
                TryOutcome::Renewed if !renewed => renewed = true,
                TryOutcome::Renewed => {
                    last = Some(CallError::Fetch(FetchError::CredentialRejected));
                    attempt += 1;
                }
            }
        }
        let error = last.unwrap_or_else(|| CallError::Fetch(FetchError::TimedOut));
        Response { requested_at, sent: sent_at, observed_at: self.moment(), outcome: Err(error) }
    }

    /// Sends one read-only request for the operator: with the active credential like [`Source::call`], with another one
    /// once, and without any consequence for the active one.
    pub(super) async fn probe(
        &self,
        other: Option<&Credential>,
        call: &UpstreamCall,
        deadline: Instant,
        classify: impl Fn(&UpstreamReply) -> ReplyVerdict<()> + Send + Sync,
    ) -> Result<(), FetchError> {
        let Some(other) = other else {
            return self
                .call(&FetchTrigger::Operator, call, deadline, classify)
                .await
                .outcome
                .map_err(Into::into);
        };
        let max_wait = left(deadline).saturating_sub(LEAST_TIME);
        let permit = self.limiter.acquire_probe(&FetchTrigger::Operator, max_wait).await?;
        let span = tracing::info_span!("upstream.probe", source = %self.settings.name);
        let mask = self.mask(other);
        let traced = self.span(call, 0);
        let sent = self.deps.http_client.send(call, left(deadline), other, &mask).instrument(span).await;
        end(traced, &sent);
        // to the limiter, a rejection of another credential is a response like any other
        let classify = |reply: &UpstreamReply| match classify(reply) {
            ReplyVerdict::Rejected => ReplyVerdict::Spoke(Err(FetchError::CredentialRejected)),
            verdict @ (ReplyVerdict::Spoke(_) | ReplyVerdict::Throttled(_) | ReplyVerdict::Sick(_)) => {
                verdict
            }
        };
        match self.conclude(permit, other.clone(), CallPurpose::Trial, sent, classify) {
            TryOutcome::Final(outcome) => outcome.map_err(Into::into),
            TryOutcome::Again(error) => Err(error.into()),
            TryOutcome::Renewed => Err(FetchError::CredentialRejected),
        }
    }

    /// Records that a response about a job was usable, though it could not be read completely.
    pub(super) fn read_after_all(&self, id: &ExternalId) {
        self.usable(CallPurpose::Job(id.as_str()));
    }

    /// The current pace of polls, for the given demand.
    pub(super) fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.limiter.pace_polls(demand)
    }

    /// Takes one background call that is not a poll, if the budget allows one now.
    pub(super) fn take_recheck(&self) -> bool {
        self.limiter.take_recheck()
    }

    /// The current state of the source.
    pub(super) fn status(&self) -> SourceStatus {
        // first: a replaced credential no longer counts against the source
        let current = self.credential();
        let snapshot = self.limiter.snapshot();
        let health = if current.is_none() {
            SourceHealth::Unconfigured
        } else if self.deps.http_client.fault().is_some() {
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

    /// Waits for a permit for one call, and then reads the active credential: not before, or it could be outdated.
    async fn enter(
        &self,
        trigger: &FetchTrigger,
        deadline: Instant,
    ) -> Result<(CallPermit, Credential), FetchError> {
        loop {
            let before = self.credential().ok_or(FetchError::Unconfigured)?;
            match self.limiter.acquire(trigger, left(deadline).saturating_sub(LEAST_TIME)).await {
                Ok(permit) => return Ok((permit, self.credential().ok_or(FetchError::Unconfigured)?)),
                // the credential that was rejected while this call waited is not the one that it would send
                Err(LimiterRefusal::Rejected)
                    if self.current().is_some_and(|current| !current.is(&before)) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// The span of one call.
    fn span(&self, call: &UpstreamCall, tries: u32) -> trace::SpanGuard {
        if !trace::is_on() {
            return trace::SpanGuard::default();
        }
        let (host, port) = call.base.place();
        trace::upstream(trace::UpstreamSpan {
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
        self.deps.credentials.current(&self.settings.name)
    }

    /// The active credential. One that has changed since the rejection may be tried at once.
    fn credential(&self) -> Option<Credential> {
        let credential = self.current()?;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_ref().is_some_and(|(refused, _)| !refused.is(&credential)) {
            *refused = None;
            self.limiter.reset_auth_failure();
        }
        Some(credential)
    }

    /// Records that the active credential was rejected. Repeated rejections keep the time of the first one.
    fn refuse(&self, credential: Credential) {
        let again = self.limiter.snapshot().health == SourceHealth::CredentialRejected;
        let now = self.now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refused.as_ref().filter(|(held, _)| again && held.is(&credential));
        let since = since.map_or(now, |(_, since)| *since);
        *refused = Some((credential, since));
    }

    fn credential_status(&self, health: SourceHealth) -> CredentialStatus {
        let status = self.deps.credentials.status(&self.settings.name);
        if health != SourceHealth::CredentialRejected {
            return status;
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let since = refused.as_ref().map(|(_, since)| *since);
        CredentialStatus { state: CredentialState::Refused, since, ..status }
    }

    /// The mask for a response to this credential: it, and every other that the source could echo.
    fn mask(&self, credential: &Credential) -> SecretMask {
        let known = self.deps.credentials.pending(&self.settings.name);
        SecretMask::new(known.iter().chain([credential]))
    }
}

/// Ends the span of a call with its outcome.
fn end(span: trace::SpanGuard, sent: &Result<UpstreamReply, SendError>) {
    match sent {
        Ok(reply) => span.replied(reply.status, reply.request_id()),
        Err(error) => span.unanswered(error.word()),
    }
    drop(span);
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
