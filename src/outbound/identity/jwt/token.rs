//! A token as it was presented (RFC 7519, RFC 7515): split, bounded, and untrusted until its signature is checked.
//! Header members that point to a key (`jwk`, `jku`, `x5u`, `x5c`) are ignored.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::keyset::{KID_MAX, decode};

/// The longest token, in bytes.
const TOKEN_MAX: usize = 8 * 1024;
/// The token types that are accepted; other types are signed with the same keys and have another meaning (RFC 8725,
/// 3.11).
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token whose signature has not been checked.
pub(super) struct UnverifiedToken<'a> {
    /// The algorithm in its header.
    pub(super) algorithm: Algorithm,
    /// The key id in its header, at most [`KID_MAX`] bytes.
    pub(super) kid: Option<String>,
    /// The claims. Untrusted.
    claims: JwtClaims,
    signed: &'a str,
    signature: &'a str,
}

/// The claims of a token, without duplicate names.
pub(super) struct JwtClaims(Map<String, Value>);

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that must be understood (`crit`). None is.
    #[serde(default, deserialize_with = "there")]
    crit: bool,
    /// Unencoded payloads (RFC 7797), which need another parser.
    #[serde(default, deserialize_with = "there")]
    b64: bool,
}

impl<'a> UnverifiedToken<'a> {
    /// Splits a token. `None` if it is not a token, is not signed, or is signed with a shared secret.
    pub(super) fn read(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.').filter(|_| token.len() <= TOKEN_MAX)?;
        let (header, payload) = signed.split_once('.').filter(|(_, payload)| !payload.contains('.'))?;
        let header: JwtHeader = serde_json::from_slice(&decode(header)?).ok()?;
        let typed = header.typ.is_none_or(|typ| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known)));
        let named = header.kid.as_ref().is_none_or(|kid| kid.len() <= KID_MAX);
        if header.crit || header.b64 || !typed || !named || decode(signature)?.is_empty() {
            return None;
        }
        let algorithm = header.alg.parse().ok()?;
        let claims = serde_json::from_slice(&decode(payload)?).ok()?;
        Some(Self { algorithm, kid: header.kid, claims, signed, signature })
    }

    /// The issuer claim: selects the keys to try, and nothing else.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// The claims, if the signature of the key is valid.
    pub(super) fn check(self, key: &DecodingKey) -> Option<JwtClaims> {
        let checked = crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm);
        checked.unwrap_or(false).then_some(self.claims)
    }
}

impl JwtClaims {
    /// A claim that is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is a list of strings only.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        self.0.get(name)?.as_array()?.iter().map(Value::as_str).collect()
    }

    /// A claim that is a string or a list of strings (`aud`).
    pub(super) fn one_or_more(&self, name: &str) -> Option<Vec<&str>> {
        self.text(name).map(|text| vec![text]).or_else(|| self.list(name))
    }

    /// A claim that is a time: seconds since 1970, perhaps with a fraction, not before then and at most in the year
    /// 9999.
    ///
    /// # Errors
    /// Returns an error if it is present and not such a number.
    pub(super) fn time(&self, name: &str) -> Result<Option<jiff::Timestamp>, ()> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..2.5e11).contains(seconds)).ok_or(())?;
        let span = jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| ())?;
        jiff::Timestamp::UNIX_EPOCH.checked_add(span).map(Some).map_err(|_| ())
    }
}

/// Parses an object and rejects duplicate names: parsers differ on which of the two applies.
impl<'de> Deserialize<'de> for JwtClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = JwtClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JwtClaims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim stands twice"));
                    }
                }
                Ok(JwtClaims(claims))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Returns whether a member is present, whatever its value.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}
