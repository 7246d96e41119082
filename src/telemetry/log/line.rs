//! One line of the log: its content and format, and the escaping of data from clients and upstreams. Control
//! characters, line separators and marks that change the direction of text are written as `\uXXXX`, in both formats.

use std::fmt::{Debug, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

/// The maximum number of bytes of one value; the rest is replaced by `…`.
pub(super) const VALUE_BYTES: usize = 2 * 1024;

/// The format of the log. The composition root maps the configuration to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormatKind {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The fields of an event, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct LogFields {
    pub(super) message: String,
    pub(super) others: Vec<(&'static str, Value)>,
}

impl LogFields {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|(other, _)| *other == name)?.1.as_str()
    }

    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.others.push((name, value.into()));
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > VALUE_BYTES {
            text.truncate(text.floor_char_boundary(VALUE_BYTES));
            text.push('…');
        }
        if field.name() == "message" {
            self.message = text;
        } else {
            self.put(field.name(), text);
        }
    }
}

impl Visit for LogFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineFormat {
    pub(super) kind: LogFormatKind,
    pub(super) ansi: bool,
}

impl LineFormat {
    /// The line of an event, with its line break.
    pub(super) fn of(self, metadata: &Metadata<'_>, fields: &LogFields) -> String {
        let (level, target) = (*metadata.level(), metadata.target());
        let mut line = String::with_capacity(256);
        let mut data = String::with_capacity(256);
        // A `String` accepts everything that is written to it.
        match self.kind {
            LogFormatKind::Json => {
                line.push_str("{\"timestamp\":\"");
                now(&mut line);
                write!(line, "\",\"level\":\"{level}\",").ok();
                write!(data, "\"target\":{},\"message\":{}", json(target), json(&fields.message)).ok();
                for (name, value) in &fields.others {
                    write!(data, ",\"{name}\":{value}").ok();
                }
                data.push('}');
            }
            LogFormatKind::Text => {
                now(&mut line);
                let (colour, plain) = self.colour(level);
                write!(line, " {colour}{level:>5}{plain} ").ok();
                let message = json(&fields.message);
                write!(data, "{target}: {}", message.get(1..message.len() - 1).unwrap_or_default()).ok();
                for (name, value) in &fields.others {
                    match value.as_str().filter(|text| is_plain(text)) {
                        Some(text) => write!(data, " {name}={text}").ok(),
                        None => write!(data, " {name}={value}").ok(),
                    };
                }
            }
        }
        escape(&mut line, &data);
        line.push('\n');
        line
    }

    const fn colour(self, level: Level) -> (&'static str, &'static str) {
        match (self.ansi, level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\u{1b}[31m", "\u{1b}[0m"),
            (true, Level::WARN) => ("\u{1b}[33m", "\u{1b}[0m"),
            (true, Level::INFO) => ("\u{1b}[32m", "\u{1b}[0m"),
            (true, _) => ("\u{1b}[34m", "\u{1b}[0m"),
        }
    }
}

fn now(line: &mut String) {
    SystemTime.format_time(&mut Writer::new(line)).ok();
}

/// A text in quotes, escaped.
fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Whether a text can be written without quotes after a `=`.
fn is_plain(text: &str) -> bool {
    let fits =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | '@' | '[' | ']');
    !text.is_empty() && text.chars().all(fits)
}

/// Escapes what JSON permits in a text, but a terminal or a line reader interprets.
fn escape(line: &mut String, data: &str) {
    for c in data.chars() {
        if acts(c) {
            write!(line, "\\u{:04x}", u32::from(c)).ok();
        } else {
            line.push(c);
        }
    }
}

/// Control characters of both sets, line separators, marks that reverse or hide text. All of them are below U+10000.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::log::tests::log_text_in;

    fn lines(text: &str) -> [String; 2] {
        [LogFormatKind::Text, LogFormatKind::Json].map(|kind| {
            log_text_in(kind, || tracing::warn!(given = text, count = 7, "fixed"), Duration::ZERO)
        })
    }

    fn is_one_line(line: &str) {
        let Some(inner) = line.strip_suffix('\n') else { panic!("{line:?}") };
        assert!(!inner.chars().any(acts), "{line:?}");
        assert!(line.len() < 8 * VALUE_BYTES, "{} bytes", line.len());
    }

    proptest! {
        /// For every value: one line, nothing in it that a terminal interprets, JSON that parses to the same value, and
        /// in text no additional field.
        #[test]
        fn no_value_breaks_a_log_line(text in any::<String>()) {
            let [as_text, as_json] = lines(&text);
            is_one_line(&as_text);
            is_one_line(&as_json);
            let read: Value = serde_json::from_str(&as_json).unwrap();
            let given = read["given"].as_str().unwrap();
            prop_assert!(text.starts_with(given.trim_end_matches('…')) || given == text);
            prop_assert_eq!(&read["count"], 7);
            prop_assert!(as_text.ends_with(" count=7\n"));
        }
    }

    #[test]
    fn hostile_values_are_escaped() {
        for (given, text, json) in [
            ("a\nb", r#"given="a\nb""#, r#""given":"a\nb""#),
            ("\u{1b}[2J", r#"given="\u001b[2J""#, r#""given":"\u001b[2J""#),
            ("a\u{2028}b\u{9b}", r#"given="a\u2028b\u009b""#, r#""given":"a\u2028b\u009b""#),
            ("a\" count=8", r#"given="a\" count=8""#, r#""given":"a\" count=8""#),
            ("\u{202e}gpj", r#"given="\u202egpj""#, r#""given":"\u202egpj""#),
            ("127.0.0.1:80", "given=127.0.0.1:80", r#""given":"127.0.0.1:80""#),
            ("", r#"given="""#, r#""given":"""#),
        ] {
            let [as_text, as_json] = lines(given);
            assert!(as_text.contains(&format!("fixed {text} count=7")), "{as_text}");
            assert!(as_json.contains(&format!("{json},\"count\":7}}")), "{as_json}");
        }
    }

    #[test]
    fn long_values_are_truncated() {
        for line in lines(&"é".repeat(1 << 19)) {
            assert!(line.contains('…'));
            is_one_line(&line);
        }
    }
}
