//! One source: HTTP client, limiter and credential together, and the retry loop.
//!
//! The adapters build the requests and classify the responses; everything that is the same for all upstreams is here.

mod answers;
mod conclude;
mod endpoint;
mod reason;
mod settings;
mod verdict;

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use self::answers::CallPurpose;
use self::conclude::TryOutcome;
pub use self::endpoint::SourceState;
use self::endpoint::{LEAST_TIME, SourceEndpoint, left};
pub use self::settings::{SourceDeps, SourceSettings};
pub(super) use self::verdict::{CallError, ReplyVerdict, Response};
use crate::domain::id::ExternalId;
use crate::domain::schedule::Backoff;
use crate::domain::source::SourceStatus;
use crate::domain::upstream::Upstream;
use crate::outbound::http::{SendError, UpstreamCall, UpstreamReply};
use crate::ports::credentials::Credential;
use crate::ports::upstream::{FetchError, FetchTrigger, PollDemand, PollPacing};
use crate::telemetry::meters;
use crate::telemetry::trace;

/// Retries after the first try.
pub(super) const RETRIES: u32 = 2;
/// The backoff between tries, with full jitter: a status call has seconds, not minutes.
const BETWEEN_TRIES: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(2) };

/// One source, ready for calls.
#[derive(Debug)]
pub(super) struct Source {
    endpoint: SourceEndpoint,
}

impl Source {
    pub(super) fn new(
        upstream: Upstream,
        settings: SourceSettings,
        deps: SourceDeps,
        source_state: SourceState,
    ) -> Self {
        let endpoint = SourceEndpoint::new(upstream, settings, deps, source_state);
        endpoint.note_egress_fault();
        Self { endpoint }
    }

    pub(super) fn settings(&self) -> &SourceSettings {
        &self.endpoint.settings
    }

    pub(super) fn upstream(&self) -> Upstream {
        self.endpoint.upstream
    }

    /// The time of day: for times of an upstream, and for times that people read.
    pub(super) fn now(&self) -> Timestamp {
        self.endpoint.now()
    }

    /// The current state of the source.
    pub(super) fn status(&self) -> SourceStatus {
        self.endpoint.status()
    }

    /// Makes no call for a while.
    pub(super) fn pause(&self, pause: Duration) {
        self.endpoint.limiter.pause(pause);
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
        let (mut requested_at, mut sent_at) = (self.endpoint.moment(), Instant::now());
        let mut last = None;
        let mut renewed = false;
        let mut attempt = 0;
        while attempt <= retries {
            if attempt > 0 {
                let pause = BETWEEN_TRIES.wait(attempt - 1, self.endpoint.deps.entropy.unit());
                if Instant::now() + pause >= deadline || !self.endpoint.limiter.spend_retry() {
                    break;
                }
                tokio::time::sleep(pause).await;
                meters::upstream_retry(&self.endpoint.settings.name);
            }
            if left(deadline) <= LEAST_TIME {
                break;
            }
            let (permit, credential) = match self.endpoint.enter(trigger, deadline).await {
                Ok(entered) => entered,
                // the error of the previous try is more useful than the rejection of a further one
                Err(refused) => {
                    last.get_or_insert(CallError::Fetch(refused));
                    break;
                }
            };
            if attempt == 0 {
                self.endpoint.limiter.earn_retry();
            }
            (requested_at, sent_at) = (self.endpoint.moment(), Instant::now());
            let mask = self.endpoint.mask(&credential);
            let http_client = self.endpoint.deps.http_client.as_ref();
            let span = self.endpoint.span(call, attempt);
            let propagates = self.endpoint.settings.propagate_trace;
            let trace = if propagates { trace::traceparent(&span) } else { None };
            let send = http_client.send_in_trace(call, left(deadline), &credential, &mask, trace);
            let sent = send.instrument(span.clone()).await;
            end(span, &sent);
            let about = call.about.as_deref().map_or(CallPurpose::Many, CallPurpose::Job);
            match self.endpoint.conclude(permit, credential, about, sent, &classify) {
                TryOutcome::Final(outcome) => {
                    return Response {
                        requested_at,
                        sent: sent_at,
                        observed_at: self.endpoint.moment(),
                        outcome,
                    };
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
        Response { requested_at, sent: sent_at, observed_at: self.endpoint.moment(), outcome: Err(error) }
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
        let permit = self.endpoint.limiter.acquire_probe(&FetchTrigger::Operator, max_wait).await?;
        let mask = self.endpoint.mask(other);
        let span = self.endpoint.span(call, 0);
        let send = self.endpoint.deps.http_client.send(call, left(deadline), other, &mask);
        let sent = send.instrument(span.clone()).await;
        end(span, &sent);
        // to the limiter, a rejection of another credential is a response like any other
        let classify = |reply: &UpstreamReply| match classify(reply) {
            ReplyVerdict::Rejected => ReplyVerdict::Spoke(Err(FetchError::CredentialRejected)),
            verdict @ (ReplyVerdict::Spoke(_)
            | ReplyVerdict::Refused(())
            | ReplyVerdict::Throttled(_)
            | ReplyVerdict::Sick(_)) => verdict,
        };
        match self.endpoint.conclude(permit, other.clone(), CallPurpose::Trial, sent, classify) {
            TryOutcome::Final(outcome) => outcome.map_err(Into::into),
            TryOutcome::Again(error) => Err(error.into()),
            TryOutcome::Renewed => Err(FetchError::CredentialRejected),
        }
    }

    /// Records that a response about a job was usable, though it could not be read completely.
    pub(super) fn read_after_all(&self, id: &ExternalId) {
        self.endpoint.usable(CallPurpose::Job(id.as_str()));
    }

    /// The current pace of polls, for the given demand.
    pub(super) fn pace_polls(&self, demand: PollDemand) -> PollPacing {
        self.endpoint.limiter.pace_polls(demand)
    }

    /// Takes one background call that is not a poll, if the budget allows one now.
    pub(super) fn take_recheck(&self) -> bool {
        self.endpoint.limiter.take_recheck()
    }
}

/// Ends the span of a call with its outcome.
fn end(span: Span, sent: &Result<UpstreamReply, SendError>) {
    match sent {
        Ok(reply) => trace::replied(&span, reply.status, reply.request_id()),
        Err(error) => trace::unanswered(&span, error.word()),
    }
    drop(span);
}
