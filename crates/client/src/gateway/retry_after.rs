//! The pause that a gateway, or a proxy in front of it, requests with `Retry-After`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest pause that can be requested.
const LONGEST: Duration = Duration::from_hours(24);
/// The shortest: a pause of zero would cause a loop.
const SHORTEST: Duration = Duration::from_secs(1);

/// The pause of `Retry-After`, as seconds or as an HTTP date; between one second and a day.
///
/// A date is measured from the response's own `Date`: one clock wrote both, and it may differ from ours. `now` is used
/// if the response has no `Date`.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, &RETRY_AFTER)?;
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // a number too large to read is a long time
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let until = http_date(text)?;
        let from = self::text(headers, &DATE).and_then(http_date).unwrap_or(now);
        Duration::try_from(until.duration_since(from)).unwrap_or_default()
    };
    Some(pause.clamp(SHORTEST, LONGEST))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// A date in the current form or in one of the two obsolete ones (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let relaxed = || DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok();
    let strict = httpdate::parse_http_date(text).ok().and_then(|time| Timestamp::try_from(time).ok());
    strict.or_else(relaxed)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn requested_pause_is_read_in_every_form_and_bounded() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let cases = [
            (None, "0", Some(1)),
            (None, "7", Some(7)),
            (None, " 30 ", Some(30)),
            (None, "99999999999999999999999", Some(86_400)),
            (None, "Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            (None, "Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            (None, "Sunday, 06-Nov-94 08:50:07 GMT", Some(30)),
            (None, "Sun Nov  6 08:50:07 1994", Some(30)),
            (None, "soon", None),
            (None, "", None),
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), "Sun, 06 Nov 1994 09:49:47 GMT", Some(10)),
            (Some("Sun, 06 Nov 1994 07:49:37 GMT"), "Sun, 06 Nov 1994 07:49:47 GMT", Some(10)),
            (Some("yesterday"), "Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            (Some("Sun, 06 Nov 1994 09:49:37 GMT"), "10", Some(10)),
        ];
        for (date, text, seconds) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            if let Some(date) = date {
                headers.insert(DATE, HeaderValue::from_static(date));
            }
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{date:?} {text:?}");
        }
    }
}
