//! A response of an upstream: a status, the few headers that matter, and a complete body.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, LOCATION, RETRY_AFTER};
use url::Url;

use super::mask::SecretMask;

/// The longest pause that an upstream can request.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);
/// The shortest: a pause of zero would cause a loop.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest request id that is accepted, in bytes.
const REQUEST_ID_BYTES: usize = 64;

/// A complete response.
#[derive(Clone, Debug)]
pub struct UpstreamReply {
    /// The HTTP status, whichever it is.
    pub status: StatusCode,
    /// The decoded body; our own secrets are masked.
    pub body: Bytes,
    retry_after: Option<String>,
    /// When it was sent, by the upstream's clock.
    date: Option<Timestamp>,
    user_hour_remaining: Option<u64>,
    rate_limit_remaining: Option<u64>,
    request_id: Option<String>,
    location: Option<String>,
}

impl UpstreamReply {
    pub(in crate::outbound) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
        mask: &SecretMask,
    ) -> Self {
        let text = |name: &str| Some(mask.text(headers.get(name)?.to_str().ok()?.trim().to_owned()));
        let number = |name: &str| text(name)?.parse().ok();
        Self {
            status,
            body: mask.bytes(body),
            retry_after: text(RETRY_AFTER.as_str()),
            date: text(DATE.as_str()).and_then(|text| http_date(&text)),
            user_hour_remaining: number("x-user-hour-limit-remaining"),
            rate_limit_remaining: number("x-ratelimit-remaining"),
            request_id: text("x-request-id").filter(|id| is_harmless(id)),
            location: text(LOCATION.as_str()).filter(|_| status.is_redirection()).map(|at| place(&at)),
        }
    }

    /// The pause of `Retry-After`, as seconds or as an HTTP date; between one second and a day.
    ///
    /// A date is measured from the response's own `Date`: one clock wrote both, and it may differ from ours. `now` is
    /// used if the response has no `Date`.
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let text = self.retry_after.as_deref()?;
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // a number too large to read is a long time
            return Some(bounded(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        let until = http_date(text)?;
        let from = self.date.unwrap_or(now);
        Some(bounded(Duration::try_from(until.duration_since(from)).unwrap_or_default()))
    }

    /// When it was sent, by the upstream's clock, if it reports it.
    pub const fn date(&self) -> Option<Timestamp> {
        self.date
    }

    /// The pause of `X-User-Hour-Limit-Remaining`, in seconds (MindBridge, "Limits and errors").
    pub fn user_hour_remaining(&self) -> Option<Duration> {
        self.user_hour_remaining.map(Duration::from_secs).map(bounded)
    }

    /// The upstream's id of the request, from `X-Request-Id`, if it is short and plain.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The target of a redirect, without the parts that may be secret: user, query and fragment.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// Returns whether `X-RateLimit-Remaining` is 0.
    pub fn hour_is_used_up(&self) -> bool {
        self.rate_limit_remaining == Some(0)
    }
}

/// Short, and only letters, digits, `-`, `_` and `.`: other text of an upstream is not passed on.
fn is_harmless(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(plain)
}

/// A date in the current form or in one of the two obsolete ones (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let relaxed = || DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok();
    let strict = httpdate::parse_http_date(text).ok().and_then(|time| Timestamp::try_from(time).ok());
    strict.or_else(relaxed)
}

/// The part of a URL that names a resource.
fn place(location: &str) -> String {
    let path = location.split(['?', '#']).next().unwrap_or_default();
    let Ok(mut url) = Url::parse(path) else { return path.to_owned() };
    // a URL that cannot have them has none
    url.set_username("").ok();
    url.set_password(None).ok();
    url.to_string()
}

fn bounded(pause: Duration) -> Duration {
    pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn retry_after_is_parsed_in_every_form_and_bounded() {
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
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            ("Sun Nov  6 08:50:07 1994", Some(30)),
            ("-5", None),
            ("soon", None),
            ("", None),
            ("1.5", None),
        ];
        for (text, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            let reply = UpstreamReply::new(
                StatusCode::TOO_MANY_REQUESTS,
                &headers,
                Bytes::new(),
                &SecretMask::default(),
            );
            assert_eq!(reply.retry_after(now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn retry_after_date_is_measured_from_the_date_header() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let cases = [
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), "Sun, 06 Nov 1994 09:49:47 GMT", 10),
            (Some("Sun, 06 Nov 1994 07:49:37 GMT"), "Sun, 06 Nov 1994 07:49:47 GMT", 10),
            (Some("Sunday, 06-Nov-94 09:49:37 GMT"), "Sun Nov  6 09:49:47 1994", 10),
            (Some("yesterday"), "Sun, 06 Nov 1994 08:49:47 GMT", 10),
            (None, "Sun, 06 Nov 1994 08:49:47 GMT", 10),
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), "10", 10),
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), "Sun, 06 Nov 1994 08:49:37 GMT", 1),
        ];
        for (date, until, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(until));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            let reply = UpstreamReply::new(
                StatusCode::TOO_MANY_REQUESTS,
                &headers,
                Bytes::new(),
                &SecretMask::default(),
            );
            assert_eq!(reply.retry_after(now), Some(Duration::from_secs(expected)), "{date:?} {until}");
        }
    }
}
