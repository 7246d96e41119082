//! The trace of a job: its id, and the span ids of its observations, are derived from the job's key by a keyed hash. So
//! every replica and every restart writes to the same trace, and uses the same id for the same observation.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use jiff::Timestamp;
use opentelemetry::Context;
use opentelemetry::trace::{SpanId, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, SdkTracer, ShouldSample as _,
};
use tracing::{Subscriber, dispatcher};
use tracing_subscriber::Layer;

use crate::domain::id::JobKey;

/// Makes the derived key differ from everything else that is signed with the same secret.
const DERIVATION: &[u8] = b"jobgate trace ids of jobs";

/// The key from which the traces of jobs are derived.
pub struct TraceKey(hmac::Key);

impl TraceKey {
    /// A key derived from a secret of another purpose, which trace ids do not reveal; the same for all replicas.
    pub fn derived_from(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self::new(hmac::sign(&secret, DERIVATION).as_ref())
    }

    /// A key from bytes; the same for all replicas.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The trace of a job.
    pub(super) fn trace(&self, job: &JobKey) -> TraceId {
        let tag = self.tag(job, b"job", &[]);
        let mut id = [0; 16];
        id.copy_from_slice(tag.as_ref().split_at(16).0);
        TraceId::from_bytes(id)
    }

    /// The span of an observation, derived from its times, which are the same in every replica.
    pub(super) fn observation(
        &self,
        job: &JobKey,
        requested_at: Timestamp,
        observed_at: Timestamp,
    ) -> SpanId {
        let times = [requested_at, observed_at].map(|time| time.as_nanosecond().to_be_bytes());
        let tag = self.tag(job, b"look", &times.concat());
        let mut id = [0; 8];
        id.copy_from_slice(tag.as_ref().split_at(8).0);
        SpanId::from_bytes(id)
    }

    fn tag(&self, job: &JobKey, what: &[u8], more: &[u8]) -> hmac::Tag {
        let mut hash = hmac::Context::with_key(&self.0);
        hash.update(what);
        // Neither name can contain a zero byte.
        hash.update(&[0]);
        hash.update(job.source.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(job.external_id.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(more);
        hash.sign()
    }
}

impl fmt::Debug for TraceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceKey")
    }
}

thread_local! {
    /// The ids of the span that is being created on this thread, if they are not to be random.
    static GIVEN: Cell<(Option<TraceId>, Option<SpanId>)> = const { Cell::new((None, None)) };
}

/// Uses these ids for the span that `make` creates.
pub(super) fn with_ids<T>(trace: TraceId, span: Option<SpanId>, make: impl FnOnce() -> T) -> T {
    GIVEN.set((Some(trace), span));
    let made = make();
    GIVEN.set((None, None));
    made
}

/// Generates span ids: random ones, unless they are given.
#[derive(Debug, Default)]
pub(super) struct DeterministicIds(RandomIdGenerator);

impl IdGenerator for DeterministicIds {
    fn new_trace_id(&self) -> TraceId {
        GIVEN.get().0.unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        GIVEN.get().1.unwrap_or_else(|| self.0.new_span_id())
    }
}

/// What the spans need that `tracing` cannot create or decide on: the tracer, the key of the ids, and the sampler. A part of
/// the subscriber, so that it is found wherever spans are created.
#[derive(Clone)]
pub(super) struct JobTraces(Arc<(SdkTracer, TraceKey, Sampler)>);

impl<S: Subscriber> Layer<S> for JobTraces {}

impl JobTraces {
    /// Those of a pipeline.
    pub(super) fn new(tracer: SdkTracer, key: TraceKey, sampler: Sampler) -> Self {
        Self(Arc::new((tracer, key, sampler)))
    }

    /// Those of the current subscriber; `None` while no spans are created.
    pub(super) fn current() -> Option<Self> {
        dispatcher::get_default(|subscriber| subscriber.downcast_ref::<Self>().cloned())
    }

    pub(super) fn tracer(&self) -> &SdkTracer {
        &self.0.0
    }

    pub(super) fn key(&self) -> &TraceKey {
        &self.0.1
    }

    /// The id of the trace of a request with this parent, and whether it is sampled: the same decision that its span
    /// makes, before there is a span. `None` while no spans are created.
    pub(super) fn sample_current(parent: &Context) -> Option<(TraceId, bool)> {
        dispatcher::get_default(|subscriber| {
            subscriber.downcast_ref::<Self>().map(|traces| traces.sample(parent))
        })
    }

    fn sample(&self, parent: &Context) -> (TraceId, bool) {
        let span = parent.span();
        let trace = span.span_context().trace_id();
        let trace =
            if trace == TraceId::INVALID { RandomIdGenerator::default().new_trace_id() } else { trace };
        let sampled = self.0.2.should_sample(Some(parent), trace, "", &SpanKind::Server, &[], &[]);
        (trace, sampled.decision == SamplingDecision::RecordAndSample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::{ExternalId, SourceName};

    fn job(source: &str, id: &str) -> JobKey {
        let external_id = ExternalId::parse(id).unwrap();
        JobKey { source: SourceName::parse(source).unwrap(), external_id }
    }

    #[test]
    fn replicas_with_the_same_key_derive_the_same_trace_ids() {
        let (one, other) = (TraceKey::new(b"shared"), TraceKey::new(b"another"));
        let a = job("mind", "a");
        assert_eq!(one.trace(&a), TraceKey::new(b"shared").trace(&a));
        assert_ne!(one.trace(&a), other.trace(&a));
        let derived = TraceKey::derived_from(b"shared");
        assert_eq!(derived.trace(&a), TraceKey::derived_from(b"shared").trace(&a));
        assert_ne!(derived.trace(&a), TraceKey::derived_from(b"another").trace(&a));
        assert_ne!(derived.trace(&a), one.trace(&a), "the secret itself is not the key");
    }

    #[test]
    fn each_job_has_its_own_trace_id() {
        let key = TraceKey::new(b"shared");
        let a = key.trace(&job("mind", "a"));
        assert_ne!(a, key.trace(&job("mind", "b")));
        assert_ne!(a, key.trace(&job("metrics", "a")));
    }

    #[test]
    fn each_observation_has_its_own_span_id() {
        let (key, a) = (TraceKey::new(b"shared"), job("mind", "a"));
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(key.observation(&a, at(1), at(2)), key.observation(&a, at(1), at(2)));
        assert_ne!(key.observation(&a, at(1), at(2)), key.observation(&a, at(1), at(3)));
    }

    #[test]
    fn assigned_trace_id_applies_only_within_its_scope() {
        let names = DeterministicIds::default();
        let trace = TraceId::from_bytes([7; 16]);
        assert_eq!(with_ids(trace, None, || names.new_trace_id()), trace);
        assert_ne!(names.new_trace_id(), trace);
    }
}
