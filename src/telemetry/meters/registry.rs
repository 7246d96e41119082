//! Stores the values of counters and histograms, and records them.

use std::fmt;
use std::sync::LazyLock;

use opentelemetry::trace::{SpanId, TraceId};
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Atomic as _;
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::{Family, MetricConstructor};

use super::labels::{LabelSet, LabelValue, LabelValues};
use super::otlp;
use super::table::{Instrument, InstrumentKind};
use crate::telemetry::trace;

/// The registry of this process.
static REGISTRY: LazyLock<Vec<MetricFamily>> =
    LazyLock::new(|| Instrument::ALL.iter().map(|one| MetricFamily::new(*one)).collect());

/// The storage of one instrument.
pub(super) enum MetricFamily {
    Counter(Family<LabelSet, CounterWithExemplar<Exemplar>>),
    Histogram(Family<LabelSet, HistogramWithExemplars<Exemplar>, Buckets>),
    /// No storage: it is read at each scrape.
    Read,
}

/// The trace of a recorded value.
#[derive(Clone, Debug)]
pub(super) struct Exemplar {
    trace: TraceId,
    span: SpanId,
}

#[derive(Clone, Debug)]
pub(super) struct Buckets(&'static [f64]);

impl MetricFamily {
    fn new(instrument: Instrument) -> Self {
        match instrument.kind() {
            InstrumentKind::Counter => {
                let family = Family::default();
                for words in from_the_start(instrument) {
                    drop(family.get_or_create(&LabelSet::new(instrument, words)));
                }
                Self::Counter(family)
            }
            InstrumentKind::Histogram(bounds) => {
                Self::Histogram(Family::new_with_constructor(Buckets(bounds)))
            }
            InstrumentKind::Gauge | InstrumentKind::ReadCounter => Self::Read,
        }
    }

    pub(super) fn of(instrument: Instrument) -> &'static Self {
        REGISTRY.get(instrument as usize).unwrap_or_else(|| unreachable!("each instrument has a family"))
    }
}

/// The values that are exposed as 0 before the first event, so that the first one is an increase; and all instruments
/// without labels.
const FROM_THE_START: &[(Instrument, &[&str])] = &[
    (Instrument::ConfigReloads, &["applied", "rejected", "unchanged"]),
    // The values that alerts use.
    (Instrument::Errors, &["INTERNAL_SERVER_ERROR", "OVERLOADED"]),
    (Instrument::CacheReads, &["memory", "store", "none"]),
    (Instrument::Lookups, &["hit", "hit_revalidated", "negative_hit", "miss"]),
    (Instrument::SingleFlightCalls, &["leader", "joiner"]),
    (Instrument::UpdatesDelivered, &["job_updates", "job_feed"]),
    (Instrument::UpdatesCoalesced, &["job_updates", "job_feed"]),
];

fn from_the_start(instrument: Instrument) -> Vec<LabelValues> {
    if instrument.labels().is_empty() {
        return vec![LabelValues::default()];
    }
    let words = FROM_THE_START.iter().find(|(one, _)| *one == instrument).map_or(&[][..], |(_, words)| words);
    words.iter().map(|word| [LabelValue::Of(word), LabelValue::None, LabelValue::None]).collect()
}

/// Adds to a counter.
pub(super) fn add(instrument: Instrument, words: LabelValues, count: u64) {
    otlp::add(instrument, &words, count);
    let MetricFamily::Counter(family) = MetricFamily::of(instrument) else { return };
    let counter = family.get_or_create(&LabelSet::new(instrument, words));
    match Exemplar::current() {
        // The last exemplar of a sampled trace is kept.
        Some(trace) => drop(counter.inc_by(count, Some(trace), None)),
        None => drop(counter.inner().inc_by(count)),
    }
}

/// Adds to a histogram.
pub(super) fn observe(instrument: Instrument, words: LabelValues, value: f64) {
    otlp::observe(instrument, &words, value);
    let MetricFamily::Histogram(family) = MetricFamily::of(instrument) else { return };
    family.get_or_create(&LabelSet::new(instrument, words)).observe(value, Exemplar::current(), None);
}

impl Exemplar {
    /// The current trace, if it is sampled.
    fn current() -> Option<Self> {
        let (trace, span, sampled) = trace::current()?;
        sampled.then_some(Self { trace, span })
    }
}

impl MetricConstructor<HistogramWithExemplars<Exemplar>> for Buckets {
    fn new_metric(&self) -> HistogramWithExemplars<Exemplar> {
        HistogramWithExemplars::new(self.0.iter().copied())
    }
}

impl EncodeLabelSet for Exemplar {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("trace_id", self.trace.to_string()).encode(encoder.encode_label())?;
        ("span_id", self.span.to_string()).encode(encoder.encode_label())
    }
}
