//! Tolerant parsing: a field of the wrong type is a missing field, never an error.
//!
//! Uses the raw text, so that even a number that is too large or a value that is nested too deeply affects no other
//! field. Structures are parsed from objects only: derived deserializers would accept a list as well, by position.
//! Numbers are parsed from texts too, and ids from numbers, because loosely typed backends mix the two.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::json_text::JsonText;

/// Parses a body as an object; `None` when it is anything else.
pub(super) fn object<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Option<T> {
    text.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(text).ok())?
}

/// Parses a field that may be missing, null or anything else; any other type is ignored. Not for structures.
pub(super) fn tolerant<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// Parses a structure that may be missing, null or anything else.
pub(super) fn tolerant_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(object(raw.get().as_bytes()))
}

/// Parses a list of structures that may be anything else; other items are skipped.
pub(super) fn tolerant_objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let items: Option<Vec<&'de RawValue>> = tolerant(deserializer)?;
    Ok(items.unwrap_or_default().into_iter().filter_map(|raw| object(raw.get().as_bytes())).collect())
}

/// Parses a whole number of any type that contains it: `3`, `3.0` or `"3"`.
pub(super) fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let read = |text: &str| {
        let (digits, rest) = text.split_once('.').unwrap_or((text, "0"));
        let is_whole = !rest.is_empty() && rest.bytes().all(|digit| digit == b'0');
        T::try_from(digits.parse::<i128>().ok().filter(|_| is_whole)?).ok()
    };
    Ok(scalar(raw.get()).and_then(|text| read(&text)))
}

/// Parses a number, also from a text; a number that is not finite is missing.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let read = |text: Cow<'_, str>| text.parse::<f64>().ok().filter(|number| number.is_finite());
    Ok(scalar(raw.get()).and_then(read))
}

/// Parses a boolean, also from 1 or 0, and both also from text.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    Ok(scalar(raw.get()).and_then(|text| match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }))
}

/// Parses an id or a code: a text, or a whole number with all of its digits.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let text = raw.get();
    let is_whole = text.strip_prefix('-').unwrap_or(text).bytes().all(|digit| digit.is_ascii_digit());
    Ok(if is_whole { Some(text.to_owned()) } else { serde_json::from_str(text).ok() })
}

/// Parses a text. A structure that is not empty is kept as its own JSON, so that nothing in it is lost.
pub(super) fn text_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let text = raw.get();
    Ok(match text.bytes().next() {
        Some(b'{' | b'[') if is_empty_value(text) => None,
        Some(b'{' | b'[') => JsonText::parse(text).map(JsonText::into_text),
        _ => serde_json::from_str(text).ok(),
    })
}

/// Parses a list of values, each in its own text; a single value is a list of one.
pub(super) fn values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<JsonText>, D::Error> {
    let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
    let items: Vec<&RawValue> = match serde_json::from_str(raw.get()) {
        Ok(items) => items,
        Err(_) if is_empty_value(raw.get()) => Vec::new(),
        Err(_) => vec![raw],
    };
    Ok(items.into_iter().filter_map(|item| JsonText::parse(item.get())).collect())
}

/// A number, a text or a truth value as plain text, without blanks around it.
fn scalar(raw: &str) -> Option<Cow<'_, str>> {
    match raw.bytes().next()? {
        b'"' => {
            let text: String = serde_json::from_str(raw).ok()?;
            Some(text.trim().to_owned().into())
        }
        b'{' | b'[' => None,
        _ => Some(raw.into()),
    }
}

/// The longest value that is checked for emptiness, in bytes; a longer one is not empty.
const EMPTY_MAX: usize = 4_096;

/// Whether a value is empty: null, false, 0, an empty or blank text, or a structure that contains nothing else. Loosely
/// typed backends write any of them where there is no object.
pub(super) fn is_empty_value(raw: &str) -> bool {
    fn nothing(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Bool(truth) => !truth,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.trim().is_empty(),
            Value::Array(items) => items.iter().all(nothing),
            Value::Object(members) => members.values().all(nothing),
        }
    }
    raw.len() <= EMPTY_MAX && serde_json::from_str(raw).is_ok_and(|value| nothing(&value))
}

/// The members of an object that are complete in the head of its text, as an object of their own. `None` without any.
///
/// A response that is too large to be read completely may still contain the requested values in its first members.
pub(super) fn whole_members(head: &[u8]) -> Option<Vec<u8>> {
    let head = head.trim_ascii_start();
    if head.first() != Some(&b'{') {
        return None;
    }
    let (mut depth, mut in_text, mut escaped, mut end) = (0_usize, false, false, None);
    for (at, byte) in head.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 1 => end = Some(at),
            _ => {}
        }
    }
    Some([head.get(..end?)?, b"}"].concat())
}

/// Whether a response names the requested id. Case is not compared: some backends fold it.
pub(super) fn is_same_id(returned: &str, requested: &str) -> bool {
    returned.trim().eq_ignore_ascii_case(requested)
}

/// A time in the upstreams' format: RFC 3339, with an offset.
pub(super) fn timestamp(text: Option<&str>) -> Option<Timestamp> {
    text?.trim().parse().ok()
}

/// The text, unless it is blank.
pub(super) fn non_blank(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Loose {
        #[serde(deserialize_with = "whole")]
        whole: Option<i64>,
        #[serde(deserialize_with = "number")]
        number: Option<f64>,
        #[serde(deserialize_with = "flag")]
        flag: Option<bool>,
        #[serde(deserialize_with = "id")]
        id: Option<String>,
        #[serde(deserialize_with = "text_or_json")]
        text: Option<String>,
        #[serde(deserialize_with = "values")]
        values: Vec<JsonText>,
    }

    fn read(field: &str, value: &str) -> Loose {
        object(format!("{{\"{field}\":{value}}}").as_bytes()).unwrap()
    }

    #[test]
    fn numbers_are_parsed_from_strings() {
        for (value, expected) in [
            ("3", Some(3)),
            ("3.0", Some(3)),
            (r#""3""#, Some(3)),
            (r#"" -3 ""#, Some(-3)),
            (r#""9007199254740993""#, Some(9_007_199_254_740_993)),
            ("3.5", None),
            ("1e2", None),
            (r#""3 rows""#, None),
            (r#""""#, None),
            ("99999999999999999999", None),
            ("[3]", None),
            ("true", None),
        ] {
            assert_eq!(read("whole", value).whole, expected, "{value}");
        }
        for (value, expected) in [
            ("1.5", Some(1.5)),
            (r#""1.5""#, Some(1.5)),
            ("1e999", None),
            (r#""inf""#, None),
            (r#""NaN""#, None),
            ("null", None),
        ] {
            assert_eq!(read("number", value).number, expected, "{value}");
        }
        for (value, expected) in [
            ("true", Some(true)),
            ("1", Some(true)),
            (r#""1""#, Some(true)),
            (r#""False""#, Some(false)),
            ("0", Some(false)),
            ("2", None),
            ("[]", None),
        ] {
            assert_eq!(read("flag", value).flag, expected, "{value}");
        }
    }

    #[test]
    fn ids_keep_their_digits() {
        for (value, expected) in [
            (r#""007""#, Some("007")),
            ("9007199254740993", Some("9007199254740993")),
            ("18446744073709551616", Some("18446744073709551616")),
            ("-1", Some("-1")),
            ("1.5", None),
            ("{}", None),
            ("null", None),
        ] {
            assert_eq!(read("id", value).id.as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn account_values_keep_their_digits() {
        for (value, expected) in [
            (
                r#"[9007199254740993, "007", 18446744073709551616, 1.10]"#,
                vec!["9007199254740993", r#""007""#, "18446744073709551616", "1.10"],
            ),
            (r#"[{ "id" : "a b" }]"#, vec![r#"{"id":"a b"}"#]),
            (r#""123""#, vec![r#""123""#]),
            (r#""""#, vec![]),
            ("null", vec![]),
            ("[]", vec![]),
        ] {
            let read = read("values", value).values;
            assert_eq!(read.iter().map(JsonText::get).collect::<Vec<_>>(), expected, "{value}");
        }
    }

    #[test]
    fn empty_values_are_recognized() {
        for value in ["null", "false", "0", "0.0", r#""""#, r#"" ""#, "[]", "{}", r#"[[],{"a":""}]"#] {
            assert!(is_empty_value(value), "{value}");
        }
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        for value in ["true", "1", r#""x""#, "[0,1]", r#"{"a":{"b":"c"}}"#, &deep] {
            assert!(!is_empty_value(value), "{value}");
        }
    }

    #[test]
    fn text_of_an_object_is_its_json_unless_empty() {
        assert_eq!(read("text", "[]").text, None);
        assert_eq!(read("text", r#"{"why": "x"}"#).text.as_deref(), Some(r#"{"why":"x"}"#));
    }

    #[test]
    fn complete_members_of_a_truncated_body_form_an_object() {
        let cases: [(&str, Option<&str>); 8] = [
            (r#"{"a":{"b":[1,2]},"data":[["x","#, Some(r#"{"a":{"b":[1,2]}}"#)),
            (r#" {"a":"x,\"}","b":1,"c"#, Some(r#"{"a":"x,\"}","b":1}"#)),
            (r#"{"a":1,"b":"#, Some(r#"{"a":1}"#)),
            (r#"{"data":[["x","y"],["#, None),
            (r#"{"a"#, None),
            ("    ", None),
            ("[1,2", None),
            ("", None),
        ];
        for (head, expected) in cases {
            let members = whole_members(head.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
            assert_eq!(members.as_deref(), expected, "{head}");
        }
    }
}
