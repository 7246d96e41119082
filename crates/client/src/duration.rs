//! The notation of a span of time: `250ms`, `30s`, `5m`, `24h`, `30d`. The gateway reads and writes the same one.

use std::time::Duration;

/// The units of a span, with their milliseconds; longest first, for formatting.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The message about a text that is not a span of time.
const MESSAGE: &str = "must be a duration with its unit, such as 250ms, 30s, 5m, 24h or 30d";

/// Parses a span of time. No signs, no fractions, no whitespace, no bare number.
///
/// # Errors
/// When the text has another form. A span longer than a `u64` of milliseconds is read as the maximum.
pub(crate) fn parse(text: &str) -> Result<Duration, &'static str> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or(MESSAGE)?;
    let (number, unit) = text.split_at_checked(digits).ok_or(MESSAGE)?;
    let number: u64 = number.parse().map_err(|_| MESSAGE)?;
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(MESSAGE)?;
    Ok(Duration::from_millis(number.saturating_mul(*factor)))
}

/// Formats a span of time in the largest unit that divides it. Fractions of a millisecond are lost.
pub(crate) fn format(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    UNITS
        .iter()
        .find(|(_, factor)| millis.is_multiple_of(*factor))
        .map_or_else(|| format!("{millis}ms"), |(name, factor)| format!("{}{name}", millis / factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn duration_option_requires_a_number_with_a_unit() {
        for (text, millis) in
            [("0s", 0), ("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "5", "s", "-1s", "1.5s", " 1s", "1 s", "1S", "1w", "99999999999999999999s", "1s1s"] {
            assert_eq!(parse(text), Err(MESSAGE), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printed_duration_parses_to_the_same_value(millis in 0_u64..10_000_000_000) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(span)), Ok(span));
        }
    }
}
