//! A token as it was presented (RFC 7519, RFC 7515): taken apart, bounded, and hostile until its signature is checked.
//! Whatever in its header says where a key could be found (`jwk`, `jku`, `x5u`, `x5c`) is not looked at.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::KID_MAX;
use super::keyset::decode;

/// The longest token, in bytes.
const TOKEN_MAX: usize = 8 * 1024;
/// The types of tokens that are meant for us; others are signed with the same keys and mean something else (RFC 8725, 3.11).
const TYPES: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token whose signature nobody has checked.
pub(super) struct UnverifiedToken<'a> {
    /// The algorithm that it says it is signed with.
    pub(super) algorithm: Algorithm,
    /// The name of its key, at most [`KID_MAX`] bytes.
    pub(super) kid: Option<String>,
    /// What it says. Not to be believed.
    claims: JwtClaims,
    signed: &'a str,
    signature: &'a str,
}

/// What a token says, no name twice.
pub(super) struct JwtClaims(Map<String, Value>);

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Extensions that must be understood. None is.
    #[serde(default, deserialize_with = "there")]
    crit: bool,
    /// Unencoded payloads (RFC 7797), which are read in another way.
    #[serde(default, deserialize_with = "there")]
    b64: bool,
}

impl<'a> UnverifiedToken<'a> {
    /// Takes a token apart. `None` for whatever is not one, or is signed by a secret or not at all.
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

    /// Who it says has signed it: whose keys to try, and nothing more.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.text("iss")
    }

    /// What it says, if the key has signed it.
    pub(super) fn check(self, key: &DecodingKey) -> Option<JwtClaims> {
        let checked = crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm);
        checked.unwrap_or(false).then_some(self.claims)
    }
}

impl JwtClaims {
    /// A claim that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A claim that is a list of texts and nothing else.
    pub(super) fn list(&self, name: &str) -> Option<Vec<&str>> {
        self.0.get(name)?.as_array()?.iter().map(Value::as_str).collect()
    }

    /// A claim that is a text or a list of texts (`aud`).
    pub(super) fn one_or_more(&self, name: &str) -> Option<Vec<&str>> {
        self.text(name).map(|text| vec![text]).or_else(|| self.list(name))
    }

    /// A claim that is a time: seconds since 1970, perhaps with a fraction, not before then and at most in the year 9999.
    ///
    /// # Errors
    /// When it is there and no such number.
    pub(super) fn time(&self, name: &str) -> Result<Option<jiff::Timestamp>, ()> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..2.5e11).contains(seconds)).ok_or(())?;
        let span = jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| ())?;
        jiff::Timestamp::UNIX_EPOCH.checked_add(span).map(Some).map_err(|_| ())
    }
}

/// Reads an object and refuses one that says something twice: readers differ on which of the two holds.
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

/// Says that a member is there, whatever its value.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}
