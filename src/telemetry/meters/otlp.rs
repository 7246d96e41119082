//! The same values for a collector. Nothing happens here until [`attach`]: telling nobody costs one look at a cell.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value, global};
use tokio::time::Instant;

use super::book::Labels;
use super::readings::{Read, Readings};
use super::table::{Instrument, Kind};
use super::{Word, Words, process};

/// What names these metrics to a collector.
const METER: &str = "jobgate";

/// Within what time readings are those of one collection.
const ONE_COLLECTION: Duration = Duration::from_millis(100);

static TOLD: OnceLock<Vec<Told>> = OnceLock::new();

enum Told {
    Counter(Counter<u64>),
    Histogram(Histogram<f64>),
    Nothing,
}

/// Tells the collector of all counters and histograms from now on. Called once, after the global meter provider is set.
pub fn attach() {
    let meter = global::meter(METER);
    let told = Instrument::ALL.iter().map(|one| Told::new(&meter, *one)).collect();
    TOLD.set(told).ok();
}

/// What is read for one collection: it asks for each instrument by itself, and all of them are read together.
struct Moment {
    read: Arc<dyn Read>,
    last: Mutex<Option<(Instant, Arc<Readings>)>>,
}

impl Moment {
    fn readings(&self) -> Arc<Readings> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, readings)) = &*last
            && at.elapsed() < ONE_COLLECTION
        {
            return Arc::clone(readings);
        }
        let mut readings = Readings::default();
        process::read(&mut readings);
        self.read.read(&mut readings);
        let readings = Arc::new(readings);
        *last = Some((Instant::now(), Arc::clone(&readings)));
        readings
    }
}

/// Tells the collector of what is read, whenever it collects. Does nothing where none is attached.
pub fn attach_readings(read: &Arc<dyn Read>) {
    if TOLD.get().is_none() {
        return;
    }
    process::remember_runtime();
    let meter = global::meter(METER);
    let moment = Arc::new(Moment { read: Arc::clone(read), last: Mutex::default() });
    for instrument in Instrument::ALL.iter().copied() {
        let moment = Arc::clone(&moment);
        let values = move |tell: &dyn Fn(f64, &[KeyValue])| {
            for (labels, value) in moment.readings().of(instrument) {
                with_attributes(labels, |attributes| tell(*value, attributes));
            }
        };
        let (name, help, unit) = (instrument.stem(), instrument.help(), instrument.unit());
        match instrument.kind() {
            Kind::Gauge => {
                let gauge = meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    values(&|value, attributes| observer.observe(value, attributes));
                };
                let _told = gauge.with_callback(callback).build();
            }
            Kind::ReadCounter => {
                let counter = meter.f64_observable_counter(name).with_description(help).with_unit(unit);
                let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
                    values(&|value, attributes| observer.observe(value, attributes));
                };
                let _told = counter.with_callback(callback).build();
            }
            Kind::Counter | Kind::Histogram(_) => {}
        }
    }
}

pub(super) fn add(instrument: Instrument, words: &Words, count: u64) {
    let told = TOLD.get().and_then(|told| told.get(instrument as usize));
    let Some(Told::Counter(counter)) = told else { return };
    with_attributes(&Labels::new(instrument, words.clone()), |attributes| counter.add(count, attributes));
}

pub(super) fn observe(instrument: Instrument, words: &Words, value: f64) {
    let told = TOLD.get().and_then(|told| told.get(instrument as usize));
    let Some(Told::Histogram(histogram)) = told else { return };
    with_attributes(&Labels::new(instrument, words.clone()), |attributes| {
        histogram.record(value, attributes);
    });
}

/// Hands on labels as a collector knows them, without an allocation.
fn with_attributes(labels: &Labels, then: impl FnOnce(&[KeyValue])) {
    let attributes: [KeyValue; 3] = std::array::from_fn(|place| {
        let name = labels.names.get(place).copied().unwrap_or_default();
        let value: Value = match labels.words.get(place) {
            Some(Word::Of(word)) => (*word).into(),
            Some(Word::Source(name)) => name.shared().into(),
            Some(Word::None) | None => "".into(),
        };
        KeyValue::new(name, value)
    });
    then(attributes.get(..labels.names.len()).unwrap_or_default());
}

impl Told {
    fn new(meter: &Meter, instrument: Instrument) -> Self {
        let (name, help, unit) = (instrument.stem(), instrument.help(), instrument.unit());
        match instrument.kind() {
            Kind::Counter => {
                Self::Counter(meter.u64_counter(name).with_description(help).with_unit(unit).build())
            }
            Kind::Histogram(bounds) => {
                let histogram = meter.f64_histogram(name).with_description(help).with_unit(unit);
                Self::Histogram(histogram.with_boundaries(bounds.to_vec()).build())
            }
            Kind::Gauge | Kind::ReadCounter => Self::Nothing,
        }
    }
}
