//! Values that are read at each scrape: each component writes its present state.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::labels::{LabelSet, LabelValue, LabelValues};
use super::table::Instrument;

/// A component that reports its present state.
pub trait ObservableSource: Debug + Send + Sync {
    /// Writes all its values. Called at each scrape, so it must not block.
    fn read(&self, out: &mut GaugeSnapshot);
}

/// The values of one scrape.
#[derive(Debug, Default)]
pub struct GaugeSnapshot(BTreeMap<Instrument, Vec<(LabelSet, f64)>>);

impl GaugeSnapshot {
    /// Writes a value without labels.
    pub fn put(&mut self, instrument: Instrument, value: f64) {
        self.put_of(instrument, LabelValues::default(), value);
    }

    /// Writes the value of one label.
    pub fn put_for(&mut self, instrument: Instrument, word: impl Into<LabelValue>, value: f64) {
        self.put_of(instrument, [word.into(), LabelValue::None, LabelValue::None], value);
    }

    /// Writes the value of some labels, in the order of the table.
    pub fn put_of(&mut self, instrument: Instrument, words: LabelValues, value: f64) {
        self.0.entry(instrument).or_default().push((LabelSet::new(instrument, words), value));
    }

    /// The values of one instrument.
    pub(super) fn of(&self, instrument: Instrument) -> &[(LabelSet, f64)] {
        self.0.get(&instrument).map_or(&[], Vec::as_slice)
    }
}
