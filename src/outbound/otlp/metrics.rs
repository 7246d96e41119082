//! The export of metrics: the library's reader calls the exporter on its own thread, so each export is polled with the
//! runtime entered, has a timeout, and is counted when it fails.

use std::future::poll_fn;
use std::time::Duration;

use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use tokio::runtime::Handle;

use crate::telemetry::trace::provider::metrics_dropped;

/// The timeout of one export of metrics.
const METRICS_WITHIN: Duration = Duration::from_secs(10);

/// An exporter that is polled in the runtime, and whose failures are counted.
#[derive(Debug)]
pub struct MetricsExporter {
    inner: MetricExporter,
    runtime: Handle,
}

/// The meter provider; the exporter runs every minute, or at `OTEL_METRIC_EXPORT_INTERVAL`. A runtime must be entered.
pub fn provider(exporter: MetricExporter, resource: Resource) -> SdkMeterProvider {
    let exporter = MetricsExporter { inner: exporter, runtime: Handle::current() };
    let reader = PeriodicReader::builder(exporter).build();
    SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build()
}

impl PushMetricExporter for MetricsExporter {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut exporting = {
            let _entered = self.runtime.enter();
            Box::pin(tokio::time::timeout(METRICS_WITHIN, self.inner.export(metrics)))
        };
        let exported = poll_fn(|context| {
            let _entered = self.runtime.enter();
            exporting.as_mut().poll(context)
        })
        .await;
        let exported = exported.unwrap_or(Err(OTelSdkError::Timeout(METRICS_WITHIN)));
        if exported.is_err() {
            metrics_dropped();
        }
        exported
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
