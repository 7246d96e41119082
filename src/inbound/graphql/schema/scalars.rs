//! Custom scalars, where the built-in ones would lose information.

use std::borrow::Cow;
use std::time::Duration as StdDuration;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, InputValueError, InputValueResult, Name, OutputType, Positioned, Scalar, ScalarType,
    ServerError, ServerResult, Value,
};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::domain::duration;
use crate::inbound::answer_limits::answer_memory::charge;
use crate::inbound::graphql::document::coercion::TextScalar;
use crate::inbound::graphql::plan::selection::SelectedField;
use crate::inbound::graphql::plan::writer::{AnswerWriter, WriteJson};
use crate::jobs::rows::Cells;

/// A date and time in RFC 3339 format, in UTC, for example `2026-11-21T19:10:00Z`. Up to 9 fractional digits. As input,
/// any UTC offset is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime(pub Timestamp);

#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
/// A date and time in RFC 3339 format, in UTC, for example `2026-11-21T19:10:00Z`. Up to 9 fractional digits. As input,
/// any UTC offset is accepted.
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// An invalid literal is an error of the document, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A duration: a whole number and one of the units `ms`, `s`, `m`, `h` and `d`, for example `250ms` or `30d`. No sign,
/// fraction or combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duration(pub StdDuration);

#[Scalar(name = "Duration")]
/// A duration: a whole number and one of the units `ms`, `s`, `m`, `h` and `d`, for example `250ms` or `30d`. No sign,
/// fraction or combination.
impl ScalarType for Duration {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// An invalid literal is an error of the document, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(duration::format(self.0))
    }
}

/// A signed 64-bit integer, encoded as a string of decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int64(pub i64);

#[Scalar(name = "Int64")]
/// A signed 64-bit integer, encoded as a string of decimal digits, because `Int` is limited to 32 bits and JSON parsers
/// round numbers above 2^53.
impl ScalarType for Int64 {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else { return Err(InputValueError::expected_type(value)) };
        Self::read(text).map_err(InputValueError::custom)
    }

    /// An invalid literal is an error of the document, found before anything runs.
    fn is_valid(value: &Value) -> bool {
        matches!(value, Value::String(text) if Self::read(text).is_ok())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

impl WriteJson for DateTime {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.timestamp(&self.0);
    }
}

impl WriteJson for Int64 {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.quoted(self.0);
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
        text.parse().map(Self).map_err(|_| "must be a 64-bit integer in decimal digits".to_owned())
    }
}

/// The scalars that are written as strings, with their parsers: variables are validated by them before execution.
pub(super) const TEXTS: [(&str, TextScalar); 3] = [
    ("DateTime", |text| DateTime::read(text).map(drop)),
    ("Duration", |text| Duration::read(text).map(drop)),
    ("Int64", |text| Int64::read(text).map(drop)),
];

/// One JSON value, serialized with the exact bytes of the upstream.
#[derive(Clone, Debug)]
pub struct Json(Box<RawValue>);

impl Json {
    /// A value from its text.
    pub fn text(text: &str) -> Option<Self> {
        RawValue::from_string(text.to_owned()).ok().map(Self)
    }
}

/// The engine writes an object with this one member verbatim (its feature `raw_value`).
const VERBATIM: &str = "$serde_json::private::RawValue";

#[Scalar(name = "JSON")]
/// Any JSON value, exactly as the upstream sent it: `1.10` is not changed to `1.1`. The value can be JSON `null`, also
/// where the type is `JSON!`.
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        Err(InputValueError::expected_type(value))
    }

    /// A value that does not fit into the answer is omitted: the whole answer is rejected then.
    fn to_value(&self) -> Value {
        let text = self.0.get();
        if charge(text.len() + MAP_BYTES) { verbatim(text.to_owned()) } else { Value::Null }
    }
}

impl WriteJson for Json {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.upstream_json(self.0.get(), MAP_BYTES);
    }
}

/// The approximate size of a map of one member, beside its text.
const MAP_BYTES: usize = 100;

fn verbatim(text: String) -> Value {
    Value::Object([(Name::new(VERBATIM), Value::String(text))].into_iter().collect())
}

/// A text of an upstream. Its length is not limited, so it is counted when it is added to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamText(String);

impl From<String> for UpstreamText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl OutputType for UpstreamText {
    fn type_name() -> Cow<'static, str> {
        <String as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <String as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        if charge(self.0.len()) { Ok(Value::String(self.0.clone())) } else { Err(does_not_fit(field)) }
    }
}

impl WriteJson for UpstreamText {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.upstream_text(&self.0);
    }
}

/// The cells of a row, serialized as one value: one for each would need ten times the memory.
#[derive(Clone, Debug)]
pub struct JsonRow(pub(super) Cells);

impl OutputType for JsonRow {
    fn type_name() -> Cow<'static, str> {
        <Vec<Json> as OutputType>::type_name()
    }

    fn qualified_type_name() -> String {
        <Vec<Json> as OutputType>::qualified_type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <Vec<Json> as OutputType>::create_type_info(registry)
    }

    async fn resolve(&self, _: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        let bytes = self.0.iter().map(|cell| cell.get().len() + 1).sum::<usize>() + 2;
        if !charge(bytes + MAP_BYTES) {
            return Err(does_not_fit(field));
        }
        let mut text = String::with_capacity(bytes);
        text.push('[');
        for (index, cell) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(cell.get());
        }
        text.push(']');
        Ok(verbatim(text))
    }
}

impl WriteJson for JsonRow {
    fn write(&self, _: &SelectedField, out: &mut AnswerWriter<'_>) {
        out.list(self.0.iter(), |out, cell| out.upstream_json(cell.get(), 1));
    }
}

/// Why a field has no value. The whole answer is rejected, so no client receives it.
fn does_not_fit(field: &Positioned<Field>) -> ServerError {
    ServerError::new("the response is too large", Some(field.pos))
}
