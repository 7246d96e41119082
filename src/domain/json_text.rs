//! One JSON value as a text.

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// One JSON value in the upstream's own spelling, without insignificant whitespace: no digit of a number is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonText(String);

impl JsonText {
    /// Parses a text as a value; `None` if it is not JSON, or nested more deeply than parsers accept.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Value>(text).ok()?;
        let (mut in_text, mut escaped) = (false, false);
        let is_kept = |c: &char| {
            match c {
                _ if escaped => escaped = false,
                '\\' if in_text => escaped = true,
                '"' => in_text = !in_text,
                ' ' | '\t' | '\n' | '\r' => return in_text,
                _ => {}
            }
            true
        };
        Some(Self(text.chars().filter(is_kept).collect()))
    }

    /// The value as JSON.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// The value as JSON.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Serialize for JsonText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}
