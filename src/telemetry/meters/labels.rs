//! The labels of recorded values. A value is a constant of this code or the name of a configured source.

use std::fmt;
use std::hash::{Hash, Hasher};

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

/// One set of labels with its values. The names are those of its instrument, which each family has only one of: values
/// are compared and hashed alone.
#[derive(Clone, Debug, Eq)]
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

    /// The values as one number (FNV-1a).
    pub(super) fn number(&self) -> u64 {
        self.words.iter().fold(FNV_START, |hash, word| fnv(hash, word.text()))
    }
}

/// A number of label values for a cache: equal ones mostly have the same. A constant is identified by its address.
pub(super) fn slot_key(words: &LabelValues) -> u64 {
    words.iter().fold(0, |number: u64, word| {
        let text = match word {
            LabelValue::None => 0,
            LabelValue::Of(constant) => constant.as_ptr().addr() as u64,
            LabelValue::Source(name) => fnv(FNV_START, name.as_str()),
        };
        (number.rotate_left(5) ^ text).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Whether label values are equal and their constants are the same: cheaper than equality, and mostly the same.
pub(super) fn is_same(words: &LabelValues, others: &LabelValues) -> bool {
    words.iter().zip(others).all(|pair| match pair {
        (LabelValue::Of(word), LabelValue::Of(other)) => std::ptr::eq(*word, *other),
        (word, other) => word == other,
    })
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Continues a hash (FNV-1a).
fn fnv(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Hash for LabelSet {
    /// As one number: the hasher of the family takes longer for each text than for all of them together.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.number());
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
