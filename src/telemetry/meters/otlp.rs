//! The export of the same values to a collector. Before [`attach`] nothing is recorded here: the cost is one check of a
//! cell.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value, global};
use tokio::time::Instant;

use super::labels::{LabelSet, LabelValue, LabelValues};
use super::process;
use super::snapshot::{GaugeSnapshot, ObservableSource};
use super::table::{Instrument, InstrumentKind};

/// The name of the meter.
const METER: &str = "jobgate";

/// Gauges that are read within this time belong to one collection.
const ONE_COLLECTION: Duration = Duration::from_millis(100);

static INSTRUMENTS: OnceLock<Vec<OtelInstrument>> = OnceLock::new();

enum OtelInstrument {
    Counter(Counter<u64>),
    Histogram(Histogram<f64>),
    Nothing,
}

/// Exports all counters and histograms to the collector from now on. Called once, after the global meter provider is
/// set.
pub fn attach() {
    let meter = global::meter(METER);
    let instruments = Instrument::ALL.iter().map(|one| OtelInstrument::new(&meter, *one)).collect();
    INSTRUMENTS.set(instruments).ok();
}

/// The gauges of one collection: the collector reads each instrument separately, and all of them are read together.
struct CollectionSnapshot {
    read: Arc<dyn ObservableSource>,
    last: Mutex<Option<(Instant, Arc<GaugeSnapshot>)>>,
}

impl CollectionSnapshot {
    fn readings(&self) -> Arc<GaugeSnapshot> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, readings)) = &*last
            && at.elapsed() < ONE_COLLECTION
        {
            return Arc::clone(readings);
        }
        let mut readings = GaugeSnapshot::default();
        process::read(&mut readings);
        self.read.read(&mut readings);
        let readings = Arc::new(readings);
        *last = Some((Instant::now(), Arc::clone(&readings)));
        readings
    }
}

/// Exports the gauges at each collection. Does nothing if no collector is attached.
pub fn attach_readings(read: &Arc<dyn ObservableSource>) {
    if INSTRUMENTS.get().is_none() {
        return;
    }
    process::remember_runtime();
    let meter = global::meter(METER);
    let moment = Arc::new(CollectionSnapshot { read: Arc::clone(read), last: Mutex::default() });
    for instrument in Instrument::ALL.iter().copied() {
        let moment = Arc::clone(&moment);
        let values = move |record: &dyn Fn(f64, &[KeyValue])| {
            for (labels, value) in moment.readings().of(instrument) {
                with_attributes(labels, |attributes| record(*value, attributes));
            }
        };
        let (name, help, unit) = (instrument.stem(), instrument.help(), instrument.unit());
        match instrument.kind() {
            InstrumentKind::Gauge => {
                let gauge = meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    values(&|value, attributes| observer.observe(value, attributes));
                };
                let _instruments = gauge.with_callback(callback).build();
            }
            InstrumentKind::ReadCounter => {
                let counter = meter.f64_observable_counter(name).with_description(help).with_unit(unit);
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    values(&|value, attributes| observer.observe(value, attributes));
                };
                let _instruments = counter.with_callback(callback).build();
            }
            InstrumentKind::Counter | InstrumentKind::Histogram(_) => {}
        }
    }
}

pub(super) fn add(instrument: Instrument, words: &LabelValues, count: u64) {
    let instruments = INSTRUMENTS.get().and_then(|instruments| instruments.get(instrument as usize));
    let Some(OtelInstrument::Counter(counter)) = instruments else { return };
    with_attributes(&LabelSet::new(instrument, words.clone()), |attributes| counter.add(count, attributes));
}

pub(super) fn observe(instrument: Instrument, words: &LabelValues, value: f64) {
    let instruments = INSTRUMENTS.get().and_then(|instruments| instruments.get(instrument as usize));
    let Some(OtelInstrument::Histogram(histogram)) = instruments else { return };
    with_attributes(&LabelSet::new(instrument, words.clone()), |attributes| {
        histogram.record(value, attributes);
    });
}

/// Converts labels to OTLP attributes, without an allocation.
fn with_attributes(labels: &LabelSet, then: impl FnOnce(&[KeyValue])) {
    let attributes: [KeyValue; 3] = std::array::from_fn(|index| {
        let name = labels.names.get(index).copied().unwrap_or_default();
        let value: Value = match labels.words.get(index) {
            Some(LabelValue::Of(word)) => (*word).into(),
            Some(LabelValue::Source(name)) => name.shared().into(),
            Some(LabelValue::None) | None => "".into(),
        };
        KeyValue::new(name, value)
    });
    then(attributes.get(..labels.names.len()).unwrap_or_default());
}

impl OtelInstrument {
    fn new(meter: &Meter, instrument: Instrument) -> Self {
        let (name, help, unit) = (instrument.stem(), instrument.help(), instrument.unit());
        match instrument.kind() {
            InstrumentKind::Counter => {
                Self::Counter(meter.u64_counter(name).with_description(help).with_unit(unit).build())
            }
            InstrumentKind::Histogram(bounds) => {
                let histogram = meter.f64_histogram(name).with_description(help).with_unit(unit);
                Self::Histogram(histogram.with_boundaries(bounds.to_vec()).build())
            }
            InstrumentKind::Gauge | InstrumentKind::ReadCounter => Self::Nothing,
        }
    }
}
