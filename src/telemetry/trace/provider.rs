//! The export pipeline of spans: the layer that creates them, a bounded queue, one exporting task, and the count of
//! dropped spans. A collector that is down, hangs or is slow loses spans and delays no response. The exporter and its
//! endpoint are configured elsewhere.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::context::{TARGET, turn_on};
use super::job::{DeterministicIds, JobTraces, TraceKey};
use crate::telemetry::throttle::Throttle;

static TRACES_DROPPED: AtomicU64 = AtomicU64::new(0);
static METRICS_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Spans and metric exports that were dropped since the start, by the name of the signal.
pub fn dropped() -> [(&'static str, u64); 2] {
    [("traces", TRACES_DROPPED.load(Ordering::Relaxed)), ("metrics", METRICS_DROPPED.load(Ordering::Relaxed))]
}

/// Counts a metric export that failed.
pub fn metrics_dropped() {
    METRICS_DROPPED.fetch_add(1, Ordering::Relaxed);
}

/// Which traces are exported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The share of traces started here that are exported, 0 to 1.
    pub ratio: f64,
    /// Whether a trace that another process started is exported if that process exports it.
    pub parent_based: bool,
}

/// The limits of the queue and of the exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// The maximum number of spans in the queue; further ones are dropped.
    pub queue: usize,
    /// The maximum number of spans in one export.
    pub at_most: usize,
    /// The time between two exports, if the queue does not fill before.
    pub every: Duration,
    /// The time limit of one export.
    pub within: Duration,
}

impl Default for Batches {
    fn default() -> Self {
        Self { queue: 2048, at_most: 512, every: Duration::from_secs(5), within: Duration::from_secs(10) }
    }
}

/// The queue of spans.
struct SpanQueue {
    waiting: Mutex<VecDeque<SpanData>>,
    wake: Notify,
    batches: Batches,
}

impl SpanQueue {
    fn put(&self, span: SpanData) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= self.batches.queue {
            drop(waiting);
            TRACES_DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(span);
        let full = waiting.len() == self.batches.at_most;
        drop(waiting);
        if full {
            self.wake.notify_one();
        }
    }

    /// The oldest spans, as many as fit in one export.
    fn take(&self) -> Vec<SpanData> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.len().min(self.batches.at_most);
        waiting.drain(..count).collect()
    }
}

impl fmt::Debug for SpanQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanQueue").field("batches", &self.batches).finish_non_exhaustive()
    }
}

/// The producer side of the queue.
#[derive(Debug)]
struct QueueProcessor(Arc<SpanQueue>);

impl SpanProcessor for QueueProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.0.put(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The consumer side of the queue, which exports spans.
#[derive(Debug)]
pub struct BatchExporter<E> {
    queue: Arc<SpanQueue>,
    exporter: E,
    failing: Throttle,
}

/// The spans of an export that has not succeeded yet.
struct DropCounter(u64);

impl Drop for DropCounter {
    fn drop(&mut self) {
        TRACES_DROPPED.fetch_add(self.0, Ordering::Relaxed);
    }
}

/// What creates spans, before their export has started.
#[derive(Debug)]
pub struct TracePipeline {
    traces: JobTraces,
    resource: Resource,
    queue: Arc<SpanQueue>,
}

impl TracePipeline {
    /// A pipeline of its own: several do not share spans.
    pub fn new(resource: Resource, key: TraceKey, sampling: Sampling, batches: Batches) -> Self {
        let queue = Arc::new(SpanQueue { waiting: Mutex::default(), wake: Notify::new(), batches });
        let ratio = Sampler::TraceIdRatioBased(sampling.ratio);
        let sampler = if sampling.parent_based { Sampler::ParentBased(Box::new(ratio)) } else { ratio };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_id_generator(DeterministicIds::default())
            .with_sampler(sampler.clone())
            .with_span_processor(QueueProcessor(Arc::clone(&queue)))
            .build();
        let traces = JobTraces::new(provider.tracer("jobgate"), key, sampler);
        Self { traces, resource, queue }
    }

    /// The layer that turns the spans of [`TARGET`] into spans of the pipeline. It has its own filter: no event becomes
    /// part of a span. From now on spans are created.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        turn_on();
        tracing_opentelemetry::layer()
            .with_tracer(self.traces.tracer().clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .and_then(self.traces.clone())
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
    }

    /// The spans that wait for export.
    #[cfg(test)]
    pub(super) fn take(&self) -> Vec<SpanData> {
        self.queue.take()
    }

    /// The consumer of its spans.
    pub fn export<E: SpanExporter>(self, mut exporter: E) -> BatchExporter<E> {
        exporter.set_resource(&self.resource);
        BatchExporter { queue: self.queue, exporter, failing: Throttle::default() }
    }
}

impl fmt::Debug for JobTraces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobTraces")
    }
}

impl<E: SpanExporter> BatchExporter<E> {
    /// Exports until `stop` is cancelled, and then the remaining spans until an export fails.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.queue.wake.notified() => {}
                () = tokio::time::sleep(self.queue.batches.every) => {}
            }
            loop {
                let batch = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                let full = batch.len() == self.queue.batches.at_most;
                let exported = tokio::select! {
                    exported = self.export(batch) => exported,
                    () = stop.cancelled() => return,
                };
                if !exported || !full {
                    break;
                }
            }
        }
        loop {
            let batch = self.queue.take();
            if batch.is_empty() || !self.export(batch).await {
                return;
            }
        }
    }

    /// Returns whether the export succeeded.
    async fn export(&self, batch: Vec<SpanData>) -> bool {
        let spans = batch.len() as u64;
        // An aborted export is counted as dropped as well.
        let mut lost = DropCounter(spans);
        let exported = tokio::time::timeout(self.queue.batches.within, self.exporter.export(batch)).await;
        let came_through = matches!(exported, Ok(Ok(())));
        if came_through {
            lost.0 = 0;
        } else if let Some(suppressed) = self.failing.admit() {
            tracing::warn!(spans, suppressed, "spans dropped; the collector does not accept them");
        }
        came_through
    }
}
