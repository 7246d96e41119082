//! Traces: the only module that creates spans. `names` is the closed list of spans and their attributes. Spans are those
//! of `tracing` with one target, exported by a layer with a filter of its own, so that no log level disables a span.
//! `job.observe` alone is created with the OpenTelemetry API, because it starts in the past.
//!
//! Off unless this process has made that layer ([`provider::TracePipeline::layer`]).

mod context;
mod job;
mod names;
pub mod provider;
mod spans;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use context::{TARGET, TraceContext, UnsampledSpan, boxed, current, is_on, is_sampled, sampled};
pub use job::TraceKey;
pub use names::{SPANS, SpanAttribute, SpanDescriptor};
pub use spans::{
    LastCall, LookupSummary, ObserveTrigger, RequestTrace, StoreOperation, UpstreamSpan, deliver, fail,
    found, ingest, kept, lookup, observe, operation, poll, replied, request, sent_securely, store, stored,
    sweep, traceparent, unanswered, upstream, with_last_call,
};
