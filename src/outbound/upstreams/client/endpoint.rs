//! One source as a destination of calls: its limiter, its credential, and its state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Span;

use super::answers::AnswerQuality;
use super::settings::{SourceDeps, SourceSettings};
use crate::domain::source::{CredentialState, CredentialStatus, SourceHealth, SourceStatus};
use crate::domain::upstream::Upstream;
use crate::outbound::http::{SecretMask, UpstreamCall};
use crate::outbound::redis::SharedStore;
use crate::outbound::upstreams::limiter::{CallPermit, LimiterRefusal, UpstreamLimiter};
use crate::ports::credentials::Credential;
use crate::ports::upstream::{FetchError, FetchTrigger};
use crate::telemetry::trace;

/// A try with less remaining time than this is not made: it would look like an error of the upstream.
pub(super) const LEAST_TIME: Duration = Duration::from_millis(50);

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

/// A source that can be called.
#[derive(Debug)]
pub(super) struct SourceEndpoint {
    pub(super) settings: SourceSettings,
    pub(super) upstream: Upstream,
    pub(super) limiter: Arc<UpstreamLimiter>,
    pub(super) deps: SourceDeps,
    refused: Arc<Mutex<Option<(Credential, Timestamp)>>>,
    pub(super) answers: Arc<AnswerQuality>,
}

impl SourceEndpoint {
    pub(super) fn new(
        upstream: Upstream,
        settings: SourceSettings,
        deps: SourceDeps,
        source_state: SourceState,
    ) -> Self {
        let SourceState { limiter, refused, answers } = source_state;
        Self { settings, upstream, limiter, deps, refused, answers }
    }

    /// The time of day: for times of an upstream, and for times that people read.
    pub(super) fn now(&self) -> Timestamp {
        self.deps.clock.time_of_day()
    }

    /// Process time: for the times of an observation.
    pub(super) fn moment(&self) -> Timestamp {
        self.deps.clock.now()
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
    pub(super) async fn enter(
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
    pub(super) fn span(&self, call: &UpstreamCall, tries: u32) -> Span {
        if !trace::is_on() {
            return Span::none();
        }
        let (host, port) = call.base.place();
        trace::upstream(trace::UpstreamSpan {
            method: &call.method,
            template: &call.template(),
            host,
            port,
            source: self.settings.name.as_str(),
            upstream: self.upstream.profile().name,
            tries,
        })
    }

    pub(super) fn current(&self) -> Option<Credential> {
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
    pub(super) fn refuse(&self, credential: Credential) {
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
    pub(super) fn mask(&self, credential: &Credential) -> SecretMask {
        let known = self.deps.credentials.pending(&self.settings.name);
        SecretMask::new(known.iter().chain([credential]))
    }
}

/// The time until a deadline.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
