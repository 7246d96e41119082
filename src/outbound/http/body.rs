//! Reads a body up to a cap, decodes the encodings that the client library does not, and repairs the text.
//!
//! One invalid byte must not cost a whole response: what a JSON parser would reject inside a string is replaced in that
//! string only. Invalid bytes outside of strings are unchanged, and fail in the parser.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::error::{RedactedError, SendError};

/// A decoded body, or as much of it as the cap allows.
pub(super) struct CollectedBody {
    pub(super) bytes: Bytes,
    /// Whether this is the complete body.
    pub(super) complete: bool,
}

/// Reads the decoded body and stops at the cap: a small gzip body can decode to any size
/// (`docs/adr/0005-one-upstream-http-client.md`).
pub(super) async fn collect(
    mut response: Response,
    cap: usize,
    convert: impl Fn(reqwest::Error) -> SendError,
) -> Result<CollectedBody, SendError> {
    let mut sink = BodySink::new(response.headers(), cap);
    while let Some(piece) = response.chunk().await.map_err(&convert)? {
        let written = sink.write(&piece);
        if sink.capped().overflows {
            return Ok(sink.into_head());
        }
        written.map_err(|error| broken(&error))?;
    }
    sink.finish()
}

fn broken(error: &io::Error) -> SendError {
    SendError::Broken(RedactedError(format!("its gzip encoding is invalid: {}", error.kind())))
}

/// The target of the chunks of a body. The client library decodes `gzip` by exactly this name; its older name and other
/// spellings arrive here encoded.
enum BodySink {
    Plain(CappedBody),
    Gzip(Box<MultiGzDecoder<CappedBody>>),
}

impl BodySink {
    fn new(headers: &HeaderMap, cap: usize) -> Self {
        let capped = CappedBody { bytes: Vec::new(), cap, overflows: false };
        let encoding =
            headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_gzip = ["gzip", "x-gzip"].iter().any(|name| encoding.trim().eq_ignore_ascii_case(name));
        if is_gzip { Self::Gzip(Box::new(MultiGzDecoder::new(capped))) } else { Self::Plain(capped) }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(capped) => capped.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
        }
    }

    fn capped(&self) -> &CappedBody {
        match self {
            Self::Plain(capped) => capped,
            Self::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn into_head(self) -> CollectedBody {
        let bytes = match self {
            Self::Plain(capped) => capped.bytes,
            Self::Gzip(mut decoder) => std::mem::take(&mut decoder.get_mut().bytes),
        };
        CollectedBody { bytes: bytes.into(), complete: false }
    }

    fn finish(mut self) -> Result<CollectedBody, SendError> {
        if let Self::Gzip(decoder) = &mut self {
            let finished = decoder.try_finish();
            if !decoder.get_ref().overflows {
                finished.map_err(|error| broken(&error))?;
            }
        }
        let complete = !self.capped().overflows;
        Ok(CollectedBody { complete, ..self.into_head() })
    }
}

/// Collects bytes up to a cap.
struct CappedBody {
    bytes: Vec<u8>,
    cap: usize,
    overflows: bool,
}

impl io::Write for CappedBody {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let taken = piece.len().min(self.cap - self.bytes.len());
        self.bytes.extend_from_slice(&piece[..taken]);
        if taken == 0 && !piece.is_empty() {
            self.overflows = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The byte order mark in UTF-8.
const MARK: &[u8] = b"\xEF\xBB\xBF";
/// The replacement character as a JSON escape: as long as the escape of the lone surrogate that it replaces.
const REPLACEMENT: &[u8] = b"\\ufffd";

/// The body as UTF-8 without a byte order mark. An invalid UTF-8 byte and the escape of a lone surrogate become the
/// replacement character; a control character inside a string is escaped. `None` when the result is larger than the
/// cap.
pub(super) fn readable(body: Bytes, cap: usize) -> Option<Bytes> {
    let body = if body.starts_with(MARK) { body.slice(MARK.len()..) } else { body };
    let body = match std::str::from_utf8(&body) {
        Ok(_) => body,
        Err(_) => String::from_utf8_lossy(&body).into_owned().into(),
    };
    let body =
        if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) { repaired(body) } else { body };
    (body.len() <= cap).then_some(body)
}

fn repaired(text: Bytes) -> Bytes {
    let (mut complete, mut kept, mut at, mut inside) = (Vec::new(), 0, 0, false);
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    while let Some(step) = text[at..].iter().position(stops) {
        at += step;
        let (length, instead) = match text[at] {
            b'"' => {
                inside = !inside;
                (1, None)
            }
            b'\\' => escape(&text[at..]),
            control if inside => (1, Some(format!("\\u{control:04x}").into_bytes())),
            _ => (1, None),
        };
        if let Some(instead) = instead {
            complete.extend_from_slice(&text[kept..at]);
            complete.extend_from_slice(&instead);
            kept = at + length;
        }
        at += length;
    }
    if kept == 0 {
        return text;
    }
    complete.extend_from_slice(&text[kept..]);
    complete.into()
}

/// The length of the escape at the start of the text, and its replacement.
fn escape(text: &[u8]) -> (usize, Option<Vec<u8>>) {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(text) {
        Some(0xD800..=0xDBFF) if matches!(text.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => (12, None),
        Some(0xD800..=0xDFFF) => (6, Some(REPLACEMENT.to_vec())),
        Some(_) => (6, None),
        None => (2.min(text.len()), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> Option<serde_json::Value> {
        serde_json::from_slice(&readable(Bytes::from_static(text), 1_000).unwrap()).ok()
    }

    #[test]
    fn invalid_byte_is_replaced_only_within_its_string() {
        let cases: [(&'static [u8], &str); 10] = [
            (b"\xEF\xBB\xBF{\"a\":\"b\"}", "b"),
            (b"{\"a\":\"caf\xE9\"}", "caf\u{fffd}"),
            (br#"{"a":"x\ud800y"}"#, "x\u{fffd}y"),
            (br#"{"a":"x\udc00"}"#, "x\u{fffd}"),
            (br#"{"a":"\ud83d\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            (br#"{"a":"\uD83D\uDE00 \u0041"}"#, "\u{1f600} A"),
            (br#"{"a":"\\ud800"}"#, r"\ud800"),
            (b"{\n\t\"a\": \"one\ttwo\nthree\x01\"\r\n}", "one\ttwo\nthree\u{1}"),
            (br#"{"\ud800":1,"a":"\"\ud800\""}"#, "\"\u{fffd}\""),
            (b"{\"a\":\"\xEF\xBB\xBF\"}", "\u{feff}"),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body).unwrap()["a"], expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn invalid_bytes_outside_strings_are_not_repaired() {
        for body in [&b"{\"a\":\xE9}"[..], b"{\"a\":\"b", b"{\"a\":\"\\", b"{\"a\":\"\\u12", b"<\xE9>", b""] {
            assert_eq!(read(body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn repaired_body_obeys_the_same_size_limit() {
        let body = Bytes::from_static(b"{\"a\":\"\xE9\xE9\"}");
        assert!(readable(body.clone(), body.len() + 3).is_none());
        assert!(readable(body.clone(), body.len() + 4).is_some());
    }
}
