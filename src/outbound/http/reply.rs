//! What came back from an upstream: a status, the few headers that matter, and a whole body.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::mask::Mask;

/// The longest pause that an upstream can ask for.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);
/// The shortest: "at once" would be a loop.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest id of a request that is taken, in bytes.
const REQUEST_ID_BYTES: usize = 64;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status, whichever it is.
    pub status: StatusCode,
    /// The decoded body, our own secrets masked.
    pub body: Bytes,
    retry_after: Option<String>,
    user_hour_remaining: Option<u64>,
    rate_limit_remaining: Option<u64>,
    request_id: Option<String>,
}

impl Reply {
    pub(in crate::outbound) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        mask: &Mask,
    ) -> Self {
        let text = |name: &str| Some(mask.text(headers.get(name)?.to_str().ok()?.trim().to_owned()));
        let number = |name: &str| text(name)?.parse().ok();
        Self {
            status,
            body: mask.bytes(body),
            retry_after: text(RETRY_AFTER.as_str()),
            user_hour_remaining: number("x-user-hour-limit-remaining"),
            rate_limit_remaining: number("x-ratelimit-remaining"),
            request_id: text("x-request-id").filter(|id| is_harmless(id)),
        }
    }

    /// How long `Retry-After` asks to wait, as seconds or as an HTTP date; between one second and a day.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let text = self.retry_after.as_deref()?;
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // a number too large to read is a long time
            return Some(bounded(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        let until = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
        Some(bounded(Duration::try_from(until.duration_since(now)).unwrap_or_default()))
    }

    /// The seconds that `X-User-Hour-Limit-Remaining` asks to wait (MindBridge, "Limits and errors").
    pub fn user_hour_remaining(&self) -> Option<Duration> {
        self.user_hour_remaining.map(Duration::from_secs).map(bounded)
    }

    /// What the upstream calls the request, by `X-Request-Id`, if it is short and plain.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// Says whether `X-RateLimit-Remaining` is 0.
    pub fn hour_is_used_up(&self) -> bool {
        self.rate_limit_remaining == Some(0)
    }
}

/// Short, and only letters, digits, `-`, `_` and `.`: what an upstream says is not ours to spread.
fn is_harmless(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(plain)
}

fn bounded(pause: Duration) -> Duration {
    pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn every_form_of_retry_after_is_read_within_its_bounds() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let cases = [
            ("0", Some(1)),
            ("7", Some(7)),
            (" 30 ", Some(30)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            ("Sun, 06 Nov 2094 08:00:00 GMT", Some(86_400)),
            ("-5", None),
            ("soon", None),
            ("", None),
            ("1.5", None),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            let reply = Reply::new(StatusCode::TOO_MANY_REQUESTS, &headers, Bytes::new(), &Mask::default());
            assert_eq!(reply.retry_after(now), expected.map(Duration::from_secs), "{text:?}");
        }
    }
}
