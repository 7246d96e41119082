//! The labels of recorded values. A value is a constant of this code or the name of a configured source.

use std::fmt;

use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};

use super::table::Instrument;
use crate::domain::id::SourceName;

/// The value of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum LabelValue {
    /// No value: the instrument has fewer labels.
    #[default]
    None,
    /// A constant of this code.
    Of(&'static str),
    /// The name of a configured source.
    Source(SourceName),
}

/// The label values of an instrument, in the order of its table row.
pub type LabelValues = [LabelValue; 3];

impl From<&'static str> for LabelValue {
    fn from(word: &'static str) -> Self {
        Self::Of(word)
    }
}

impl From<&SourceName> for LabelValue {
    fn from(name: &SourceName) -> Self {
        Self::Source(name.clone())
    }
}

/// One set of labels with its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelSet {
    pub(super) names: &'static [&'static str],
    pub(super) words: LabelValues,
}

impl LabelValue {
    /// The value as text.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::None => "",
            Self::Of(word) => word,
            Self::Source(name) => name.as_str(),
        }
    }
}

impl LabelSet {
    /// The labels of an instrument.
    pub(super) const fn new(instrument: Instrument, words: LabelValues) -> Self {
        Self { names: instrument.labels(), words }
    }
}

impl EncodeLabelSet for LabelSet {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, word) in self.names.iter().zip(&self.words) {
            (*name, word.text()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
