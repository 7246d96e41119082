//! Tolerant reading: a field of the wrong type is a missing field, never a failed read.
//!
//! Goes through the raw text, so that even a number too large to hold or a value nested too deep spoils nothing beside
//! it. Structures are read from objects alone: derived readers would take a list as well, by position.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Reads a body as an object; `None` when it is anything else.
pub(super) fn object<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Option<T> {
    text.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(text).ok())?
}

/// Reads a field that may be missing, null or anything else; only the right type counts. Not for structures.
pub(super) fn tolerant<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// Reads a structure that may be missing, null or anything else.
pub(super) fn tolerant_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(object(raw.get().as_bytes()))
}

/// Reads a list of structures that may be anything else, without the items that are none.
pub(super) fn tolerant_objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let items: Option<Vec<&'de RawValue>> = tolerant(deserializer)?;
    Ok(items.unwrap_or_default().into_iter().filter_map(|raw| object(raw.get().as_bytes())).collect())
}

/// A time as the upstreams write it: RFC 3339, and nothing without its offset.
pub(super) fn timestamp(text: Option<&str>) -> Option<Timestamp> {
    text?.trim().parse().ok()
}

/// The text, unless there is nothing in it.
pub(super) fn told(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).cloned()
}
