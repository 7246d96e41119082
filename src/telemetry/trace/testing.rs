//! For tests: the spans of one thread.

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::layer::SubscriberExt as _;

use super::job::TraceKey;
use super::provider::{Batches, Sampling, TracePipeline};

/// Records the spans of the current thread until it is dropped.
#[derive(Debug)]
pub(crate) struct RecordedSpans {
    pipeline: TracePipeline,
    _second: Dispatch,
    _set: DefaultGuard,
}

/// A subscriber beside that of a test, to be held as long. With a single subscriber, tracing decides about a call site in
/// the thread that reaches it first, which may belong to another test and have none: nothing is recorded there any more.
pub(crate) fn second_subscriber() -> Dispatch {
    Dispatch::new(NoSubscriber::default())
}

impl RecordedSpans {
    pub(crate) fn start() -> Self {
        Self::sampled(1.0)
    }

    /// Records this share of the traces that are started here.
    pub(crate) fn sampled(ratio: f64) -> Self {
        let (key, sampling) = (TraceKey::new(b"test"), Sampling { ratio, parent_based: true });
        let resource = Resource::builder_empty().build();
        let pipeline = TracePipeline::new(resource, key, sampling, Batches::default());
        let subscriber = tracing_subscriber::registry().with(pipeline.layer());
        let second = second_subscriber();
        Self { pipeline, _second: second, _set: tracing::subscriber::set_default(subscriber) }
    }

    /// The spans that have ended since the last call, in the order of their ends.
    pub(crate) fn ended(&self) -> Vec<SpanData> {
        // each call takes one batch at most
        std::iter::repeat_with(|| self.pipeline.take())
            .take_while(|batch| !batch.is_empty())
            .flatten()
            .collect()
    }
}
