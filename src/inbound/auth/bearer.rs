//! Parses a bearer token: from the `Authorization` header, or from a member with the same syntax.

use http::{HeaderMap, header};
use secrecy::SecretString;

use crate::inbound::http::error::{HttpRefusal, RefusalKind};

/// The longest `Authorization` header that is parsed, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// Returns the token, or none if there is no header.
///
/// # Errors
/// Returns an error if there is a header and it is not one bearer token. Its value is never repeated.
pub(in crate::inbound) fn token(headers: &HeaderMap) -> Result<Option<SecretString>, HttpRefusal> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(HttpRefusal::invalid_token(
            RefusalKind::Unauthenticated,
            "the authorization header is sent twice; send it once",
        ));
    }
    if value.len() > MAX_BYTES {
        return Err(HttpRefusal::invalid_token(
            RefusalKind::Unauthenticated,
            "the authorization header exceeds 8 KiB; send a shorter token",
        ));
    }
    if let Some(token) = std::str::from_utf8(value.as_bytes()).ok().and_then(from_text) {
        return Ok(Some(token));
    }
    let message = "the authorization header must have the form \"Bearer <client key or token>\"";
    let scheme = value.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"));
    // another scheme is not a bearer token, so there is no invalid token
    Err(if scheme {
        HttpRefusal::invalid_token(RefusalKind::Unauthenticated, message)
    } else {
        HttpRefusal::unauthenticated(message)
    })
}

/// The token of a text `Bearer <token>`.
pub(in crate::inbound) fn from_text(text: &str) -> Option<SecretString> {
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim_matches(' ');
    let one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && one).then(|| SecretString::from(token))
}

/// The same with an optional scheme: a payload has no other.
pub(in crate::inbound) fn from_payload(text: &str) -> Option<SecretString> {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let scheme = text.eq_ignore_ascii_case("bearer");
    if bare && !scheme { Some(SecretString::from(text)) } else { from_text(text) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn payload_token_may_omit_the_bearer_scheme() {
        for (text, expected) in [
            ("Bearer jg_a", Some("jg_a")),
            ("jg_a", Some("jg_a")),
            ("Bearer", None),
            ("bearer ", None),
            ("Basic abc", None),
            ("jg_a jg_b", None),
            (" jg_a", None),
            ("", None),
            ("é", None),
        ] {
            assert_eq!(from_payload(text).as_ref().map(ExposeSecret::expose_secret), expected, "{text:?}");
        }
    }

    #[test]
    fn authorization_requires_one_well_formed_bearer_token() {
        let long = format!("Bearer {}", "x".repeat(MAX_BYTES));
        for (sent, expected) in [
            (vec![], Ok(None)),
            (vec!["Bearer abc.d-_~+/="], Ok(Some("abc.d-_~+/="))),
            (vec!["bEARER  abc "], Ok(Some("abc"))),
            (vec!["Basic abc"], Err(())),
            (vec!["Bearer"], Err(())),
            (vec!["Bearer "], Err(())),
            (vec!["Bearer a b"], Err(())),
            (vec!["abc"], Err(())),
            (vec![""], Err(())),
            (vec!["Bearer \u{e9}"], Err(())),
            (vec!["Bearer a", "Bearer a"], Err(())),
            (vec![long.as_str()], Err(())),
        ] {
            let mut headers = HeaderMap::new();
            for value in &sent {
                headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            match (token(&headers), expected) {
                (Ok(token), Ok(expected)) => {
                    assert_eq!(token.as_ref().map(ExposeSecret::expose_secret), expected, "{sent:?}");
                }
                (Err(refusal), Err(())) => {
                    assert_eq!(refusal.kind(), RefusalKind::Unauthenticated, "{sent:?}");
                }
                (token, _) => panic!("{sent:?} gave {token:?}"),
            }
        }
    }
}
