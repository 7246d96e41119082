//! The Prometheus exposition, in both formats: `OpenMetrics` with exemplars, and the classic one without.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::labels::{LabelSet, LabelValues};
use super::process;
use super::registry::{Exemplar, MetricFamily};
use super::snapshot::{GaugeSnapshot, ObservableSource};
use super::table::{Instrument, InstrumentKind};

/// An exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// `OpenMetrics` 1.0, with exemplars.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Classic,
}

impl ExpositionFormat {
    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes every instrument that has a value, in the order of the table.
///
/// # Errors
/// When the text cannot be written; none is known.
pub fn write(format: ExpositionFormat, read: &dyn ObservableSource) -> Result<String, fmt::Error> {
    let mut readings = GaugeSnapshot::default();
    process::read(&mut readings);
    read.read(&mut readings);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(MetricsText(readings)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        ExpositionFormat::OpenMetrics => text,
        ExpositionFormat::Classic => classic(&text),
    })
}

#[derive(Debug)]
struct MetricsText(GaugeSnapshot);

impl Collector for MetricsText {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for instrument in Instrument::ALL.iter().copied() {
            let read = self.0.of(instrument);
            let metric_type = match instrument.kind() {
                InstrumentKind::Histogram(_) => MetricType::Histogram,
                InstrumentKind::Gauge | InstrumentKind::ReadCounter if read.is_empty() => continue,
                InstrumentKind::Gauge => MetricType::Gauge,
                InstrumentKind::Counter | InstrumentKind::ReadCounter => MetricType::Counter,
            };
            let (name, help) = (instrument.stem(), instrument.help());
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            let bare = instrument.labels().is_empty();
            let none = LabelSet::new(instrument, LabelValues::default());
            match MetricFamily::of(instrument) {
                // Without labels it is encoded directly: a family would write empty braces.
                MetricFamily::Counter(family) if bare => family.get_or_create(&none).encode(metric)?,
                MetricFamily::Counter(family) => family.encode(metric)?,
                MetricFamily::Histogram(family) if bare => family.get_or_create(&none).encode(metric)?,
                MetricFamily::Histogram(family) => family.encode(metric)?,
                MetricFamily::Read if bare => {
                    for (_, value) in read {
                        encode_read(instrument, &mut metric, *value)?;
                    }
                }
                MetricFamily::Read => {
                    for (labels, value) in read {
                        encode_read(instrument, &mut metric.encode_family(labels)?, *value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode_read(instrument: Instrument, metric: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    if instrument.kind() == InstrumentKind::ReadCounter {
        metric.encode_counter::<Exemplar, f64, f64>(&value, None)
    } else {
        metric.encode_gauge(&value)
    }
}

/// Converts `OpenMetrics` to the classic format: a counter has its full name everywhere, and there are neither
/// exemplars nor an end mark. No label can contain the ` # ` before an exemplar: a label value is a constant or the
/// name of a source.
fn classic(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# HELP ") {
            help = comment.split_once(' ');
        } else if let Some(comment) = line.strip_prefix("# TYPE ") {
            let (name, kind) = comment.split_once(' ').unwrap_or((comment, "untyped"));
            let ending = if kind == "counter" { "_total" } else { "" };
            let help = help.map_or("", |(_, help)| help);
            out.extend(["# HELP ", name, ending, " ", help, "\n# TYPE ", name, ending, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.push_str(line.split(" # ").next().unwrap_or(line));
            out.push('\n');
        }
    }
    out
}
