//! Client keys: their generation, and the hash that identifies them. Only the hash is stored.

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;

/// The prefix of every key, so that a leaked one can be recognised.
const MARK: &str = "jg_";
/// Random bytes in a key: too many to guess, so an unsalted hash is sufficient.
const RANDOM_BYTES: usize = 32;

/// The system provided no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes to make a key of")]
pub struct NoRandomness;

/// Generates a key: `jg_` and 43 characters of `A-Z`, `a-z`, `0-9`, `-` and `_`.
///
/// # Errors
/// Returns an error if the system provides no random bytes.
pub fn generate() -> Result<SecretString, NoRandomness> {
    let mut bytes = [0; RANDOM_BYTES];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(SecretString::from(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// The SHA-256 of a key's text, including the prefix, as in a client's `key_sha256`.
pub fn hash(key: &str) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::config::ClientConfig;

    #[test]
    fn the_hash_is_sha_256_of_the_text() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        assert_eq!(ClientConfig::hex(&hash("abc")), known);
    }

    #[test]
    fn generated_keys_are_unique() {
        let [one, other] = [(); 2].map(|()| generate().unwrap());
        assert_ne!(one.expose_secret(), other.expose_secret());
    }

    #[test]
    fn generated_key_has_its_prefix_and_length() {
        let key = generate().unwrap();
        assert_eq!(key.expose_secret().len(), 46);
        assert!(key.expose_secret().starts_with("jg_"));
    }
}
