//! The table is consistent, both text formats have the same values, and a collector receives the same as Prometheus.

use std::sync::{Arc, Mutex};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics, ScopeMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};

use super::*;
use crate::telemetry::trace::testing::RecordedSpans;

#[derive(Debug)]
struct Nothing;

impl ObservableSource for Nothing {
    fn read(&self, _: &mut GaugeSnapshot) {}
}

#[test]
fn metric_names_are_unique() {
    let mut names: Vec<&str> = Instrument::ALL.iter().map(|one| one.name()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|one, other| one < other), "{names:?}");
}

#[test]
fn metric_names_and_help_texts_follow_the_conventions() {
    for one in Instrument::ALL {
        let counts = matches!(one.kind(), InstrumentKind::Counter | InstrumentKind::ReadCounter);
        assert_eq!(one.name().ends_with("_total"), counts, "{one:?}");
        assert!(one.help().ends_with('.') && !one.help().contains('\n'), "{one:?}");
    }
}

#[test]
fn labels_and_bounds_of_metrics_are_valid() {
    for one in Instrument::ALL {
        assert!(one.labels().len() <= LabelValues::default().len(), "{one:?}");
        if let InstrumentKind::Histogram(bounds) = one.kind() {
            assert!(bounds.is_sorted_by(|one, other| one < other), "{one:?}");
        }
    }
}

#[test]
fn classic_text_uses_full_counter_names_and_no_eof_mark() {
    store_failed();
    let modern = write(ExpositionFormat::OpenMetrics, &Nothing).unwrap();
    let older = write(ExpositionFormat::Classic, &Nothing).unwrap();
    assert!(modern.contains("# TYPE jobgate_store_failures counter\n") && modern.ends_with("# EOF\n"));
    assert!(older.contains("# TYPE jobgate_store_failures_total counter\n"), "{older}");
    assert!(!older.contains("# EOF") && !older.contains("# UNIT"));
}

#[test]
fn classic_text_has_every_value_of_openmetrics() {
    store_failed();
    let modern = write(ExpositionFormat::OpenMetrics, &Nothing).unwrap();
    let older = write(ExpositionFormat::Classic, &Nothing).unwrap();
    let values = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    // Other tests record in parallel: a value that is recorded in between is only in the later text.
    let later = write(ExpositionFormat::OpenMetrics, &Nothing).unwrap();
    assert!((values(&modern)..=values(&later)).contains(&values(&older)), "{modern}\n{older}");
}

#[test]
fn metrics_are_exported_before_their_first_event() {
    let text = write(ExpositionFormat::Classic, &Nothing).unwrap();
    for line in [
        "jobgate_store_failures_total ",
        "jobgate_config_reloads_total{outcome=\"rejected\"} ",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is missing:\n{text}");
    }
}

#[test]
fn sampled_traces_appear_as_exemplars_only_in_openmetrics() {
    let _spans = RecordedSpans::start();
    let (trace, span) = (TraceId::from(0xa1_u128), SpanId::from(0xb2_u64));
    let within = |flags: TraceFlags| {
        let span = SpanContext::new(trace, span, flags, true, TraceState::default());
        let _context = Context::new().with_remote_span_context(span).attach();
        error("EXEMPLAR");
        operation_took("exemplar", Duration::from_millis(3));
    };
    let exemplars = |text: &str| text.matches("00000000000000a1").count();
    within(TraceFlags::default());
    assert_eq!(
        exemplars(&write(ExpositionFormat::OpenMetrics, &Nothing).unwrap()),
        0,
        "the trace is not sampled"
    );
    within(TraceFlags::SAMPLED);
    // A value without a trace does not remove the last exemplar.
    error("EXEMPLAR");
    let text = write(ExpositionFormat::OpenMetrics, &Nothing).unwrap();
    let line = text.lines().find(|line| line.starts_with("jobgate_errors_total{code=\"EXEMPLAR\"}")).unwrap();
    let (id, span_id) = (trace.to_string(), span.to_string());
    assert!(line.contains(&format!(" 3 # {{trace_id=\"{id}\",span_id=\"{span_id}\"}} 1")), "{line}");
    assert_eq!(exemplars(&text), 2, "{text}");
    let older = write(ExpositionFormat::Classic, &Nothing).unwrap();
    assert!(older.contains("jobgate_errors_total{code=\"EXEMPLAR\"} 3\n"), "{older}");
    assert_eq!(exemplars(&older), 0, "{older}");
}

/// The values that a collector received, one line per value.
#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

impl PushMetricExporter for Collector {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut exported = self.0.lock().unwrap();
        for metric in metrics.scope_metrics().flat_map(ScopeMetrics::metrics) {
            let (name, unit) = (metric.name(), metric.unit());
            if let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() {
                exported.extend(sum.data_points().map(|point| {
                    let labels = point.attributes().map(|one| format!("{}={}", one.key, one.value));
                    let mut labels: Vec<String> = labels.collect();
                    labels.sort();
                    format!("{name} {unit} {} {}", labels.join(","), point.value())
                }));
            } else if let AggregatedMetrics::F64(MetricData::Histogram(spread)) = metric.data() {
                let bounds = spread.data_points().map(|point| point.bounds().count());
                exported.extend(bounds.map(|bounds| format!("{name} {unit} {bounds}")));
            } else if let AggregatedMetrics::F64(MetricData::Gauge(gauge)) = metric.data() {
                exported.extend(gauge.data_points().map(|point| format!("{name} {unit} {}", point.value())));
            } else {
                exported.push(format!("{name} {unit}"));
            }
        }
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

/// A source with one degraded store.
#[derive(Debug)]
struct Degraded;

impl ObservableSource for Degraded {
    fn read(&self, out: &mut GaugeSnapshot) {
        out.put(Instrument::StoreDegraded, 1.0);
    }
}

#[test]
fn collector_receives_the_same_metrics() {
    let collector = Collector::default();
    let provider = SdkMeterProvider::builder().with_periodic_exporter(collector.clone()).build();
    opentelemetry::global::set_meter_provider(provider.clone());
    attach();
    attach_readings(&(Arc::new(Degraded) as Arc<dyn ObservableSource>));
    let source = SourceName::parse("told-to-a-collector").unwrap();
    upstream_call(&source, CallEnd::Sick, Duration::from_millis(5));
    provider.force_flush().unwrap();
    let exported = collector.0.lock().unwrap().clone();
    for line in [
        "jobgate_upstream_calls 1 outcome=upstream_error,source=told-to-a-collector 1",
        "jobgate_upstream_call_duration_seconds s 14",
        "jobgate_store_degraded 1 1",
        "process_cpu_seconds s",
    ] {
        assert!(exported.iter().any(|found| found == line), "{line} is missing: {exported:#?}");
    }
}
