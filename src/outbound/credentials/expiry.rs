//! When a credential expires, as far as it contains its own expiry, and when to warn about it. Verifies nothing: the
//! upstream does.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

/// How close the expiry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ExpiryWarning {
    /// Unknown or far away.
    #[default]
    Far,
    /// Within a week.
    Week,
    /// Within a day.
    Day,
    /// Within an hour.
    Hour,
    /// Expired.
    Ended,
}

/// The `exp` claim of a JWT; `None` if the secret is not a JWT.
pub(super) fn of_token(secret: &SecretString) -> Option<Timestamp> {
    let mut parts = secret.expose_secret().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let payload: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let end = payload.get("exp")?;
    // usually a whole number; a fraction is allowed and ignored
    let seconds = end.as_i64().or_else(|| format!("{:.0}", end.as_f64()?).parse().ok())?;
    Timestamp::from_second(seconds).ok()
}

/// How close an expiry is. For a warning at another time, operators alert on the metric with the expiry.
pub(super) fn nearness(now: Timestamp, end: Option<Timestamp>) -> ExpiryWarning {
    let Some(end) = end else { return ExpiryWarning::Far };
    let Ok(left) = Duration::try_from(end.duration_since(now)) else { return ExpiryWarning::Ended };
    match left {
        left if left.is_zero() => ExpiryWarning::Ended,
        left if left <= Duration::from_hours(1) => ExpiryWarning::Hour,
        left if left <= Duration::from_hours(24) => ExpiryWarning::Day,
        left if left <= Duration::from_hours(7 * 24) => ExpiryWarning::Week,
        _ => ExpiryWarning::Far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(payload: &str) -> SecretString {
        SecretString::from(format!("eyJhbGciOiJub25lIn0.{}.sig", URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn credential_expiry_is_read_only_from_the_jwt_exp_claim() {
        let cases = [
            (token(r#"{"exp":1700000000}"#), Some(1_700_000_000)),
            (token(r#"{"exp":1700000000.25,"sub":"x"}"#), Some(1_700_000_000)),
            (token(r#"{"exp":"1700000000"}"#), None),
            (token(r#"{"exp":1e300}"#), None),
            (token(r#"{"exp":-99999999999999999}"#), None),
            (token(r#"{"iat":1700000000}"#), None),
            (token("[]"), None),
            (SecretString::from("a.b.c"), None),
            (SecretString::from("plain-key"), None),
            (SecretString::from(format!("{}.d", token(r#"{"exp":1}"#).expose_secret())), None),
        ];
        for (secret, expected) in cases {
            let read = of_token(&secret).map(Timestamp::as_second);
            assert_eq!(read, expected, "{}", secret.expose_secret());
        }
    }

    #[test]
    fn expiry_warning_level_follows_the_time_left() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let cases = [
            (8 * 86_400, ExpiryWarning::Far),
            (7 * 86_400 + 1, ExpiryWarning::Far),
            (7 * 86_400, ExpiryWarning::Week),
            (86_401, ExpiryWarning::Week),
            (86_400, ExpiryWarning::Day),
            (3_601, ExpiryWarning::Day),
            (3_600, ExpiryWarning::Hour),
            (1, ExpiryWarning::Hour),
            (0, ExpiryWarning::Ended),
            (-1, ExpiryWarning::Ended),
        ];
        for (left, expected) in cases {
            let end = Timestamp::from_second(now.as_second() + left).unwrap();
            assert_eq!(nearness(now, Some(end)), expected, "{left} s left");
        }
        assert_eq!(nearness(now, None), ExpiryWarning::Far);
    }

    proptest! {
        #[test]
        fn parsing_the_expiry_of_any_secret_never_panics(secret in ".{0,60}", payload in ".{0,40}") {
            of_token(&SecretString::from(secret));
            of_token(&token(&payload));
        }
    }
}
