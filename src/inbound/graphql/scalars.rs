//! Scalars of our own, where the built-in ones would lose something.

use std::time::Duration as StdDuration;

use async_graphql::{InputValueError, InputValueResult, Name, Scalar, ScalarType, Value};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::coerce::TextScalar;
use crate::domain::duration;

/// A moment in RFC 3339 form, in UTC, such as `2026-11-21T19:10:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub Timestamp);

#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
/// A moment in RFC 3339 form, in UTC, such as `2026-11-21T19:10:00Z`.
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// A literal that does not read is the document's fault, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A span of time as a whole number and a unit: `250ms`, `30s`, `5m`, `24h` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub StdDuration);

#[Scalar(name = "Duration")]
/// A span of time as a whole number and a unit: `250ms`, `30s`, `5m`, `24h` or `30d`.
impl ScalarType for Duration {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// A literal that does not read is the document's fault, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(duration::format(self.0))
    }
}

/// A 64-bit integer as a text of digits, since JSON readers round numbers beyond 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int64(pub i64);

#[Scalar(name = "Int64")]
/// A 64-bit integer as a text of digits: GraphQL's Int holds 32 bits, and JSON readers round numbers beyond 2^53.
impl ScalarType for Int64 {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// A literal that does not read is the document's fault, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl DateTime {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "must be an RFC 3339 date-time".to_owned())
    }
}

impl Duration {
    fn read(text: &str) -> Result<Self, String> {
        duration::parse(text).map(Self).map_err(|error| error.to_string())
    }
}

impl Int64 {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "must be a 64-bit integer in digits".to_owned())
    }
}

/// The scalars that are written as strings, with what reads each: variables are judged by it beforehand.
pub(super) const TEXTS: [(&str, TextScalar); 3] = [
    ("DateTime", |text| DateTime::read(text).map(drop)),
    ("Duration", |text| Duration::read(text).map(drop)),
    ("Int64", |text| Int64::read(text).map(drop)),
];

/// One JSON value, written with the very bytes the upstream sent.
#[derive(Clone, Debug)]
pub struct Json(Box<RawValue>);

impl Json {
    /// A value whose bytes were kept.
    pub fn raw(value: Box<RawValue>) -> Self {
        Self(value)
    }

    /// A value in its own text.
    pub fn text(text: &str) -> Option<Self> {
        RawValue::from_string(text.to_owned()).ok().map(Self)
    }
}

/// The engine writes an object with this one member verbatim (its feature `raw_value`).
const VERBATIM: &str = "$serde_json::private::RawValue";

#[Scalar(name = "JSON")]
/// Any JSON value as the upstream sent it, digit by digit: `1.10` stays `1.10`.
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        Err(InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        let text = Value::String(self.0.get().to_owned());
        Value::Object([(Name::new(VERBATIM), text)].into_iter().collect())
    }
}
