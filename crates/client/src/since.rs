//! The value of `--updated-since`: a time, or how long ago it was.

use std::time::Duration;

use jiff::Timestamp;

use super::duration;

/// A point in time, as a person gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// A date and time.
    At(Timestamp),
    /// A span before now.
    Ago(Duration),
}

impl Since {
    /// Parses `2026-11-21T19:10:00Z`, or a span such as `2h`.
    ///
    /// # Errors
    /// When the text has another form.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let ago = duration::parse(text).map(Self::Ago);
        ago.or_else(|_| text.parse().map(Self::At))
            .map_err(|_| "must be a time such as 2026-11-21T19:10:00Z, or a duration before now such as 2h")
    }

    /// The `DateTime` of the schema. A span that begins before all time begins with it.
    pub(super) fn to_date_time(self, now: Timestamp) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Ago(span) => now.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updated_since_is_a_time_or_an_age() {
        let now: Timestamp = "2026-11-21T20:40:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-21T19:10:00Z", Some("2026-11-21T19:10:00Z")),
            ("2026-11-21T20:10:00+01:00", Some("2026-11-21T19:10:00Z")),
            ("2h", Some("2026-11-21T18:40:00Z")),
            ("99999999999d", Some("1970-01-01T00:00:00Z")),
            ("2026-11-21", None),
            ("yesterday", None),
            ("", None),
        ] {
            let found = Since::parse(text).ok().map(|since| since.to_date_time(now));
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
