//! An issuer's published keys (JWK Set, RFC 7517), parsed into those that can check a signature. The others are
//! skipped: symmetric secrets, encryption keys, weak keys, and unknown curves and forms.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The longest key id, in bytes.
pub(super) const KID_MAX: usize = 256;
/// The most keys of one set that are read.
const KEYS_MAX: usize = 100;
/// The sizes of an RSA modulus, in bits: smaller is weak (RFC 7518, 3.3), larger costs more than a token is worth.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The usable keys of an issuer.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<VerificationKey>,
}

/// One key, and the algorithm that it may check.
#[derive(Clone, Debug)]
struct VerificationKey {
    kid: Option<String>,
    /// The one algorithm that it is published for.
    only: Option<Algorithm>,
    kind: KeyKind,
    public: DecodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// The text is not a usable key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAKeySet {
    /// It is not JSON with a list of `keys`.
    #[error("it is no key set: a JSON object with a list of `keys` is wanted")]
    Shape,
    /// No key in it can check a signature here.
    #[error("none of its keys can be used: RSA of 2048 bits and more, P-256, P-384 and Ed25519 can")]
    Empty,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// A leaked private key: any party can sign with it.
    d: Option<Value>,
}

impl KeySet {
    /// Parses a key set.
    ///
    /// # Errors
    /// Returns an error if it is not a key set, or contains no usable key.
    pub(super) fn read(json: &[u8]) -> Result<Self, NotAKeySet> {
        let set: RawSet = serde_json::from_slice(json).map_err(|_| NotAKeySet::Shape)?;
        let keys: Vec<VerificationKey> =
            set.keys.into_iter().take(KEYS_MAX).filter_map(VerificationKey::read).collect();
        if keys.is_empty() { Err(NotAKeySet::Empty) } else { Ok(Self { keys }) }
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether both sets contain the same key ids in the same order.
    pub(super) fn same_names(&self, other: &Self) -> bool {
        self.keys.iter().map(|key| &key.kid).eq(other.keys.iter().map(|key| &key.kid))
    }

    /// Returns whether a key has this id.
    pub(super) fn contains(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The key with this id that may check this algorithm; without an id, the only key that may check it.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.keys.iter().filter(|key| key.checks(algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
        .map(|key| &key.public)
    }
}

impl VerificationKey {
    fn read(raw: Value) -> Option<Self> {
        let raw: RawKey = serde_json::from_value(raw).ok()?;
        let signs = raw.usage.as_deref().is_none_or(|usage| usage == "sig")
            && raw.key_ops.as_ref().is_none_or(|all| all.iter().any(|one| one == "verify"));
        let named = raw.kid.as_ref().is_none_or(|kid| kid.len() <= KID_MAX);
        if !signs || !named || raw.d.is_some() {
            return None;
        }
        let only = raw.alg.map(|name| name.parse::<Algorithm>()).transpose().ok()?;
        let (kind, public) = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", None) => {
                let [n, e] = [decode(&raw.n?)?, decode(&raw.e?)?];
                (RSA_BITS.contains(&bits(&n)) && is_exponent(&e))
                    .then(|| (KeyKind::Rsa, DecodingKey::from_rsa_raw_components(&n, &e)))?
            }
            ("EC", Some(curve)) => {
                let (kind, length) = match curve {
                    "P-256" => (KeyKind::P256, 32),
                    "P-384" => (KeyKind::P384, 48),
                    _ => return None,
                };
                let [x, y] = [decode(&raw.x?)?, decode(&raw.y?)?];
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                (x.len() == length && y.len() == length).then(|| (kind, DecodingKey::from_ec_der(&point)))?
            }
            ("OKP", Some("Ed25519")) => {
                let x = decode(&raw.x?)?;
                (x.len() == 32).then(|| (KeyKind::Ed25519, DecodingKey::from_ed_der(&x)))?
            }
            _ => return None,
        };
        only.is_none_or(|only| kind.checks(only)).then_some(Self { kid: raw.kid, only, kind, public })
    }

    fn checks(&self, algorithm: Algorithm) -> bool {
        self.kind.checks(algorithm) && self.only.is_none_or(|only| only == algorithm)
    }
}

impl KeyKind {
    fn checks(self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Rsa => matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512),
            Self::P256 => algorithm == ES256,
            Self::P384 => algorithm == ES384,
            Self::Ed25519 => algorithm == EdDSA,
        }
    }
}

/// Base64url without padding; any other form is rejected.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The length of a big-endian number, in bits.
fn bits(number: &[u8]) -> usize {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let rest = number.get(first..).unwrap_or_default();
    rest.first().map_or(0, |top| rest.len() * 8 - top.leading_zeros() as usize)
}

/// An odd number of at most four bytes, at least 3: 3 and 65537 in practice.
fn is_exponent(e: &[u8]) -> bool {
    (2..=32).contains(&bits(e)) && e.last().is_some_and(|last| last % 2 == 1)
}
