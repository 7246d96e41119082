//! Stores the values of counters and histograms, and records them.

use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;

use opentelemetry::trace::{SpanId, TraceId};
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Atomic as _;
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::{Family, MetricConstructor};

use super::labels::{self, LabelSet, LabelValue, LabelValues};
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

/// One metric of a family, shared with it.
enum OwnedMetric {
    Counter(CounterWithExemplar<Exemplar>),
    Histogram(HistogramWithExemplars<Exemplar>),
}

/// A metric that this thread recorded: the next value is recorded without the lock and the hashing of the family. Each
/// instrument has slots of its own, so that only the label values are compared.
struct RecentMetric {
    words: LabelValues,
    metric: OwnedMetric,
}

/// How many metrics of one instrument each thread holds, as bits: a request and a delivery record one of each, so that
/// metrics of different instruments must not replace each other.
const RECENT_BITS: u32 = 2;

thread_local! {
    static RECENT: RefCell<Vec<Option<RecentMetric>>> = RefCell::default();
}

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

impl RecentMetric {
    fn new(instrument: Instrument, words: &LabelValues) -> Option<Self> {
        let labels = LabelSet::new(instrument, words.clone());
        let metric = match MetricFamily::of(instrument) {
            MetricFamily::Counter(family) => OwnedMetric::Counter(family.get_or_create_owned(&labels)),
            MetricFamily::Histogram(family) => OwnedMetric::Histogram(family.get_or_create_owned(&labels)),
            MetricFamily::Read => return None,
        };
        Some(Self { words: labels.words, metric })
    }

    /// Records a value of a metric.
    fn with(instrument: Instrument, words: &LabelValues, record: impl Fn(&OwnedMetric)) {
        // the upper bits, which all others decide
        let slot = usize::try_from(labels::slot_key(words) >> (u64::BITS - RECENT_BITS)).unwrap_or_default();
        let index = ((instrument as usize) << RECENT_BITS) + slot;
        let recorded = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            if recent.is_empty() {
                recent.resize_with(Instrument::ALL.len() << RECENT_BITS, || None);
            }
            let Some(slot) = recent.get_mut(index) else { return };
            if !slot.as_ref().is_some_and(|held| labels::is_same(&held.words, words)) {
                *slot = Self::new(instrument, words);
            }
            if let Some(held) = slot {
                record(&held.metric);
            }
        });
        // the thread ends
        if recorded.is_err()
            && let Some(held) = Self::new(instrument, words)
        {
            record(&held.metric);
        }
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
pub(super) fn add(instrument: Instrument, words: &LabelValues, count: u64) {
    otlp::add(instrument, words, count);
    RecentMetric::with(instrument, words, |metric| {
        let OwnedMetric::Counter(counter) = metric else { return };
        match Exemplar::current() {
            // The last exemplar of a sampled trace is kept.
            Some(trace) => drop(counter.inc_by(count, Some(trace), None)),
            None => drop(counter.inner().inc_by(count)),
        }
    });
}

/// Adds to a histogram.
pub(super) fn observe(instrument: Instrument, words: &LabelValues, value: f64) {
    otlp::observe(instrument, words, value);
    RecentMetric::with(instrument, words, |metric| {
        let OwnedMetric::Histogram(histogram) = metric else { return };
        histogram.observe(value, Exemplar::current(), None);
    });
}

impl Exemplar {
    /// The current trace, if it is sampled.
    fn current() -> Option<Self> {
        if !trace::is_on() {
            return None;
        }
        let (trace, span) = trace::sampled()?;
        Some(Self { trace, span })
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
