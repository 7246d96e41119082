//! Where the values of counters and histograms stand, and how they get there.

use std::fmt;
use std::sync::LazyLock;

use opentelemetry::trace::{SpanId, TraceId};
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Atomic as _;
use prometheus_client::metrics::exemplar::{CounterWithExemplar, HistogramWithExemplars};
use prometheus_client::metrics::family::{Family, MetricConstructor};

use super::table::{Instrument, Kind};
use super::{Word, Words, otlp};
use crate::telemetry::trace;

/// The book of this process.
static BOOK: LazyLock<Vec<Page>> =
    LazyLock::new(|| Instrument::ALL.iter().map(|one| Page::new(*one)).collect());

/// What is held of one instrument.
pub(super) enum Page {
    Counter(Family<Labels, CounterWithExemplar<Trace>>),
    Histogram(Family<Labels, HistogramWithExemplars<Trace>, Bounds>),
    /// Nothing: it is read when it is asked for.
    Read,
}

/// One set of labels with its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels {
    pub(super) names: &'static [&'static str],
    pub(super) words: Words,
}

/// The trace in which something happened.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    trace: TraceId,
    span: SpanId,
}

#[derive(Clone, Debug)]
pub(super) struct Bounds(&'static [f64]);

impl Page {
    fn new(instrument: Instrument) -> Self {
        match instrument.kind() {
            Kind::Counter => {
                let family = Family::default();
                for words in from_the_start(instrument) {
                    drop(family.get_or_create(&Labels::new(instrument, words)));
                }
                Self::Counter(family)
            }
            Kind::Histogram(bounds) => Self::Histogram(Family::new_with_constructor(Bounds(bounds))),
            Kind::Gauge | Kind::ReadCounter => Self::Read,
        }
    }

    pub(super) fn of(instrument: Instrument) -> &'static Self {
        BOOK.get(instrument as usize).unwrap_or_else(|| unreachable!("the book has a page for each"))
    }
}

/// What is shown as 0 before it happens first, so that its first time is seen as a rise; and whatever has no labels.
const FROM_THE_START: &[(Instrument, &[&str])] = &[
    (Instrument::ConfigReloads, &["applied", "rejected", "unchanged"]),
    // those that alerts wait for
    (Instrument::Errors, &["INTERNAL_SERVER_ERROR", "OVERLOADED"]),
    (Instrument::CacheReads, &["memory", "store", "none"]),
    (Instrument::Lookups, &["hit", "hit_revalidated", "negative_hit", "miss"]),
    (Instrument::Flights, &["leader", "joiner"]),
    (Instrument::UpdatesDelivered, &["job_updates", "job_feed"]),
    (Instrument::UpdatesCoalesced, &["job_updates", "job_feed"]),
];

fn from_the_start(instrument: Instrument) -> Vec<Words> {
    if instrument.labels().is_empty() {
        return vec![Words::default()];
    }
    let words = FROM_THE_START.iter().find(|(one, _)| *one == instrument).map_or(&[][..], |(_, words)| words);
    words.iter().map(|word| [Word::Of(word), Word::None, Word::None]).collect()
}

/// Adds to a counter.
pub(super) fn add(instrument: Instrument, words: Words, count: u64) {
    otlp::add(instrument, &words, count);
    let Page::Counter(family) = Page::of(instrument) else { return };
    let counter = family.get_or_create(&Labels::new(instrument, words));
    match Trace::current() {
        // the last one that is to be found in a trace stays
        Some(trace) => drop(counter.inc_by(count, Some(trace), None)),
        None => drop(counter.inner().inc_by(count)),
    }
}

/// Adds to a histogram.
pub(super) fn observe(instrument: Instrument, words: Words, value: f64) {
    otlp::observe(instrument, &words, value);
    let Page::Histogram(family) = Page::of(instrument) else { return };
    family.get_or_create(&Labels::new(instrument, words)).observe(value, Trace::current(), None);
}

impl Labels {
    pub(super) const fn new(instrument: Instrument, words: Words) -> Self {
        Self { names: instrument.labels(), words }
    }
}

impl Trace {
    /// The trace of what is being done, where it will be found.
    fn current() -> Option<Self> {
        let (trace, span, sampled) = trace::current()?;
        sampled.then_some(Self { trace, span })
    }
}

impl Word {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::None => "",
            Self::Of(word) => word,
            Self::Source(name) => name.as_str(),
        }
    }
}

impl MetricConstructor<HistogramWithExemplars<Trace>> for Bounds {
    fn new_metric(&self) -> HistogramWithExemplars<Trace> {
        HistogramWithExemplars::new(self.0.iter().copied())
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, word) in self.names.iter().zip(&self.words) {
            (*name, word.text()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl EncodeLabelSet for Trace {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("trace_id", self.trace.to_string()).encode(encoder.encode_label())?;
        ("span_id", self.span.to_string()).encode(encoder.encode_label())
    }
}
