//! One line of the log: its content and format, and the escaping of data from clients and upstreams. Control
//! characters, line separators and marks that change the direction of text are written as `\uXXXX`, in both formats.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

/// The maximum number of bytes of one value; the rest is replaced by `…`.
pub(super) const VALUE_BYTES: usize = 2 * 1024;
/// The maximum number of fields of one line. No event of the gateway has more.
const FIELDS: usize = 32;

/// The format of the log. The composition root maps the configuration to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormatKind {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldValue {
    /// A value that may need quotes.
    Text(String),
    /// A number or a boolean, written without quotes.
    Plain(String),
}

/// The fields of an event or a span, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct LogFields {
    pub(super) message: String,
    pub(super) others: Vec<(&'static str, FieldValue)>,
}

impl LogFields {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.others.iter().find_map(|(other, value)| match value {
            FieldValue::Text(text) if *other == name => Some(text.as_str()),
            FieldValue::Text(_) | FieldValue::Plain(_) => None,
        })
    }

    fn put(&mut self, field: &Field, value: FieldValue) {
        if self.others.len() < FIELDS {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for LogFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut short = Truncated::default();
        // It fails when the value is full, which is no error.
        write!(short, "{value:?}").ok();
        if field.name() == "message" {
            self.message = short.text;
        } else {
            self.put(field, FieldValue::Text(short.text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut short = Truncated::default();
        short.write_str(value).ok();
        if field.name() == "message" {
            self.message = short.text;
        } else {
            self.put(field, FieldValue::Text(short.text));
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, FieldValue::Plain(value.to_string()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, FieldValue::Text(value.to_string()));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, FieldValue::Text(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let plain = value.is_finite().then(|| FieldValue::Plain(value.to_string()));
        self.put(field, plain.unwrap_or_else(|| FieldValue::Text(value.to_string())));
    }
}

/// A text that is truncated at the maximum length of a value.
#[derive(Default)]
struct Truncated {
    text: String,
    full: bool,
}

impl fmt::Write for Truncated {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        let room = VALUE_BYTES - self.text.len();
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        let end = more.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
        self.text.push_str(more.get(..end).unwrap_or_default());
        self.text.push('…');
        self.full = true;
        Err(fmt::Error)
    }
}

/// The context of a line, besides its fields.
#[derive(Debug)]
pub(super) struct LineContext<'a> {
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    /// The current trace and span.
    pub(super) trace: Option<(String, String)>,
    /// The current request.
    pub(super) request_id: Option<String>,
    /// The number of lines like this one that were suppressed before it.
    pub(super) repeats: Option<u64>,
}

impl<'a> LineContext<'a> {
    pub(super) fn of(metadata: &'a Metadata<'_>, message: &'a str) -> Self {
        let (level, target) = (*metadata.level(), metadata.target());
        Self { level, target, message, trace: None, request_id: None, repeats: None }
    }

    /// Writes the line with its line break.
    pub(super) fn render(
        &self,
        format: LogFormatKind,
        ansi: bool,
        fields: &[(&'static str, FieldValue)],
    ) -> String {
        let mut line = String::with_capacity(256);
        match format {
            LogFormatKind::Text => self.text(&mut line, ansi, fields),
            LogFormatKind::Json => self.json(&mut line, fields),
        }
        line.push('\n');
        line
    }

    fn json(&self, line: &mut String, fields: &[(&'static str, FieldValue)]) {
        line.push_str("{\"timestamp\":\"");
        now(line);
        line.push_str("\",\"level\":\"");
        line.push_str(self.level.as_str());
        line.push_str("\",\"target\":");
        quoted(line, self.target);
        line.push_str(",\"message\":");
        quoted(line, self.message);
        self.each(fields, |name, value| {
            line.push(',');
            quoted(line, name);
            line.push(':');
            match value {
                WrittenField::Text(text) => quoted(line, text),
                WrittenField::Plain(text) => line.push_str(text),
            }
        });
        line.push('}');
    }

    fn text(&self, line: &mut String, ansi: bool, fields: &[(&'static str, FieldValue)]) {
        now(line);
        let (colour, plain) = match (ansi, self.level) {
            (false, _) => ("", ""),
            (true, Level::ERROR) => ("\u{1b}[31m", "\u{1b}[0m"),
            (true, Level::WARN) => ("\u{1b}[33m", "\u{1b}[0m"),
            (true, Level::INFO) => ("\u{1b}[32m", "\u{1b}[0m"),
            (true, _) => ("\u{1b}[34m", "\u{1b}[0m"),
        };
        for part in [" ", colour] {
            line.push_str(part);
        }
        for _ in self.level.as_str().len()..5 {
            line.push(' ');
        }
        for part in [self.level.as_str(), plain, " ", self.target, ": "] {
            line.push_str(part);
        }
        escaped(line, self.message);
        self.each(fields, |name, value| {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            match value {
                WrittenField::Text(text) if is_plain(text) => line.push_str(text),
                WrittenField::Text(text) => quoted(line, text),
                WrittenField::Plain(text) => line.push_str(text),
            }
        });
    }

    /// Writes each field, those of the context last.
    fn each(&self, fields: &[(&'static str, FieldValue)], mut write: impl FnMut(&str, WrittenField<'_>)) {
        for (name, value) in fields {
            match value {
                FieldValue::Text(text) => write(name, WrittenField::Text(text)),
                FieldValue::Plain(text) => write(name, WrittenField::Plain(text)),
            }
        }
        if let Some(repeats) = self.repeats {
            write("repeats", WrittenField::Plain(&repeats.to_string()));
        }
        if let Some(id) = &self.request_id {
            write("request_id", WrittenField::Text(id));
        }
        if let Some((trace, span)) = &self.trace {
            write("trace_id", WrittenField::Text(trace));
            write("span_id", WrittenField::Text(span));
        }
    }
}

enum WrittenField<'a> {
    Text(&'a str),
    Plain(&'a str),
}

fn now(line: &mut String) {
    SystemTime.format_time(&mut Writer::new(line)).ok();
}

/// Whether a text can be written without quotes after a `=`.
fn is_plain(text: &str) -> bool {
    let fits =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '+' | '@' | '[' | ']');
    !text.is_empty() && text.chars().all(fits)
}

fn quoted(line: &mut String, text: &str) {
    line.push('"');
    escaped(line, text);
    line.push('"');
}

/// Writes a text as JSON does between quotes, and also escapes everything that a terminal or a line reader interprets.
fn escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if acts(c) => {
                write!(line, "\\u{:04x}", u32::from(c)).ok();
            }
            c => line.push(c),
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
    use proptest::prelude::*;

    use super::*;

    fn lines(text: &str) -> [String; 2] {
        let mut short = Truncated::default();
        short.write_str(text).ok();
        let fields = [("given", FieldValue::Text(short.text)), ("count", FieldValue::Plain("7".to_owned()))];
        [LogFormatKind::Text, LogFormatKind::Json].map(|format| {
            let frame = LineContext {
                level: Level::WARN,
                target: "jobgate",
                message: "fixed",
                trace: None,
                request_id: None,
                repeats: None,
            };
            frame.render(format, false, &fields)
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
            let read: serde_json::Value = serde_json::from_str(&as_json).unwrap();
            let given = read["given"].as_str().unwrap();
            prop_assert!(text.starts_with(given.trim_end_matches('…')) || given == text);
            prop_assert_eq!(&read["count"], 7);
            prop_assert!(as_text.ends_with(" count=7\n"));
        }
    }

    #[test]
    fn hostile_values_are_escaped_and_long_ones_truncated() {
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
        for line in lines(&"é".repeat(1 << 19)) {
            assert!(line.contains('…'));
            is_one_line(&line);
        }
    }
}
