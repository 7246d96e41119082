//! Why a response was rejected, in one bounded line: for the log, the status page and `lastError`. The upstream's text
//! was masked when it arrived; here it is shortened, and characters that could break a line or a terminal are escaped.

use std::fmt::Write as _;

use serde_json::Value;

use crate::outbound::http::UpstreamReply;

/// Characters of the whole line.
const LINE: usize = 300;
/// Characters of the upstream's text in it.
const ERROR_TEXT_MAX: usize = 160;
/// A longer body is not searched for a reason.
const BODY: usize = 64 * 1024;
/// Bytes at the beginning of an HTML page that are searched for its title.
const TITLE_WITHIN: usize = 4 * 1024;

/// Returns whether a response cannot come from the API, which sends JSON objects and does not redirect.
pub(super) fn is_foreign(reply: &UpstreamReply) -> bool {
    let body = reply.body.trim_ascii_start();
    reply.status.is_redirection() || !body.is_empty() && !body.starts_with(b"{") && !body.starts_with(b"[")
}

/// One line of `text`, with the details of the reply.
pub(super) fn line(text: &str, reply: &UpstreamReply) -> String {
    let mut line = clean(text, LINE);
    let added = if let Some(location) = reply.location() {
        Some(("location", clean(location, ERROR_TEXT_MAX)))
    } else if let Some(error_text) = error_text(&reply.body) {
        Some(("error", clean(&error_text, ERROR_TEXT_MAX)))
    } else {
        title(&reply.body).map(|title| ("page title", clean(&title, ERROR_TEXT_MAX)))
    };
    if let Some((by, words)) = added {
        write!(line, "; {by} \"{words}\"").ok();
    }
    line
}

/// The text without line breaks, shortened to this many characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut cleaned = String::new();
    let mut letters = text.trim().chars();
    for letter in letters.by_ref().take(most) {
        if letter.is_control() || is_bidi_or_break(letter) {
            write!(cleaned, "\\u{:04x}", u32::from(letter)).ok();
        } else {
            cleaned.push(letter);
        }
    }
    if letters.next().is_some() {
        cleaned.push('…');
    }
    cleaned
}

/// Line and paragraph separators, and characters that change the direction of a text.
const fn is_bidi_or_break(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The message of a JSON error, in any of the usual forms: both upstreams' envelopes, problem details, and those of
/// gateways.
fn error_text(body: &[u8]) -> Option<String> {
    if body.len() > BODY || !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let at =
        |pointer: &str| body.pointer(pointer).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| at(pointer));
    let code = first(&["/error/code", "/code", "/problems/0/problemType"]);
    let text = first(&[
        "/error/description",
        "/error/message",
        "/detail",
        "/problems/0/reason",
        "/message",
        "/error_description",
        "/error",
        "/title",
    ]);
    match (code, text) {
        (Some(code), Some(text)) if code != text => Some(format!("{code}: {text}")),
        (Some(text), _) | (None, Some(text)) => Some(text.to_owned()),
        (None, None) => None,
    }
}

/// The title of an HTML page.
fn title(body: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(body.get(..TITLE_WITHIN).unwrap_or(body));
    // of the same length in both spellings, so that offsets agree
    let small = head.to_ascii_lowercase();
    let start = small.find("<title")?;
    let start = start + small.get(start..)?.find('>')? + 1;
    let end = start + small.get(start..)?.find("</title")?;
    head.get(start..end).map(str::trim).filter(|title| !title.is_empty()).map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::StatusCode;
    use reqwest::header::{HeaderMap, HeaderValue, LOCATION};

    use super::*;
    use crate::outbound::http::SecretMask;

    fn reply(status: u16, location: Option<&'static str>, body: &str) -> UpstreamReply {
        let mut headers = HeaderMap::new();
        if let Some(location) = location {
            headers.insert(LOCATION, HeaderValue::from_static(location));
        }
        let status = StatusCode::from_u16(status).unwrap();
        UpstreamReply::new(status, &headers, Bytes::from(body.to_owned()), &SecretMask::default())
    }

    #[test]
    fn error_line_contains_the_reason_from_the_response() {
        let cases = [
            (
                reply(400, None, r#"{"title":"Bad Request","detail":"id is too long"}"#),
                r#"x; error "id is too long""#,
            ),
            (
                reply(403, None, r#"{"error":{"code":"A_B","message":"A_B","description":"no"}}"#),
                r#"x; error "A_B: no""#,
            ),
            (reply(400, None, r#"{"problems":[{"problemType":"P","reason":"r"}]}"#), r#"x; error "P: r""#),
            (reply(500, None, r#"{"error":"oops"}"#), r#"x; error "oops""#),
            (reply(500, None, r#"{"error":{"code":"A_B","message":"A_B"}}"#), r#"x; error "A_B""#),
            (
                reply(302, Some("https://me:pw@sso.example/login?state=s3cret#x"), "<html>"),
                r#"x; location "https://sso.example/login""#,
            ),
            (reply(307, Some("/login?next=s3cret"), ""), r#"x; location "/login""#),
            (
                reply(200, None, "<!doctype html><HTML><TITLE a=b> Sign in\n</TITLE>"),
                r#"x; page title "Sign in""#,
            ),
            (reply(200, None, "<html><title>unfinished"), "x"),
            (reply(200, None, ""), "x"),
            (
                reply(400, None, r#"{"detail":"a\u001b[31m\nb\u202ec"}"#),
                r#"x; error "a\u001b[31m\u000ab\u202ec""#,
            ),
        ];
        for (reply, expected) in cases {
            assert_eq!(line("x", &reply), expected, "{reply:?}");
        }
    }

    #[test]
    fn error_line_is_bounded() {
        let long = format!(r#"{{"detail":"{}"}}"#, "é".repeat(30_000));
        let line = line(&"y".repeat(9_000), &reply(400, None, &long));
        assert!(line.chars().count() < LINE + ERROR_TEXT_MAX + 20, "{}", line.len());
        assert!(line.contains("y…; error \"é") && line.ends_with("é…\""), "{line}");
    }

    #[test]
    fn non_json_and_redirect_responses_are_foreign() {
        for (reply, expected) in [
            (reply(200, None, "<html>"), true),
            (reply(403, None, "Forbidden"), true),
            (reply(302, None, r#"{"a":1}"#), true),
            (reply(200, None, ""), false),
            (reply(404, None, ""), false),
            (reply(400, None, " {\"a\":1}"), false),
            (reply(200, None, "[]"), false),
        ] {
            assert_eq!(is_foreign(&reply), expected, "{reply:?}");
        }
    }
}
