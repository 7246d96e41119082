//! Reads a bearer token: that of the `Authorization` header, or of a member that reads like one.

use http::{HeaderMap, header};
use secrecy::SecretString;

use crate::inbound::error::Refusal;

/// Longest `Authorization` header that is looked at, in bytes.
const MAX_BYTES: usize = 8 * 1024;

/// Gives the token, or none if no header was sent.
///
/// # Errors
/// When there is a header and it is not one bearer token. Nothing of it is repeated.
pub(in crate::inbound) fn token(headers: &HeaderMap) -> Result<Option<SecretString>, Refusal> {
    let mut sent = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = sent.next() else { return Ok(None) };
    if sent.next().is_some() {
        return Err(Refusal::unauthenticated("the authorization header is sent twice; send it once"));
    }
    if value.len() > MAX_BYTES {
        return Err(Refusal::unauthenticated("the authorization header is longer than 8 KiB"));
    }
    match value.to_str().ok().and_then(from_text) {
        Some(token) => Ok(Some(token)),
        None => Err(Refusal::unauthenticated(
            "the authorization header must read \"Bearer <client key or token>\"",
        )),
    }
}

/// Gives the token of a text that reads `Bearer <token>`.
pub(in crate::inbound::graphql) fn from_text(text: &str) -> Option<SecretString> {
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim_matches(' ');
    let one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && one).then(|| SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::inbound::error::Kind;

    #[test]
    fn only_one_well_formed_bearer_is_a_token() {
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
                (Err(refusal), Err(())) => assert_eq!(refusal.kind(), Kind::Unauthenticated, "{sent:?}"),
                (token, _) => panic!("{sent:?} gave {token:?}"),
            }
        }
    }
}
