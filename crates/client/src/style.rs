//! How text looks on a terminal: the colour of a state, the width of a text, and what is left of one that does not fit.

use std::borrow::Cow;

use console::{measure_text_width, truncate_str};
use jiff::Timestamp;

/// The mark of an omission.
const OMISSION: &str = "…";

/// Paints `text` in the colour of a `JobState`, with the codes that every terminal knows. A state of a later gateway
/// has no colour.
pub(super) fn paint<'a>(state: &str, text: &'a str, coloured: bool) -> Cow<'a, str> {
    let code = match state {
        "SUCCEEDED" => 32,
        "FAILED" => 31,
        "CANCELED" | "EXPIRED" => 35,
        "RUNNING" => 36,
        "UNKNOWN" => 33,
        _ => return text.into(),
    };
    if coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m").into() } else { text.into() }
}

/// The number of terminal cells that a text without control characters takes.
pub(super) fn width(text: &str) -> usize {
    measure_text_width(text)
}

/// The text in at most `most` cells, cut at its end.
pub(super) fn cut(text: &str, most: usize) -> Cow<'_, str> {
    truncate_str(text, most, OMISSION)
}

/// The text in at most `most` cells, cut in its middle: names often differ at their ends only.
pub(super) fn cut_middle(text: &str, most: usize) -> Cow<'_, str> {
    if width(text) <= most {
        return text.into();
    }
    let kept = most.saturating_sub(1);
    let mut tail = String::new();
    for c in text.chars().rev() {
        let longer = format!("{c}{tail}");
        if width(&longer) > kept / 2 {
            break;
        }
        tail = longer;
    }
    let head = truncate_str(text, kept - width(&tail), "");
    cut(&format!("{head}{OMISSION}{tail}"), most).into_owned().into()
}

/// The text, filled with blanks to `cells`.
pub(super) fn pad(text: &str, cells: usize) -> String {
    format!("{text}{:1$}", "", cells.saturating_sub(width(text)))
}

/// A span of seconds in its largest unit: `42s`, `4m`, `3h`, `5d`. One that is negative is `0s`.
pub(super) fn span(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// The time from `from` to `to`, if both are times.
pub(super) fn since(from: &str, to: Timestamp) -> Option<String> {
    let from: Timestamp = from.parse().ok()?;
    Some(span(to.as_second() - from.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_name_is_cut_in_its_middle_to_the_width() {
        for (text, most, expected) in [
            ("audit/65f0", 10, "audit/65f0"),
            ("audit/65f0c0ff01", 10, "audit…ff01"),
            ("audit/65f0c0ff01", 3, "a…1"),
            ("audit/65f0c0ff01", 1, "…"),
            ("日本語日本語日本語", 7, "日本…語"),
        ] {
            assert_eq!(cut_middle(text, most), expected, "{text} in {most}");
            assert!(width(&cut_middle(text, most)) <= most);
        }
    }

    #[test]
    fn span_is_printed_in_its_largest_unit() {
        for (seconds, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (86_399, "23h"),
            (900_000, "10d"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }

    #[test]
    fn state_is_coloured_only_on_request() {
        assert_eq!(paint("FAILED", "FAILED  ", true), "\u{1b}[31mFAILED  \u{1b}[0m");
        assert_eq!(paint("FAILED", "FAILED", false), "FAILED");
        assert_eq!(paint("A_LATER_STATE", "A_LATER_STATE", true), "A_LATER_STATE");
    }
}
