//! Removes our own secrets from everything that is returned or logged: an upstream's bodies and headers, URLs and
//! errors. It replaces only the secrets that it was given.

use std::fmt;

use bytes::Bytes;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use crate::ports::credentials::Credential;

/// The replacement of a secret.
const MASK: &[u8] = b"[redacted]";

/// The shortest secret that is masked. A shorter one protects nothing, and removing every `a` or `id` would destroy a
/// body.
const SHORTEST: usize = 8;

/// The most backslashes before one character that are read as its escapes: JSON in JSON in JSON has seven. A limit,
/// because a body of only backslashes must not take quadratic time.
const MOST_ESCAPES: usize = 8;

/// Secrets to be masked. Its `Debug` prints none of them.
///
/// A secret is found in every spelling, each character on its own: plain, in JSON (also `\\/` and `\\u002f`), and in a
/// URL (`%2F`, `+`). Backslashes, which JSON multiplies, are ignored in the comparison.
#[derive(Clone, Default)]
pub struct SecretMask {
    /// Without backslashes.
    secrets: Vec<SecretSlice<u8>>,
}

/// How an ambiguous spelling is read: `%25` is `%25` in plain text, and `%` in a URL.
#[derive(Clone, Copy)]
enum PercentReading {
    Plain,
    Encoded,
}

impl SecretMask {
    /// A mask for these credentials.
    pub fn new<'a>(credentials: impl IntoIterator<Item = &'a Credential>) -> Self {
        Self::of_secrets(credentials.into_iter().map(Credential::secret))
    }

    /// A mask for these texts.
    pub(super) fn of_secrets<'a>(texts: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut secrets: Vec<SecretSlice<u8>> = Vec::new();
        for text in texts {
            let secret: Vec<u8> = text.expose_secret().bytes().filter(|byte| *byte != b'\\').collect();
            if secret.len() >= SHORTEST && secrets.iter().all(|held| held.expose_secret() != secret) {
                secrets.push(SecretSlice::from(secret));
            }
        }
        Self { secrets }
    }

    /// A mask for the secrets of both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self { secrets: self.secrets.iter().chain(&other.secrets).cloned().collect() }
    }

    /// The same bytes with every secret replaced. One scan, whatever the number of secrets; if several match, the
    /// longest.
    pub fn bytes(&self, text: Bytes) -> Bytes {
        let starts = self.starts();
        let (mut masked, mut kept, mut at) = (Vec::new(), 0, 0);
        while let Some(step) = text[at..].iter().position(|byte| starts[usize::from(*byte)]) {
            at += step;
            let rest = &text[at..];
            let longest =
                self.secrets.iter().filter_map(|secret| spelled(rest, secret.expose_secret())).max();
            if let Some(length) = longest {
                masked.extend_from_slice(&text[kept..at]);
                masked.extend_from_slice(MASK);
                at += length;
                kept = at;
            } else {
                at += 1;
            }
        }
        if kept == 0 {
            return text;
        }
        masked.extend_from_slice(&text[kept..]);
        masked.into()
    }

    /// The same text with every secret replaced.
    pub fn text(&self, text: String) -> String {
        String::from_utf8_lossy(&self.bytes(text.into())).into_owned()
    }

    /// The bytes that a secret can start with.
    fn starts(&self) -> [bool; 256] {
        let mut starts = [false; 256];
        for secret in &self.secrets {
            for byte in secret.expose_secret().first().into_iter().chain(br"\%") {
                starts[usize::from(*byte)] = true;
            }
        }
        starts
    }
}

impl fmt::Debug for SecretMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} secrets)", self.secrets.len())
    }
}

/// The number of bytes of the secret at the beginning of the text, if the text starts with it.
fn spelled(text: &[u8], secret: &[u8]) -> Option<usize> {
    let by = |reading| {
        secret.iter().try_fold(0, |at, byte| Some(at + character(text.get(at..)?, *byte, reading)?))
    };
    by(PercentReading::Plain).max(by(PercentReading::Encoded))
}

/// The number of bytes of one character at the beginning of the text, if the text starts with it.
fn character(text: &[u8], byte: u8, reading: PercentReading) -> Option<usize> {
    let escapes = escapes(text, reading);
    let text = text.get(escapes..)?;
    let first = *text.first()?;
    let plain = (first == byte || (first, byte) == (b'+', b' ')).then_some(1);
    let encoded = || match (first, text.get(1..5), text.get(1..3)) {
        (b'u', Some([b'0', b'0', high, low]), _) if escapes > 0 && hex(*high, *low) == Some(byte) => Some(5),
        (b'%', _, Some([high, low])) if hex(*high, *low) == Some(byte) => Some(3),
        _ => None,
    };
    let length = match reading {
        PercentReading::Plain => plain.or_else(encoded),
        PercentReading::Encoded => encoded().or(plain),
    };
    length.map(|length| escapes + length)
}

/// The number of bytes of the backslashes before a character.
fn escapes(text: &[u8], reading: PercentReading) -> usize {
    let mut at = 0;
    for _ in 0..MOST_ESCAPES {
        at += match (reading, text.get(at..).unwrap_or_default()) {
            (_, [b'\\', ..]) => 1,
            (PercentReading::Encoded, [b'%', b'5', b'C' | b'c', ..]) => 3,
            _ => break,
        };
    }
    at
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use url::form_urlencoded::byte_serialize;

    fn mask(secrets: &[&str]) -> SecretMask {
        let held: Vec<_> =
            secrets.iter().map(|secret| Credential::Bearer(SecretString::from(*secret))).collect();
        SecretMask::new(&held)
    }

    #[test]
    fn echoed_secret_is_redacted_in_every_encoding() {
        let cases = [
            ("no secret here", "s3cr3t-s3cr3t", "no secret here"),
            (r#"{"m":"bad key s3cr3t-s3cr3t"}"#, "s3cr3t-s3cr3t", r#"{"m":"bad key [redacted]"}"#),
            ("s3cr3t-s3cr3ts3cr3t-s3cr3t", "s3cr3t-s3cr3t", "[redacted][redacted]"),
            (r#"{"m":"a\"b\\cdefgh"}"#, r#"a"b\cdefgh"#, r#"{"m":"[redacted]"}"#),
            (r#"{"m":"a\/b=c+\u0064efgh"}"#, "a/b=c+defgh", r#"{"m":"[redacted]"}"#),
            (r#"{"m":"{\"k\":\"a\\\/bcdefgh\"}"}"#, "a/bcdefgh", r#"{"m":"{\"k\":\"[redacted]\"}"}"#),
            ("?key=a%2Fb%3Dc%2Bdefgh&x=1", "a/b=c+defgh", "?key=[redacted]&x=1"),
            ("?key=a%2fb%3dc%2bdefgh&x=1", "a/b=c+defgh", "?key=[redacted]&x=1"),
            (r"?key=%5C%5Cab%5Ccdefgh&x=1", r"\ab\cdefgh", "?key=[redacted]&x=1"),
            ("100%25-secret and 100%2525-secret", "100%25-secret", "[redacted] and [redacted]"),
            ("s3cr3t-s3cr3", "s3cr3t-s3cr3t", "s3cr3t-s3cr3"),
            ("a short one stays", "short", "a short one stays"),
        ];
        for (text, secret, expected) in cases {
            assert_eq!(mask(&[secret]).bytes(Bytes::from(text)), expected, "{text}");
        }
    }

    #[test]
    fn longest_matching_secret_is_redacted() {
        let mask = mask(&["token-one", "token-one-and-more", "", "token-two"]);
        let masked = mask.text("token-two token-one token-one-and-more token-on".to_owned());
        assert_eq!(masked, "[redacted] [redacted] [redacted] token-on");
        assert_eq!(format!("{mask:?}"), "Mask(3 secrets)");
    }

    #[test]
    fn body_of_backslashes_passes_the_mask_unchanged() {
        let body = Bytes::from(vec![b'\\'; 1 << 20]);
        assert_eq!(mask(&["s3cr3t-s3cr3t"]).bytes(body.clone()), body);
    }

    proptest! {
        #[test]
        fn every_secret_is_redacted_and_json_stays_valid(
            secret in "[ -~]{8,40}",
            before in "[ -~]{0,9}",
            after in "[ -~]{0,9}",
        ) {
            prop_assume!(secret.trim() == secret && secret.replace('\\', "").len() >= SHORTEST);
            // distinct from its own mask and its surroundings
            prop_assume!(!"[redacted]".contains(&secret) && !format!("{before}{after}").contains(&secret));
            let mask = mask(&[&secret]);
            let text_sent = format!("{before}|{secret}|{after}");
            let in_json = serde_json::json!({ "m": text_sent }).to_string();
            let in_url: String = byte_serialize(text_sent.as_bytes()).collect();
            let in_php = in_json.replace('/', "\\/");
            for text in [text_sent.clone(), in_url, in_json, in_php] {
                let masked = mask.text(text.clone());
                prop_assert!(masked.contains("[redacted]"), "{} became {}", text, masked);
                if text.starts_with('{') {
                    let read: Result<serde_json::Value, _> = serde_json::from_str(&masked);
                    prop_assert!(read.is_ok() || text_sent.starts_with('{'), "{} became {}", text, masked);
                    let masked_text = read.map(|read| read["m"].as_str().unwrap_or_default().to_owned());
                    prop_assert!(!masked_text.unwrap_or_default().contains(&secret), "{}", masked);
                }
            }
        }
    }
}
